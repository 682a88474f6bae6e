"""What the server remembers of the newest changes never hides one from /sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from homebody.core.sync import memberships
from homebody.models.base import EventNumber
from homebody.storage.caches import RecentEvents
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person

Room = Callable[..., str]


def texts(answer: dict[str, Any], room_id: str) -> list[str]:
    events = answer["rooms"]["join"].get(room_id, {"timeline": {"events": []}})
    return [it["content"]["body"] for it in events["timeline"]["events"] if "body" in it["content"]]


def test_the_events_of_a_range() -> None:
    recent = RecentEvents()
    recent.reset(10)
    for position in range(11, 20):
        recent.add(position, f"!{position % 2}", EventNumber(position + 100))

    assert recent.events(16, 18) == [(17, "!1", 117), (18, "!0", 118)]
    assert recent.events(18, 18) == []


def test_it_knows_what_it_has_seen_alone() -> None:
    recent = RecentEvents()
    recent.reset(10)
    recent.upto = 19

    assert recent.knows(10, 19)
    assert not recent.knows(9, 19)
    assert not recent.knows(10, 20)


def test_it_stays_small() -> None:
    recent = RecentEvents()
    count = 5 * RecentEvents.MAX_EVENTS
    for position in range(1, count + 1):
        recent.add(position, "!room", EventNumber(position))
        recent.upto = position

    known = [since for since in range(count) if recent.knows(since, count)]
    assert RecentEvents.MAX_EVENTS <= len(known) <= 2 * RecentEvents.MAX_EVENTS + 1
    assert len(recent.events(known[0], count)) == count - known[0]


def test_a_write_that_was_undone_is_forgotten() -> None:
    recent = RecentEvents()
    recent.add(1, "!kept", EventNumber(7))
    recent.add(2, "!undone", EventNumber(8))

    recent.drop_after(1)

    assert recent.events(0, 5) == [(1, "!kept", 7)]


def test_it_is_asked_instead_of_the_database(
    login: Login, room: Room, statements: list[str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    since = bob.sync(since)["next_batch"]
    alice.send(room_id, "new")
    statements.clear()

    answer = bob.sync(since)

    assert texts(answer, room_id) == ["new"]
    tables = ("FROM account_data", "FROM receipts", "FROM events", "state_intervals")
    assert [it for it in statements if any(table in it for table in tables)] == []


def test_what_another_process_has_written_is_seen_at_once(
    make_app: MakeApp, app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    alice.send(room_id, "one")  # this process has something to remember
    other = make_app().test_client()
    elsewhere = Person(other, alice.user_id, alice.access_token, alice.device_id)

    elsewhere.send(room_id, "two")
    elsewhere.set_state(room_id, "m.room.topic", {"topic": "new"})
    answer = bob.sync(since)
    alice.send(room_id, "three")
    then = bob.sync(answer["next_batch"])

    assert texts(answer, room_id) == ["one", "two"]
    assert texts(then, room_id) == ["three"]


def test_a_refused_write_hides_nothing(login: Login, room: Room) -> None:
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]

    for number in range(3):
        alice.send(room_id, str(number))
        refused = mallory.put(f"rooms/{room_id}/send/m.room.message/{number}", json={"body": "no"})
        assert refused.status_code == 403

    assert texts(bob.sync(since), room_id) == [str(it) for it in range(3)]


def test_both_ways_find_the_same_rooms(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    rooms = [room(alice) for _ in range(4)]
    begin = app.homeserver.database.writer.last_position
    for number in range(12):
        alice.send(rooms[number % 3])
    with app.homeserver.database.read() as tx:
        remembered = memberships.with_events_since(tx, rooms, begin, tx.position)
        tx.caches.recent.reset(tx.position)
        read = memberships.with_events_since(tx, rooms, begin, tx.position)

    assert sorted(remembered) == sorted(read) == sorted(rooms[:3])
