"""The work for an event in a room of 10,000 members, of whom one is a user of this server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.storage.database import Tx
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import large_room

MEMBERS = large_room.remote_users(9999)


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room_id(app: Application, alice: Person, room: Callable[..., str]) -> str:
    room_id = room(alice)
    large_room.add_members(app, room_id, MEMBERS)
    return room_id


def median_ms(app: Application, act: Callable[[Tx, int], object]) -> float:
    """Return the CPU time of the writer, without the first time, which fills the caches."""
    times: list[float] = []
    for number in range(30):
        with app.homeserver.database.write() as tx:
            began = time.thread_time()
            act(tx, number)
            times.append(1000 * (time.thread_time() - began))
    return statistics.median(times[1:])


def test_an_event_costs_as_in_a_small_room(app: Application, alice: Person, room_id: str) -> None:
    def send(tx: Tx, number: int) -> None:
        content = {"msgtype": "m.text", "body": f"message {number}"}
        sending.send(tx, Draft(room_id, alice.user_id, "m.room.message", content))

    def receive(tx: Tx, number: int) -> None:
        content = {"ciphertext": "x" * 1000}
        large_room.store_event(tx, room_id, MEMBERS[number], "m.room.encrypted", content)

    sent, received = median_ms(app, send), median_ms(app, receive)

    assert sent < 2, "it was 0.1 ms; going through all members takes 1 ms and more"
    assert received < 2


def test_a_change_of_membership_costs_as_in_a_small_room(app: Application, room_id: str) -> None:
    def leave(tx: Tx, number: int) -> None:
        large_room.store_member(tx, room_id, MEMBERS[number], "leave")

    def join(tx: Tx, number: int) -> None:
        large_room.store_member(tx, room_id, MEMBERS[number], "join")

    left, joined = median_ms(app, leave), median_ms(app, join)

    assert left < 0.5, "it was 0.1 ms; copying the set of all members takes 0.3 ms and more"
    assert joined < 0.5


def test_a_sync_after_a_change_of_membership_does_not_count_the_members(
    app: Application, alice: Person, room_id: str, statements: list[str]
) -> None:
    since = alice.sync()["next_batch"]
    with app.homeserver.database.write() as tx:
        large_room.store_member(tx, room_id, MEMBERS[5000], "leave")
    statements.clear()

    joined = alice.sync(since)["rooms"]["join"][room_id]

    assert joined["summary"]["m.joined_member_count"] == 9999
    assert not [it for it in statements if "GROUP BY" in it.upper() and "membership" in it]
