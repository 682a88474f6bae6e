/** matrix-js-sdk in a web page: esbuild makes page.js of this, and browser.mjs calls `perform`. */
import { perform } from "./client.mjs";

window.perform = perform;
document.title = "ready";
