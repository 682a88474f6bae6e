"""What an event tells of its reader: their membership when it came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Login, Person
from tests.helpers import reading
from tests.helpers.rooms import Json

Room = Callable[..., str]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def memberships(events: list[Json]) -> dict[str, str | None]:
    return {event["event_id"]: event["unsigned"].get("membership") for event in events}


def test_events_say_what_their_reader_was_just_after_them(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    before = alice.send(room_id)
    alice.post(f"rooms/{room_id}/invite", json={"user_id": bob.user_id})
    invited = alice.send(room_id)
    bob.post(f"rooms/{room_id}/join")
    joined = alice.send(room_id)

    page = bob.get(f"rooms/{room_id}/messages?dir=b&limit=50").get_json()["chunk"]

    told = memberships(page)
    assert [told[it] for it in (before, invited, joined)] == ["leave", "invite", "join"]
    own = [it for it in page if it.get("state_key") == bob.user_id]
    assert [told[it["event_id"]] for it in own] == ["join", "invite"]
    assert bob.get(f"rooms/{room_id}/event/{before}").get_json()["unsigned"]["membership"] == (
        "leave"
    )


def found_in(answer: object, event_id: str) -> Iterator[Json]:
    """Every form in which an event stands in an answer."""
    if isinstance(answer, dict):
        if answer.get("event_id") == event_id and "content" in answer:
            yield answer
        for value in answer.values():
            yield from found_in(value, event_id)
    elif isinstance(answer, list):
        for value in answer:
            yield from found_in(value, event_id)


def test_every_way_of_reading_says_it_of_what_came_before_the_own_join(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    root = alice.send(room_id, "really?")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    reply = alice.send(room_id, "really", **relation)
    bob.post(f"rooms/{room_id}/join")
    said = alice.send(room_id, "now")

    answers = reading.everywhere(bob, room_id, said=root, root=root)

    told = {
        (way, event_id): {one["unsigned"].get("membership") for one in found}
        for way, text in answers.items()
        for event_id in (root, reply, said)
        if (found := [one for one in found_in(json.loads(text), event_id) if "unsigned" in one])
    }
    ways = {way for way, _ in told}
    assert ways >= {"sync", "sync full", "sliding", "messages", "context", "event", "relations"}
    assert ways >= {"threads", "root", "search", "initialSync", "room initialSync"}
    assert told == {
        (way, event_id): {"join" if event_id == said else "leave"} for way, event_id in told
    }


def test_sync_asks_once_for_all_rooms_what_the_reader_was(
    alice: Person, bob: Person, room: Room, statements: list[str]
) -> None:
    rooms = [room(alice) for _ in range(3)]
    said = [alice.send(room_id) for room_id in rooms]
    for room_id in rooms:
        bob.post(f"rooms/{room_id}/join")
    statements.clear()

    joined = bob.sync()["rooms"]["join"]

    events = [event for it in joined.values() for event in it["timeline"]["events"]]
    assert {memberships(events)[event_id] for event_id in said} == {"leave"}
    assert sum("UNION ALL" in it and "room_ids" in it for it in statements) == 1


def test_who_was_never_there_reads_that(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    said = alice.send(room_id)

    page = bob.get(f"rooms/{room_id}/messages?dir=b").get_json()["chunk"]

    assert memberships(page)[said] == "leave"
