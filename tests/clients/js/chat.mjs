/** matrix-js-sdk in Node, moved by lines of JSON on standard input. */
import { Console } from "node:console";
import { answerLines } from "./lines.mjs";

// the SDK logs to the console, and standard output belongs to our answers
globalThis.console = new Console(process.stderr, process.stderr);

// the SDK asks for Node 22 only because of this function, which Node 20 lacks
Promise.withResolvers ??= () => {
    const resolvers = {};
    resolvers.promise = new Promise((resolve, reject) => Object.assign(resolvers, { resolve, reject }));
    return resolvers;
};

// not a static import: those run before the lines above
const { perform } = await import("./client.mjs");
await answerLines(perform);
// the SDK's timers would keep Node alive
process.exit(0);
