/**
 * Headless Chromium for the server's own pages, moved by lines of JSON on standard input:
 *
 *     node pages.mjs CHROMIUM [no-script] [any-certificate] [away=HOST:PORT]
 *
 * With the last, https://*.example.com is there, with any certificate.
 *
 * - open {url, before}: go there; `before` is a script that runs before the page's own ones
 * - fill {label, text}, check {label}, press {button}, follow {link}: as a person would, by what is
 *   written there
 * - text: what a person can read
 * - evaluate {script}: the value of an expression in the page
 * - faults: what the console has complained about
 * - accessibility: what axe-core finds wrong, by rule
 * - colours {scheme}: "dark" or "light"
 * - key {name}: press a key such as Tab; the result is what is written at what has the focus then
 * - type {text}: where the focus is
 * - resize {width, height}, screenshot {path}
 */
import axe from "axe-core";
import { chromium } from "playwright-core";
import { answerLines } from "./lines.mjs";

const [executablePath, ...options] = process.argv.slice(2);
const away = options.find((it) => it.startsWith("away="))?.slice("away=".length);
const browser = await chromium.launch({
    executablePath,
    // the first as root, as in CI, has no sandbox; the rest keeps Chromium from calling home
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-quic",
        ...(away ? [`--host-resolver-rules=MAP *.example.com ${away}`] : [])],
});
const page = await browser.newPage({
    javaScriptEnabled: !options.includes("no-script"),
    ignoreHTTPSErrors: Boolean(away) || options.includes("any-certificate"),
});
page.setDefaultTimeout(20_000); // of a busy machine
const faults = [];
page.on("console", (message) => {
    console.error(`[${message.type()}] ${message.text()}`);
    // a refusal by the server is no fault of the page
    const isRefusal = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !isRefusal) faults.push(message.text());
});
page.on("pageerror", (error) => faults.push(String(error)));

/** What has the focus, as a person would name it. */
function focused() {
    const it = document.activeElement;
    if (!it || it === document.body) return "";
    return (it.getAttribute("aria-label") ?? it.labels?.[0]?.innerText ?? it.innerText).trim();
}

const isInvisible = (node) => node.any.some((check) => check.data?.messageKey === "equalRatio");

const commands = {
    async open({ url, before }) {
        if (before) await page.addInitScript(before);
        await page.goto(url);
    },
    fill: ({ label, text }) => page.getByLabel(label, { exact: true }).fill(text),
    check: ({ label }) => page.getByLabel(label, { exact: true }).check(),
    follow: ({ link }) => page.getByRole("link", { name: link, exact: true }).click(),
    key: async ({ name }) => {
        await page.keyboard.press(name);
        return page.evaluate(focused).catch(() => ""); // the key may have opened another page
    },
    type: ({ text }) => page.keyboard.type(text),
    press: ({ button }) => page.getByRole("button", { name: button, exact: true }).click(),
    waitFor: ({ text, seconds = 20 }) => page.getByText(text).first().waitFor({ timeout: seconds * 1000 }),
    text: () => page.locator("main").innerText(),
    evaluate: ({ script }) => page.evaluate(script),
    faults: () => faults,
    async accessibility() {
        await page.evaluate(axe.source);
        const found = await page.evaluate(() => window.axe.run());
        // axe takes a text in the colour of its ground for one that is hidden on purpose
        const hidden = found.incomplete.map((it) => ({ ...it, nodes: it.nodes.filter(isInvisible) }));
        const problems = [...found.violations, ...hidden.filter((it) => it.nodes.length)];
        return problems.map(({ id, nodes }) => `${id}: ${nodes.map((it) => it.html).join(" ")}`);
    },
    colours: ({ scheme }) => page.emulateMedia({ colorScheme: scheme }),
    resize: (size) => page.setViewportSize(size),
    screenshot: async ({ path }) => void (await page.screenshot({ path })),
};

await answerLines(async (command, given) => {
    try {
        return { result: (await commands[command](given)) ?? null };
    } catch (error) {
        return { error: String(error) };
    }
});
await browser.close();
