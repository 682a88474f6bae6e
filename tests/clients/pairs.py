"""Two users with different clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.clients import js_client, nio_client
from tests.clients.js_client import JsPerson
from tests.clients.nio_client import NioPerson, ok


@contextlib.asynccontextmanager
async def alice_and_bob(url: str) -> AsyncIterator[tuple[NioPerson, JsPerson]]:
    """Both registered, Alice syncing already, Bob not."""
    async with nio_client.person(url, "alice") as alice, js_client.in_node(url, "bob") as bob:
        await bob.register()
        ok(await alice.nio.set_displayname(alice.name))
        yield alice, bob


@contextlib.asynccontextmanager
async def in_a_room(
    url: str, start: str = "start"
) -> AsyncIterator[tuple[NioPerson, JsPerson, str]]:
    """Both syncing, in a room to which Alice invited Bob; `start` is what he begins with."""
    async with alice_and_bob(url) as (alice, bob):
        await bob.ask(start)
        room_id = await alice.create_room(bob.user_id)
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        await alice.see_member(room_id, bob.user_id)
        yield alice, bob, room_id
