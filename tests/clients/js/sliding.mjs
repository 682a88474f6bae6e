/**
 * The commands by which a test moves a client that has its rooms from sliding sync.
 *
 * client.mjs adds them to its own; `theClient` gives them the client of the moment.
 */
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";

const TIMEOUT_MS = 20_000;
/**
 * What is asked for of the rooms in the list. The SDK names the room that is open once only, and
 * the server does not remember that: what shall be kept up to date, the list has to ask for.
 */
const STATE_OF_A_LIST = [
    ["m.room.avatar", ""],
    ["m.room.tombstone", ""],
    ["m.room.encryption", ""],
    ["m.room.create", ""],
    ["m.room.join_rules", ""],
    ["m.room.power_levels", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
];
/** And of the one that somebody has opened. */
const STATE_OF_AN_OPEN_ROOM = [
    ["*", "*"],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
];

export function slidingCommands(theClient, until) {
    let sliding;

    return {
        /** Begin to sync with a window onto the rooms 0 to `last`; answers when that is there. */
        async startSliding({ last = 19, timelineLimit = 1, filters = {} }) {
            const list = {
                ranges: [[0, last]],
                timeline_limit: timelineLimit,
                required_state: STATE_OF_A_LIST,
                filters,
            };
            const openRoom = { timeline_limit: 20, required_state: STATE_OF_AN_OPEN_ROOM };
            const client = theClient();
            sliding = new SlidingSync(client.baseUrl, new Map([["all", list]]), openRoom, client, TIMEOUT_MS);
            await client.startClient({ slidingSync: sliding, lazyLoadMembers: true });
            await until("first sync", () => client.isInitialSyncComplete());
        },

        /** How many rooms the list has, in sight or not. */
        countOfList() {
            return sliding.getListData("all").joinedCount;
        },

        /** {roomId: name} of the rooms that the client knows, whatever the user is in them. */
        roomNames() {
            return Object.fromEntries(theClient().getRooms().map((room) => [room.roomId, room.name]));
        },

        async widen({ last }) {
            sliding.setListRanges("all", [[0, last]]);
        },

        async waitForRoom({ roomId }) {
            await until(`room ${roomId}`, () => theClient().getRoom(roomId));
        },

        async waitForRoomName({ roomId, name }) {
            await until(`name ${name}`, () => theClient().getRoom(roomId)?.name === name);
        },

        async waitForLeave({ roomId }) {
            await until(`leave of ${roomId}`, () => theClient().getRoom(roomId)?.getMyMembership() === "leave");
        },

        /** What a click on a room does: more of its events and state are asked for. */
        async openRoom({ roomId }) {
            sliding.modifyRoomSubscriptions(new Set([roomId]));
        },

        async waitForMessages({ roomId, bodies }) {
            await until(`messages ${bodies}`, () => {
                const events = theClient().getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
                const texts = events.filter((event) => event.getType() === "m.room.message");
                return texts.map((event) => event.getContent().body).join() === bodies.join();
            });
        },

        unreadCount({ roomId }) {
            return theClient().getRoom(roomId).getUnreadNotificationCount();
        },

        async waitForUnreadCount({ roomId, count }) {
            await until(`${count} unread`, () =>
                theClient().getRoom(roomId)?.getUnreadNotificationCount() === count,
            );
        },

        async waitForAccountData({ type, content }) {
            await until(`account data ${type}`, () => {
                const known = theClient().getAccountData(type)?.getContent();
                return JSON.stringify(known) === JSON.stringify(content);
            });
        },

        async setAccountData({ type, content }) {
            await theClient().setAccountDataRaw(type, content);
        },

        /** Another request without a `pos` ends the connection: the client's own becomes unknown. */
        async endConnection() {
            await theClient().slidingSync({ lists: {}, timeout: 0 });
        },
    };
}
