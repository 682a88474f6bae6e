/**
 * One matrix-js-sdk client and the commands by which a test moves it.
 *
 * This module knows neither Node nor the browser: chat.mjs gives it standard input and output,
 * page.mjs a window. Every command takes one object and answers with something JSON can hold.
 */
import * as sdk from "matrix-js-sdk";
import { callCommands } from "./calls.mjs";
import { cryptoCallbacks, encryptionCommands } from "./encryption.mjs";
import { slidingCommands } from "./sliding.mjs";

const WAIT_MS = 15_000;
/** Sliding sync tells of receipts, typing and account data after it has said that it is through. */
const LOOK_EVERY_MS = 100;

let client;

/** The first truthy answer of `look`, which is asked again after everything that sync brings. */
async function until(what, look) {
    const found = look();
    if (found) return found;
    return new Promise((resolve, reject) => {
        const settle = (end, value) => {
            clearTimeout(timer);
            clearInterval(looking);
            client.off(sdk.ClientEvent.Sync, lookAgain);
            end(value);
        };
        const lookAgain = (syncState, _before, data) => {
            if (syncState === sdk.SyncState.Error) console.error("sync failed:", String(data?.error));
            const value = look();
            if (value) settle(resolve, value);
        };
        const tooLate = new Error(`no ${what} within ${WAIT_MS} ms; sync: ${client.getSyncState()}`);
        const timer = setTimeout(() => settle(reject, tooLate), WAIT_MS);
        const looking = setInterval(lookAgain, LOOK_EVERY_MS);
        client.on(sdk.ClientEvent.Sync, lookAgain);
    });
}

function room(roomId) {
    const known = client.getRoom(roomId);
    if (!known) throw new Error(`sync has not brought ${roomId} yet`);
    return known;
}

/** The room's text messages that the client holds, oldest first, without its own local echoes. */
function texts(roomId) {
    const events = client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
    return events.filter((event) => event.getType() === "m.room.message" && !event.status);
}

function memberOf(roomId, userId) {
    return client.getRoom(roomId)?.getMember(userId);
}

function toBase64(bytes) {
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function fromBase64(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** What the authenticated media API answers at this address. */
async function fetchMedia(address) {
    const answer = await fetch(address, {
        headers: { Authorization: `Bearer ${client.getAccessToken()}` },
    });
    if (!answer.ok) throw new Error(`${address}: ${answer.status} ${await answer.text()}`);
    return {
        type: answer.headers.get("Content-Type"),
        base64: toBase64(new Uint8Array(await answer.arrayBuffer())),
    };
}

function beSomeone(baseUrl, { user_id: userId, access_token: accessToken, device_id: deviceId }) {
    client = sdk.createClient({ baseUrl, userId, accessToken, deviceId, cryptoCallbacks });
    return { userId, deviceId };
}

const commands = {
    ...encryptionCommands(() => client),
    ...slidingCommands(() => client, until),
    ...callCommands(() => client, until),

    /** Like Element: a first request to learn the flows, then m.login.dummy in that session. */
    async register({ baseUrl, username, password }) {
        const stranger = sdk.createClient({ baseUrl });
        const question = await stranger.registerRequest({ username, password }).then(
            () => Promise.reject(new Error("registered without user-interactive auth")),
            (error) => (error.httpStatus === 401 ? error.data : Promise.reject(error)),
        );
        if (!question.flows.some((flow) => flow.stages.join() === "m.login.dummy")) {
            throw new Error(`no flow of m.login.dummy alone: ${JSON.stringify(question)}`);
        }
        const auth = { type: "m.login.dummy", session: question.session };
        return beSomeone(baseUrl, await stranger.registerRequest({ username, password, auth }));
    },

    async login({ baseUrl, username, password }) {
        const stranger = sdk.createClient({ baseUrl });
        const { flows } = await stranger.loginFlows();
        if (!flows.some((flow) => flow.type === "m.login.password")) {
            throw new Error(`no login by password: ${JSON.stringify(flows)}`);
        }
        const answer = await stranger.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: username },
            password,
        });
        return beSomeone(baseUrl, answer);
    },

    /** Begin to sync; answers when the first sync is there. */
    async start({ initialSyncLimit = 8, lazyLoadMembers = true }) {
        await client.startClient({ initialSyncLimit, lazyLoadMembers });
        await until("first sync", () => client.isInitialSyncComplete());
    },

    async createRoom({ name, invite = [] }) {
        const answer = await client.createRoom({ name, invite, preset: "private_chat" });
        return answer.room_id;
    },

    async waitForInvite({ roomId }) {
        await until(`invite to ${roomId}`, () => client.getRoom(roomId)?.getMyMembership() === "invite");
    },

    /** Join, and wait until sync has brought the room too. */
    async join({ roomId }) {
        await client.joinRoom(roomId);
        await until(`room ${roomId}`, () => client.getRoom(roomId)?.getMyMembership() === "join");
    },

    async leave({ roomId }) {
        await client.leave(roomId);
    },

    async send({ roomId, body }) {
        const answer = await client.sendTextMessage(roomId, body);
        return answer.event_id;
    },

    async waitForMessage({ roomId, body }) {
        const event = await until(`message "${body}"`, () =>
            texts(roomId).find((text) => text.getContent().body === body),
        );
        return { eventId: event.getId(), sender: event.getSender(), senderName: event.sender?.name };
    },

    messages({ roomId }) {
        return texts(roomId).map((event) => event.getContent().body);
    },

    /** Ask for `limit` older events; answers with all messages that the client holds then. */
    async scrollback({ roomId, limit }) {
        await client.scrollback(room(roomId), limit);
        return commands.messages({ roomId });
    },

    /** The joined members that the client knows of, without asking the server for more. */
    members({ roomId }) {
        return room(roomId).getJoinedMembers().map((member) => member.userId).sort();
    },

    /** What a client with lazy loading does when somebody opens the list of members. */
    async loadMembers({ roomId }) {
        await room(roomId).loadMembersIfNeeded();
        return commands.members({ roomId });
    },

    async waitForMembership({ roomId, userId, membership }) {
        await until(`${membership} of ${userId}`, () => memberOf(roomId, userId)?.membership === membership);
    },

    async sendReceipt({ roomId, eventId }) {
        const event = room(roomId).findEventById(eventId);
        if (!event) throw new Error(`sync has not brought ${eventId} yet`);
        await client.sendReadReceipt(event);
    },

    async waitForReceipt({ roomId, eventId, userId }) {
        await until(`receipt of ${userId}`, () => {
            const receipt = client.getRoom(roomId)?.getReadReceiptForUserId(userId, true);
            return receipt?.eventId === eventId;
        });
    },

    async sendTyping({ roomId, isTyping }) {
        await client.sendTyping(roomId, isTyping, 10_000);
    },

    async waitForTyping({ roomId, userId, isTyping }) {
        await until(`typing ${isTyping} of ${userId}`, () => memberOf(roomId, userId)?.typing === isTyping);
    },

    async setDisplayName({ name }) {
        await client.setDisplayName(name);
    },

    async setAvatar({ mxc }) {
        await client.setAvatarUrl(mxc);
    },

    async waitForProfile({ roomId, userId, name, mxc = undefined }) {
        await until(`profile of ${userId}`, () => {
            const member = memberOf(roomId, userId);
            return member?.rawDisplayName === name && member.getMxcAvatarUrl() === mxc;
        });
    },

    /** Upload as a client does (in a browser by XMLHttpRequest), and say so in the room. */
    async sendImage({ roomId, name, type, base64 }) {
        const file = new Blob([fromBase64(base64)], { type });
        const { content_uri: mxc } = await client.uploadContent(file, { name, type });
        await client.sendImageMessage(roomId, mxc, { mimetype: type, size: file.size }, name);
        return mxc;
    },

    async download({ mxc }) {
        return fetchMedia(client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true));
    },

    async thumbnail({ mxc, width, height }) {
        return fetchMedia(client.mxcUrlToHttp(mxc, width, height, "scale", false, true, true));
    },

    /** Log out; answers with what a further request gets, which must be a refusal. */
    async logout() {
        await client.logout(true);
        return client.whoami().then(
            () => "still logged in",
            (error) => `${error.httpStatus} ${error.errcode}`,
        );
    },

    stop() {
        client?.stopClient();
    },
};

/** The answer to one command of the test: `{result}` or `{error}`, never an exception. */
export async function perform(command, given) {
    try {
        if (!Object.hasOwn(commands, command)) throw new Error(`no command ${command}`);
        return { result: (await commands[command](given)) ?? null };
    } catch (error) {
        return { error: error?.stack ?? String(error) };
    }
}
