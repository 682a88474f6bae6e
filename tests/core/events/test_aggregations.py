"""What is bundled with events about those that relate to them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.core.events import aggregations
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.cost import steps

Json = dict[str, Any]
Room = Callable[..., str]

V1 = "/_matrix/client/v1/rooms"
JOINED_ONLY = {
    "type": "m.room.history_visibility",
    "content": {"history_visibility": "joined"},
}


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def edit(person: Person, room_id: str, event_id: str, body: str, **more: Any) -> str:
    """The id of a replacement."""
    content = {
        "m.new_content": {"msgtype": "m.text", "body": body},
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }
    return person.send(room_id, f"* {body}", **{**content, **more})


def reply(person: Person, room_id: str, root: str, body: str = "in thread") -> str:
    """The id of a message in a thread."""
    return person.send(
        room_id, body, **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    )


def refer(person: Person, room_id: str, event_id: str) -> str:
    relation = {"rel_type": "m.reference", "event_id": event_id}
    return person.send(room_id, "see", **{"m.relates_to": relation})


def redact(person: Person, room_id: str, event_id: str) -> None:
    answer = person.put(f"rooms/{room_id}/redact/{event_id}/r{event_id}", json={})
    assert answer.status_code == 200, answer.get_json()


def ignore(person: Person, *user_ids: str) -> None:
    path = f"user/{person.user_id}/account_data/m.ignored_user_list"
    person.put(path, json={"ignored_users": {user_id: {} for user_id in user_ids}})


def bundle(person: Person, room_id: str, event_id: str) -> Json:
    """What is bundled with an event that the person asks for."""
    answer = person.get(f"rooms/{room_id}/event/{event_id}")
    assert answer.status_code == 200, answer.get_json()
    relations: Json = answer.get_json()["unsigned"].get("m.relations", {})
    return relations


def test_the_last_edit_is_bundled_in_the_form_of_an_event(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    event_id = alice.send(room_id, "tyop")
    edit(alice, room_id, event_id, "type")
    time.sleep(0.002)  # of two edits in one millisecond the ids decide
    last = edit(alice, room_id, event_id, "typo")

    replaced = bundle(bob, room_id, event_id)["m.replace"]

    assert (replaced["event_id"], replaced["sender"]) == (last, alice.user_id)
    assert replaced["content"]["m.new_content"]["body"] == "typo"
    assert (replaced["type"], replaced["room_id"]) == ("m.room.message", room_id)
    assert bundle(bob, room_id, last) == {}


def test_an_edit_counts_only_if_it_is_valid(alice: Person, bob: Person, room: Room) -> None:
    room_id, other = room(alice, bob), room(alice)
    event_id = alice.send(room_id, "original")
    valid = edit(alice, room_id, event_id, "valid")
    edit(bob, room_id, event_id, "by another")
    edit(alice, other, event_id, "in another room")
    edit(alice, room_id, event_id, "without new content", **{"m.new_content": 1})
    edit(alice, room_id, valid, "of an edit")
    content = {"m.relates_to": {"rel_type": "m.replace", "event_id": event_id}}
    alice.put(f"rooms/{room_id}/send/org.example.other/1", json={**content, "m.new_content": {}})
    alice.set_state(room_id, "m.room.message", {**content, "m.new_content": {}})

    assert bundle(alice, room_id, event_id)["m.replace"]["event_id"] == valid
    assert bundle(alice, room_id, valid) == {}


def test_an_encrypted_edit_has_its_new_content_inside(alice: Person, room: Room) -> None:
    room_id = room(alice)
    path = f"rooms/{room_id}/send/m.room.encrypted/"
    first = alice.put(f"{path}1", json={"ciphertext": "…"}).get_json()["event_id"]
    relation = {"rel_type": "m.replace", "event_id": first}
    answer = alice.put(f"{path}2", json={"ciphertext": "…", "m.relates_to": relation})

    assert bundle(alice, room_id, first)["m.replace"]["event_id"] == answer.get_json()["event_id"]


def test_state_events_have_no_bundles(alice: Person, room: Room) -> None:
    room_id = room(alice)
    topic = alice.set_state(room_id, "m.room.topic", {"topic": "x"}).get_json()["event_id"]
    reply(alice, room_id, topic)

    assert bundle(alice, room_id, topic) == {}


def test_a_redacted_edit_gives_way_to_the_one_before(alice: Person, room: Room) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    first = edit(alice, room_id, event_id, "1")
    time.sleep(0.002)
    second = edit(alice, room_id, event_id, "2")
    assert bundle(alice, room_id, event_id)["m.replace"]["event_id"] == second

    redact(alice, room_id, second)
    then = bundle(alice, room_id, event_id)["m.replace"]["event_id"]
    redact(alice, room_id, first)

    assert then == first
    assert bundle(alice, room_id, event_id) == {}


def test_a_redacted_event_keeps_its_thread_but_no_edit(alice: Person, room: Room) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    edit(alice, room_id, event_id, "more")
    reply(alice, room_id, event_id)

    redact(alice, room_id, event_id)

    assert list(bundle(alice, room_id, event_id)) == ["m.thread"]


def test_a_thread_is_counted_and_its_last_event_shown_with_its_own_edit(
    alice: Person, bob: Person, room: Room, login: Login
) -> None:
    carol = login("carol")
    room_id = room(alice, bob, carol)
    root = alice.send(room_id)
    reply(bob, room_id, root)
    last = reply(bob, room_id, root)
    edited = edit(bob, room_id, last, "better")

    told = [bundle(person, room_id, root)["m.thread"] for person in (alice, bob, carol)]

    assert [it["count"] for it in told] == [2, 2, 2]
    assert [it["current_user_participated"] for it in told] == [True, True, False]
    latest = told[2]["latest_event"]
    assert (latest["event_id"], latest["content"]["body"]) == (last, "in thread")
    assert latest["unsigned"]["m.relations"]["m.replace"]["event_id"] == edited


def test_a_thread_forgets_what_is_redacted(alice: Person, room: Room) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    first, second = reply(alice, room_id, root), reply(alice, room_id, root)

    redact(alice, room_id, second)

    thread = bundle(alice, room_id, root)["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (1, first)


def test_references_are_listed_in_their_order(alice: Person, bob: Person, room: Room) -> None:
    room_id, other = room(alice, bob), room(bob)
    event_id = alice.send(room_id)
    found = [refer(person, room_id, event_id) for person in (alice, bob)]
    refer(bob, other, event_id)

    chunk = bundle(alice, room_id, event_id)["m.reference"]["chunk"]

    assert chunk == [{"event_id": it} for it in found]


def test_reactions_are_not_bundled(alice: Person, room: Room) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "x"}}
    alice.put(f"rooms/{room_id}/send/m.reaction/1", json=content)

    assert bundle(alice, room_id, event_id) == {}


def test_what_ignored_users_have_said_is_in_no_bundle(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    mine = reply(alice, room_id, root)
    reply(bob, room_id, root)
    refer(bob, room_id, root)

    ignore(alice, bob.user_id)

    relations = bundle(alice, room_id, root)
    assert list(relations) == ["m.thread"]
    assert relations["m.thread"]["count"] == 1
    assert relations["m.thread"]["latest_event"]["event_id"] == mine


def test_who_has_left_is_told_of_no_later_relations(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    seen = reply(alice, room_id, root)
    bob.post(f"rooms/{room_id}/leave")
    reply(alice, room_id, root)
    edit(alice, room_id, root, "later")
    refer(alice, room_id, root)

    relations = bundle(bob, room_id, root)

    assert list(relations) == ["m.thread"]
    assert relations["m.thread"]["count"] == 1
    assert relations["m.thread"]["latest_event"]["event_id"] == seen


def test_a_transaction_id_is_told_to_its_device_only(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    edit(alice, room_id, event_id, "x")

    mine, theirs = (bundle(who, room_id, event_id)["m.replace"] for who in (alice, bob))

    assert "transaction_id" in mine["unsigned"]
    assert "transaction_id" not in theirs["unsigned"]


@pytest.mark.parametrize("where", ["messages", "context", "relations", "sync", "gap"])
def test_bundles_come_wherever_events_come(alice: Person, room: Room, where: str) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    token = alice.sync()["next_batch"]
    for _ in range(3):
        alice.send(room_id)
    event_id = reply(alice, room_id, root)
    edited = edit(alice, room_id, event_id, "better")

    if where == "messages":
        events = alice.get(f"rooms/{room_id}/messages?dir=b&limit=20").get_json()["chunk"]
    elif where == "context":
        answer = alice.get(f"rooms/{room_id}/context/{root}").get_json()
        assert "m.thread" in answer["event"]["unsigned"]["m.relations"]
        events = answer["events_before"] + answer["events_after"]
    elif where == "relations":
        events = alice.get(f"{V1}/{room_id}/relations/{root}").get_json()["chunk"]
    else:
        wanted = json.dumps({"room": {"timeline": {"limit": 2 if where == "gap" else 20}}})
        sync = alice.sync(token if where == "gap" else None, filter=wanted)
        events = sync["rooms"]["join"][room_id]["timeline"]["events"]

    found = {event["event_id"]: event["unsigned"].get("m.relations") for event in events}
    assert (found[event_id] or {})["m.replace"]["event_id"] == edited


@pytest.mark.parametrize("kind", ["invalid edits", "reactions", "references"])
def test_nobody_makes_an_event_costly_to_read(
    app: Application, alice: Person, bob: Person, room: Room, kind: str
) -> None:
    room_id, other = room(alice, bob), room(bob)
    event_id = alice.send(room_id)
    path = f"rooms/{room_id}/event/{event_id}"
    edit(alice, room_id, event_id, "valid")
    before = steps(app, lambda: alice.get(path))

    for number in range(300):
        if kind == "invalid edits":
            edit(bob, room_id, event_id, f"invalid {number}")
        elif kind == "references":
            refer(bob, other, event_id)
        else:
            key = {"rel_type": "m.annotation", "event_id": event_id, "key": str(number)}
            bob.put(f"rooms/{room_id}/send/m.reaction/{number}", json={"m.relates_to": key})

    assert steps(app, lambda: alice.get(path)) < before + 30
    assert bundle(alice, room_id, event_id)["m.replace"]["sender"] == alice.user_id


def react(person: Person, room_id: str, event_id: str, key: str) -> TestResponse:
    relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
    path = f"rooms/{room_id}/send/m.reaction/{key}"
    return person.put(path, json={"m.relates_to": relation})


@pytest.mark.parametrize("is_own", [False, True])
def test_nobody_makes_an_event_costly_to_react_to(
    app: Application, alice: Person, bob: Person, room: Room, is_own: bool
) -> None:
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    react(alice, room_id, event_id, "first")
    before = steps(app, lambda: react(alice, room_id, event_id, "before"))

    for number in range(300):
        react(alice if is_own else bob, room_id, event_id, str(number))

    assert steps(app, lambda: react(alice, room_id, event_id, "after")) < before + 60


def test_redactions_with_one_transaction_id_cost_no_more_than_others(
    app: Application, alice: Person, room: Room
) -> None:
    room_id = room(alice)
    event_ids = [alice.send(room_id) for _ in range(100)]

    def redact(event_id: str) -> TestResponse:
        return alice.put(f"rooms/{room_id}/redact/{event_id}/again", json={})

    before = steps(app, lambda: redact(event_ids[0]))

    first = [redact(event_id).get_json() for event_id in event_ids[1:-1]]
    second = [redact(event_id).get_json() for event_id in event_ids[-5:-1]]

    assert steps(app, lambda: redact(event_ids[-1])) < before + 60
    assert second == first[-4:]


@pytest.mark.parametrize("by_sender", [False, True])
def test_nobody_makes_an_event_costly_to_find_by_its_relations(
    app: Application, alice: Person, bob: Person, room: Room, by_sender: bool
) -> None:
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    wanted: Json = {"related_by_rel_types": ["m.thread"], "limit": 1}
    if by_sender:
        wanted = {"related_by_rel_types": ["m.annotation"], "related_by_senders": [alice.user_id]}
    position = alice.get(f"rooms/{room_id}/context/{event_id}?limit=0").get_json()["end"]
    query = {"dir": "b", "limit": 1, "from": position, "filter": json.dumps(wanted)}
    path = f"rooms/{room_id}/messages"
    before = steps(app, lambda: alice.get(path, query_string=query))

    for number in range(300):
        react(bob, room_id, event_id, str(number))

    assert steps(app, lambda: alice.get(path, query_string=query)) < before + 60


def test_of_many_references_the_last_are_listed(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    found = [refer(bob, room_id, event_id) for _ in range(aggregations.MAX_REFERENCES + 2)]

    chunk = bundle(alice, room_id, event_id)["m.reference"]["chunk"]

    assert chunk == [{"event_id": it} for it in found[2:]]


def test_who_was_away_is_told_of_the_relations_of_their_own_time(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob, initial_state=[JOINED_ONLY])
    root = alice.send(room_id)
    refer(alice, room_id, root)
    first = edit(alice, room_id, root, "1")
    early = reply(alice, room_id, root)
    bob.post(f"rooms/{room_id}/leave")
    reply(alice, room_id, root)
    refer(alice, room_id, root)
    edit(alice, room_id, root, "SECRET")
    away = bundle(bob, room_id, root)
    bob.post(f"rooms/{room_id}/join")
    last = reply(bob, room_id, root)

    back = bundle(bob, room_id, root)

    assert [len(it["m.reference"]["chunk"]) for it in (away, back)] == [1, 1]
    assert [it["m.replace"]["event_id"] for it in (away, back)] == [first, first]
    assert (away["m.thread"]["count"], away["m.thread"]["latest_event"]["event_id"]) == (1, early)
    assert (back["m.thread"]["count"], back["m.thread"]["latest_event"]["event_id"]) == (2, last)
    assert bundle(alice, room_id, root)["m.thread"]["count"] == 3


def test_newcomers_are_not_shown_the_edits_of_an_erased_user(
    alice: Person, bob: Person, login: Login, room: Room
) -> None:
    room_id = room(bob, alice)
    event_id = alice.send(room_id, "SECRET")
    for number in range(2):
        edit(alice, room_id, event_id, f"SECRET {number}")
        time.sleep(0.002)
    auth = {"type": "m.login.password", "password": PASSWORD}
    assert alice.post("account/deactivate", json={"auth": auth, "erase": True}).status_code == 200
    late = login("late")
    late.post(f"rooms/{room_id}/join")

    answer = late.get(f"rooms/{room_id}/event/{event_id}")

    assert "SECRET" not in answer.get_data(as_text=True)
    assert "SECRET 1" in str(bundle(bob, room_id, event_id))
