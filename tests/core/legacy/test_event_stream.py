"""The stream of events of the API of 2014: what is sent, to whom, in which order, and when."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.legacy import BOB, become, bodies, events, got, in_room, say

Json = dict[str, Any]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


@pytest.fixture
def room_id(alice: Person, bob: Person) -> str:
    """A public room of Alice's, with Bob in it."""
    room_id = alice.create_room(preset="public_chat")
    assert bob.post(f"rooms/{quote(room_id)}/join").status_code == 200
    return room_id


def test_an_invite_and_its_rejection_are_told_to_who_never_was_in_the_room(
    alice: Person, bob: Person
) -> None:
    room_id = alice.create_room()
    start = events(bob, "END")["end"]
    become(alice, room_id, BOB, "invite")
    invited = events(bob, start)
    become(bob, room_id, BOB, "leave")
    rejected = events(bob, invited["end"])

    assert bodies(invited["chunk"]) == ["@alice:localhost invited @bob:localhost."]
    assert bodies(rejected["chunk"]) == ["@bob:localhost left the room."]
    assert events(bob, rejected["end"])["chunk"] == []


def test_after_leaving_one_is_told_of_the_room_up_to_there(
    alice: Person, bob: Person, room_id: str
) -> None:
    start = events(bob, "END")["end"]
    say(alice, room_id, "before")
    become(bob, room_id, BOB, "leave")
    say(alice, room_id, "after")

    told = ["before", "@bob:localhost left the room."]
    assert bodies(events(bob, start)["chunk"]) == told
    assert bodies(got(bob, in_room(room_id, "messages/list"))["chunk"])[-2:] == told
    assert got(bob, "im/sync") == []


def test_events_of_all_rooms_come_in_the_order_of_time_and_in_pages(alice: Person) -> None:
    rooms = [alice.create_room() for _ in range(3)]
    start = events(alice, "END")["end"]
    said = [f"{number} in {at}" for number in range(5) for at in range(3)]
    for text in said:
        say(alice, rooms[int(text[-1])], text)

    told: list[str] = []
    for _ in range(5):
        answer = events(alice, start, limit=4)
        assert len(answer["chunk"]) <= 4
        told += bodies(answer["chunk"])
        start = answer["end"]

    assert told == said


def test_a_waiting_request_hears_of_an_invite_at_once(
    app: Application, alice: Person, bob: Person
) -> None:
    room_id = alice.create_room()
    answers: list[Json] = []
    waiting = threading.Thread(
        target=lambda: answers.append(got(bob, "events", timeout=20_000, **{"from": "END"}))
    )
    waiting.start()
    until = time.monotonic() + 5
    while len(app.homeserver.wakeups) == 0 and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()

    become(alice, room_id, BOB, "invite")
    waiting.join()

    assert time.monotonic() - began < 5
    assert bodies(answers[0]["chunk"]) == ["@alice:localhost invited @bob:localhost."]


def test_a_server_that_stops_answers_who_waits(app: Application, alice: Person) -> None:
    answers: list[Json] = []
    waiting = threading.Thread(target=lambda: answers.append(got(alice, "events", timeout=20_000)))
    waiting.start()
    until = time.monotonic() + 5
    while len(app.homeserver.wakeups) == 0 and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()

    app.homeserver.wakeups.close()
    waiting.join()

    assert time.monotonic() - began < 5
    assert answers[0]["chunk"] == []
