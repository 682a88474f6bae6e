"""Servers that don't reach each other for a while: both go on, and agree soon after.

HOMEBODY_TEST_OUTAGE_S is how long; `make outage` takes ten minutes.
"""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.federation.users import User

OUTAGE_SECONDS = float(os.environ.get("HOMEBODY_TEST_OUTAGE_S", "3"))
AGREED_WITHIN_SECONDS = 60.0
CHANGES = max(8, int(OUTAGE_SECONDS / 5))
"""On each side; servers close connections of clients that are idle for longer."""


def state(user: User, room_id: str) -> dict[tuple[str, str], Any]:
    """The room's state, as this user's server has it: ids of events."""
    events = user.ask("GET", f"/rooms/{quote(room_id)}/state")
    return {(it["type"], it["state_key"]): it["event_id"] for it in events}


def change(user: User, room_id: str, number: int) -> None:
    """Change the topic, an entry of this side's own, and say something."""
    path = f"/rooms/{quote(room_id)}/state/"
    user.ask("PUT", f"{path}m.room.topic", {"topic": f"{number} of {user.user_id}"})
    side = quote(user.home.name)
    user.ask("PUT", f"{path}test.side/{side}", {"number": number})
    user.send(room_id, f"{number} of {user.user_id}")


@pytest.mark.timeout(OUTAGE_SECONDS + 180)
def test_both_sides_of_an_outage_agree_within_a_minute(
    alice: User, bob: User, shared_room: str
) -> None:
    levels = alice.ask("GET", f"/rooms/{quote(shared_room)}/state/m.room.power_levels")
    levels["users"][bob.user_id] = 50
    alice.ask("PUT", f"/rooms/{quote(shared_room)}/state/m.room.power_levels", levels)
    bob.sees_state(shared_room, "m.room.power_levels", levels)

    for side in (alice, bob):
        side.home.relay.interrupt()
    for number in range(CHANGES):
        change(alice, shared_room, number)
        change(bob, shared_room, number)
        time.sleep(OUTAGE_SECONDS / CHANGES)
    apart = state(alice, shared_room), state(bob, shared_room)
    for side in (alice, bob):
        side.home.relay.heal()
    healed = time.monotonic()
    alice.send(shared_room, "is anybody there?")  # a sign of life, as servers in back-off need
    bob.send(shared_room, "yes")

    assert apart[0] != apart[1]
    while (now := state(alice, shared_room)) != state(bob, shared_room):
        assert time.monotonic() < healed + AGREED_WITHIN_SECONDS
        time.sleep(0.5)
    for side in (alice, bob):
        assert ("test.side", side.home.name) in now
    for user, other in ((alice, bob), (bob, alice)):
        user.sees(shared_room, f"{CHANGES - 1} of {other.user_id}")
