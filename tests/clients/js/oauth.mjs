/**
 * matrix-js-sdk's client of the OAuth 2.0 API in Node, moved by lines of JSON on standard input:
 *
 * - register {baseUrl, metadata}: discover the server, and register
 * - link {redirectUri, mode, prompt}: the address to which the client sends its user
 * - complete {code, redirectUri}, refresh, revoke: as the SDK's own functions; the answer is the
 *   user of the new tokens
 * - meet {baseUrl, url}: begin a rendezvous, or come to that of another device; the answer is its URL
 * - send {data}, receive: what the devices exchange there
 * - device: the answer of the server; then waitForDevice: the user who has let the device in
 */
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

const { createClient, OAuth2 } = await import("matrix-js-sdk");
const { MSC4108RendezvousSession } = await import("matrix-js-sdk/lib/rendezvous/index.js");

let baseUrl, metadata, client, tokens, session, rendezvous;

async function user() {
    const me = createClient({ baseUrl, accessToken: tokens.access_token });
    return me.whoami();
}

const commands = {
    async register(given) {
        baseUrl = given.baseUrl;
        metadata = await createClient({ baseUrl }).getAuthMetadata();
        const clientId = await OAuth2.registerClient(metadata, given.metadata);
        client = new OAuth2(metadata, { clientId });
        return metadata;
    },
    link: ({ redirectUri, mode, prompt }) =>
        client.generateAuthorizationCodeGrantUrl("some state", redirectUri, mode, prompt),
    async complete({ code, redirectUri }) {
        tokens = await client.completeAuthorizationCodeGrant(code, redirectUri);
        return user();
    },
    async refresh() {
        tokens = await client.performRefreshTokenGrant(tokens.refresh_token);
        return user();
    },
    async revoke() {
        await client.revokeToken(tokens.access_token, "access_token");
        return user().then(() => "still valid", (error) => error.errcode);
    },
    async meet(given) {
        const url = given.url ?? undefined;
        rendezvous = new MSC4108RendezvousSession({ client: createClient(given), url });
        if (!url) await rendezvous.send("");
        return rendezvous.url;
    },
    send: ({ data }) => rendezvous.send(data),
    receive: () => rendezvous.receive(),
    async device() {
        session = await client.startDeviceAuthorizationGrant();
        return session;
    },
    async waitForDevice() {
        tokens = await client.waitForDeviceAuthorizationGrant({ ...session, interval: 1 });
        if (!tokens.access_token) throw new Error(tokens.error);
        return user();
    },
};

await answerLines(async (command, given) => {
    try {
        return { result: (await commands[command](given)) ?? null };
    } catch (error) {
        return { error: String(error.stack ?? error) };
    }
});
process.exit(0);
