/**
 * The commands by which a test moves a client that takes part in calls (MatrixRTC).
 *
 * client.mjs adds them to its own; `theClient` gives them the client of the moment. Nothing is
 * sent to a LiveKit server: a call is who is in it.
 */
const MEMBER = "org.matrix.msc3401.call.member";

export function callCommands(theClient, until) {
    const session = (roomId) => theClient().matrixRTC.getRoomSession(theClient().getRoom(roomId));

    return {
        /** A room as Element makes it: everybody may take part in calls. */
        async createCallRoom({ invite }) {
            const answer = await theClient().createRoom({
                invite,
                preset: "private_chat",
                power_level_content_override: { events: { [MEMBER]: 0 } },
            });
            return answer.room_id;
        },

        /** What the server says of where calls are carried. */
        async transports() {
            return theClient()._unstable_getRTCTransports();
        },

        /** Join the call, by state or by sticky events: leave it when the server has not heard of us for `leaveAfterMs`. */
        async joinCall({ roomId, leaveAfterMs, restartMs, sticky = false }) {
            const transport = { type: "livekit", livekit_service_url: "https://calls.test" };
            session(roomId).joinRoomSession([transport], sticky ? transport : undefined, {
                delayedLeaveEventDelayMs: leaveAfterMs,
                delayedLeaveEventRestartMs: restartMs,
                manageMediaKeys: false,
                unstableSendStickyEvents: sticky,
            });
            const me = theClient().getUserId();
            await until("our place in the call", () => session(roomId).memberships.some((it) => it.userId === me));
        },

        async leaveCall({ roomId }) {
            return session(roomId).leaveRoomSession(10_000);
        },

        /** Wait until exactly these users are in the call. */
        async waitForCall({ roomId, userIds }) {
            const wanted = userIds.toSorted().join();
            const here = () => session(roomId).memberships.map((it) => it.userId).toSorted().join();
            await until(`call of ${wanted}`, () => here() === wanted);
        },
    };
}
