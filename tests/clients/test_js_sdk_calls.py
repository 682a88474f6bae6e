"""Calls of matrix-js-sdk (MatrixRTC): who is in them, also when a client is lost.

Element Call and Element Web use this code. A client that joins schedules its own leave, and
restarts the delay again and again; when it is gone, the server sends the leave.
"""

import asyncio
from typing import Any

import pytest

from tests.clients import js_client

LEAVE_AFTER_MS = 2_000
RESTART_MS = 500


@pytest.mark.parametrize("sticky", [False, True], ids=["state", "sticky events"])
async def test_a_client_that_is_killed_leaves_the_call_by_itself(
    server: str, *, sticky: bool
) -> None:
    async with (
        js_client.in_node(server, "alice") as alice,
        js_client.in_node(server, "bob") as bob,
    ):
        for it in (alice, bob):
            await it.register()
            await it.ask("start")
        room_id = await alice.ask("createCallRoom", invite=[bob.user_id])
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        timing: dict[str, Any] = {
            "leaveAfterMs": LEAVE_AFTER_MS,
            "restartMs": RESTART_MS,
            "sticky": sticky,
        }
        await alice.ask("joinCall", roomId=room_id, **timing)
        await bob.ask("joinCall", roomId=room_id, **timing)
        both = [alice.user_id, bob.user_id]
        await alice.ask("waitForCall", roomId=room_id, userIds=both)

        await asyncio.sleep(2 * LEAVE_AFTER_MS / 1000)
        await alice.ask("waitForCall", roomId=room_id, userIds=both)  # by its heart-beats
        await bob.die()

        await alice.ask("waitForCall", roomId=room_id, userIds=[alice.user_id])


async def test_a_client_that_hangs_up_leaves_at_once(server: str) -> None:
    async with (
        js_client.in_node(server, "alice") as alice,
        js_client.in_node(server, "bob") as bob,
    ):
        for it in (alice, bob):
            await it.register()
            await it.ask("start")
        room_id = await alice.ask("createCallRoom", invite=[bob.user_id])
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        await bob.ask("joinCall", roomId=room_id, leaveAfterMs=3_600_000, restartMs=5_000)
        await alice.ask("waitForCall", roomId=room_id, userIds=[bob.user_id])

        assert await bob.ask("leaveCall", roomId=room_id)

        await alice.ask("waitForCall", roomId=room_id, userIds=[])
        assert await alice.ask("transports") == []
