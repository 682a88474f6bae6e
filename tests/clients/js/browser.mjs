/**
 * A web page in headless Chromium, moved by lines of JSON on standard input:
 *
 *     node browser.mjs CHROMIUM ADDRESS
 *
 * The commands are those of client.mjs, and one more: `corsErrors`.
 */
import { chromium } from "playwright-core";
import { answerLines } from "./lines.mjs";

const [executablePath, address] = process.argv.slice(2);

const browser = await chromium.launch({
    executablePath,
    args: [
        // root, as in CI, has no sandbox
        "--no-sandbox",
        "--disable-gpu",
        // the rest keeps Chromium from calling home
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ],
});
const page = await browser.newPage();
const corsErrors = [];
page.on("console", (message) => {
    console.error(`[${message.type()}] ${message.text()}`);
    if (/\bCORS\b|Access-Control-/.test(message.text())) corsErrors.push(message.text());
});
page.on("pageerror", (error) => console.error(`[uncaught] ${error.stack ?? error}`));
await page.goto(address);
await page.waitForFunction(() => document.title === "ready", null, { timeout: 15_000 });

await answerLines((command, given) =>
    command === "corsErrors"
        ? { result: corsErrors }
        : page.evaluate(([name, value]) => window.perform(name, value), [command, given]),
);
await browser.close();
