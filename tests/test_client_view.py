"""What an event tells of its reader: their membership when it came."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Login, Person
from tests.rooms import Json

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


def test_sync_says_it_of_what_came_since_the_own_membership(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    before = alice.send(room_id)
    bob.post(f"rooms/{room_id}/join")
    joined = alice.send(room_id)

    told = memberships(bob.sync()["rooms"]["join"][room_id]["timeline"]["events"])

    assert (told[before], told[joined]) == (None, "join")


def test_who_was_never_there_reads_that(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    said = alice.send(room_id)

    page = bob.get(f"rooms/{room_id}/messages?dir=b").get_json()["chunk"]

    assert memberships(page)[said] == "leave"
