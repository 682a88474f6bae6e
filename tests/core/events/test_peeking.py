"""Reading a room without being in it, and the ways in which clients listened before /sync."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, refusal

ALICE, BOB = "@alice:localhost", "@bob:localhost"
SETTING = "m.room.history_visibility"
TOPIC_EVENT = {"type": "m.room.topic", "content": {"topic": "Tea"}}


def open_room(person: Person, setting: str = "world_readable", **options: Any) -> str:
    """A room that only the invited can join, but that all may read."""
    content = {"history_visibility": setting}
    return person.create_room(initial_state=[{"type": SETTING, "content": content}], **options)


def events(person: Person, **query: Any) -> TestResponse:
    if "since" in query:
        query["from"] = query.pop("since")
    return person.get("events", query_string=query)


def listen(person: Person, **query: Any) -> Json:
    answer = events(person, **query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def ids(answer: Json) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


def room_sync(person: Person, room_id: str) -> Json:
    answer = person.get(f"rooms/{quote(room_id)}/initialSync")
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def paths(room_id: str, event_id: str) -> list[str]:
    """Every way to read in a room."""
    room = f"rooms/{quote(room_id)}"
    return [
        f"{room}/messages?dir=b",
        f"{room}/state",
        f"{room}/state/m.room.create/",
        f"{room}/members",
        f"{room}/initialSync",
        f"{room}/aliases",
        f"{room}/event/{event_id}",
        f"{room}/context/{event_id}",
        f"events?room_id={quote(room_id)}",
        f"/_matrix/client/v1/{room}/relations/{event_id}",
        f"/_matrix/client/v1/{room}/timestamp_to_event?ts=0&dir=f",
    ]


def test_a_stranger_reads_all_of_a_room_that_is_open_to_the_world(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    event_id = alice.send(room_id)

    answers = {path: bob.get(path).status_code for path in paths(room_id, event_id)}

    assert answers == dict.fromkeys(paths(room_id, event_id), 200)


@pytest.mark.parametrize("setting", ["shared", "invited", "joined"])
def test_a_stranger_reads_nothing_of_any_other_room(login: Login, setting: str) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice, setting, preset="public_chat")
    event_id = alice.send(room_id)

    answers = {path: bob.get(path).status_code for path in paths(room_id, event_id)}

    assert set(answers.values()) <= {403, 404}, answers


def test_an_open_room_can_be_followed_from_its_initial_sync(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    first = alice.send(room_id, "before")

    start = room_sync(bob, room_id)
    second, third = alice.send(room_id, "two"), alice.send(room_id, "three")
    news = listen(bob, room_id=room_id, since=start["messages"]["end"])

    assert start["messages"]["chunk"][-1]["event_id"] == first
    assert "membership" not in start
    assert news["start"] == start["messages"]["end"]
    assert ids(news) == [second, third]
    assert ids(listen(bob, room_id=room_id, since=news["end"])) == []


def test_events_name_their_room_and_are_whole(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    token = room_sync(bob, room_id)["messages"]["end"]
    event_id = alice.send(room_id, "hello")

    (event,) = listen(bob, room_id=room_id, since=token)["chunk"]

    assert event.pop("unsigned")["age"] >= 0
    assert event.pop("origin_server_ts") > 0
    assert event == {
        "event_id": event_id,
        "room_id": room_id,
        "sender": ALICE,
        "type": "m.room.message",
        "content": {"msgtype": "m.text", "body": "hello"},
    }


def test_who_looks_in_is_told_only_what_was_said_while_the_room_was_open(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    token = room_sync(bob, room_id)["messages"]["end"]
    seen = alice.send(room_id, "seen")
    alice.set_state(room_id, SETTING, {"history_visibility": "joined"})
    hidden = alice.send(room_id, "hidden")
    assert refusal(events(bob, room_id=room_id, since=token)) == (403, "M_FORBIDDEN")
    alice.set_state(room_id, SETTING, {"history_visibility": "world_readable"})
    again = alice.send(room_id, "again")

    told = ids(listen(bob, room_id=room_id, since=token))

    assert (told[0], told[-1]) == (seen, again)
    assert hidden not in told


def test_who_has_knocked_at_an_open_room_looks_in_like_a_stranger(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    assert bob.post(f"knock/{quote(room_id)}").status_code == 200

    assert "membership" not in room_sync(bob, room_id)


def waiting(
    app: Application, person: Person, answers: list[TestResponse], **query: Any
) -> threading.Thread:
    """A request of the person that waits for events."""

    def ask() -> None:
        answers.append(events(person, timeout=20_000, **query))

    thread = threading.Thread(target=ask)
    thread.start()
    until = time.monotonic() + 5
    while len(app.homeserver.wakeups) == 0 and time.monotonic() < until:
        time.sleep(0.01)
    return thread


def test_who_looks_in_waits_for_the_next_event(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    token = room_sync(bob, room_id)["messages"]["end"]
    answers: list[TestResponse] = []
    thread = waiting(app, bob, answers, room_id=room_id, since=token)

    event_id = alice.send(room_id)

    thread.join(10)
    assert ids(answers[0].get_json()) == [event_id]
    assert len(app.homeserver.wakeups) == 0


def test_who_looks_in_when_the_room_closes_is_sent_away(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = open_room(alice)
    token = room_sync(bob, room_id)["messages"]["end"]
    answers: list[TestResponse] = []
    thread = waiting(app, bob, answers, room_id=room_id, since=token)

    alice.set_state(room_id, SETTING, {"history_visibility": "shared"})

    thread.join(10)
    assert refusal(answers[0]) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("room_id", ["!none:localhost", BOB, "*", ""])
def test_a_room_that_does_not_exist_can_not_be_looked_into(login: Login, room_id: str) -> None:
    bob = login("bob")

    answer = events(bob, room_id=room_id, timeout=10_000)

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "query", [{"since": "made up"}, {"since": "s99999999"}, {"timeout": "x"}, {"timeout": -1}]
)
def test_what_is_no_token_or_number_is_refused(login: Login, query: Json) -> None:
    alice = login("alice")

    for room in ({}, {"room_id": open_room(alice)}):
        assert refusal(events(alice, **query, **room)) == (400, "M_INVALID_PARAM")


def test_without_a_room_one_hears_of_all_rooms_that_one_is_in(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    kitchen, cellar, strange = room(alice, bob), room(bob, alice), room(alice)
    token = listen(bob)["end"]
    first, _, second = alice.send(kitchen), alice.send(strange), alice.send(cellar)

    news = listen(bob, since=token)

    assert ids(news) == [first, second]
    assert ids(listen(bob, since=news["end"])) == []


def test_a_room_in_which_one_is_can_be_listened_to_alone(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    kitchen, cellar = room(alice, bob), room(alice, bob)
    token = listen(bob)["end"]
    alice.send(cellar)
    event_id = alice.send(kitchen)

    assert ids(listen(bob, since=token, room_id=kitchen)) == [event_id]


def initial_sync(person: Person, **query: Any) -> Json:
    answer = person.get("initialSync", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def test_initial_sync_has_the_users_rooms_and_data(login: Login, room: Callable[..., str]) -> None:
    alice, bob = login("alice"), login("bob")
    joined, invited = room(alice, bob), alice.create_room(invite=[BOB])
    left = room(alice, bob)
    act(bob, left, "leave")
    bob.put(f"user/{BOB}/account_data/org.example.x", json={"a": 1})
    bob.put(f"user/{BOB}/rooms/{joined}/account_data/org.example.y", json={"b": 2})
    event_id = alice.send(joined)

    body = initial_sync(bob, limit=3)

    rooms = {it["room_id"]: it for it in body["rooms"]}
    assert {it: rooms[it]["membership"] for it in rooms} == {joined: "join", invited: "invite"}
    assert rooms[invited]["invite"]["content"]["membership"] == "invite"
    assert rooms[invited]["invite"]["state_key"] == BOB
    assert len(rooms[joined]["messages"]["chunk"]) == 3
    assert rooms[joined]["messages"]["chunk"][-1]["event_id"] == event_id
    assert "m.room.create" in [it["type"] for it in rooms[joined]["state"]]
    assert rooms[joined]["visibility"] == "private"
    assert rooms[joined]["account_data"] == [{"type": "org.example.y", "content": {"b": 2}}]
    assert {"type": "org.example.x", "content": {"a": 1}} in body["account_data"]
    assert isinstance(body["presence"], list)


def test_archived_rooms_come_when_asked_for_unless_they_are_forgotten(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    left, forgotten, declined = room(alice, bob), room(alice, bob), alice.create_room(invite=[BOB])
    for room_id in (left, forgotten, declined):
        act(bob, room_id, "leave")
    act(bob, forgotten, "forget")
    last = alice.send(left, "after Bob has left")

    rooms = {it["room_id"]: it for it in initial_sync(bob, archived="true")["rooms"]}

    assert set(rooms) == {left, declined}
    assert {it["membership"] for it in rooms.values()} == {"leave"}
    assert last not in [it["event_id"] for it in rooms[left]["messages"]["chunk"]]
    assert set(rooms[declined]) == {"room_id", "membership"}


def test_its_token_goes_on_with_events(login: Login, room: Callable[..., str]) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = initial_sync(bob)["end"]

    event_id = alice.send(room_id)

    assert ids(listen(bob, since=token)) == [event_id]


def test_the_oldest_prefix_leads_there_too(login: Login) -> None:
    bob = login("bob")

    answers = [bob.get(f"/_matrix/client/api/v1/{path}") for path in ("initialSync", "events")]

    assert [answer.status_code for answer in answers] == [200, 200]
