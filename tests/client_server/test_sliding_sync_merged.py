"""Sliding sync as MSC4186 was merged: POST /v4/sync, which differs from the deployed form."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from homebody.core.sliding_sync.merged import MAX_SUBSCRIPTIONS
from homebody.core.sliding_sync.requests import MAX_LISTS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import sliding
from tests.helpers.resets import member, reset
from tests.helpers.rooms import refusal, unchanged
from tests.helpers.sliding import Json, bodies, members, state

MakeRoom = Callable[..., str]
PATH = "/_matrix/client/v4/sync"
CREATE = {"type": "m.room.create", "state_key": ""}
TOPIC = {"type": "m.room.topic", "state_key": ""}
EVERYTHING: Json = {"include": [{}]}


def window(last: int = 9, **options: Any) -> Json:
    """Return a list named "all" of the rooms 0 to `last`."""
    asked = {"range": [0, last], "timeline_limit": 5, "required_state": {"include": [CREATE]}}
    return {"all": asked | options}


def request(person: Person, **body: Any) -> TestResponse:
    """Return the response; `lists` defaults to `window()`."""
    body.setdefault("lists", window())
    return person.post(PATH, json=body)


def ask(person: Person, **body: Any) -> Json:
    """Return the JSON of a successful response."""
    answer = request(person, **body)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def required(person: Person, room_id: str, **wanted: Any) -> dict[tuple[str, str], Json]:
    """Return the required state of a subscribed room."""
    subscription = {"timeline_limit": 1, "required_state": wanted}
    return state(ask(person, lists={}, room_subscriptions={room_id: subscription}), room_id)


def test_a_room_has_its_membership_its_lists_and_no_counts(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Kitchen")
    lists = window() | {
        "direct": window(filters={"is_dm": True})["all"],
        "others": window(filters={"is_dm": False})["all"],
    }

    answer = ask(bob, lists=lists)

    entry = answer["rooms"][room_id]
    assert (entry["membership"], entry["lists"]) == ("join", ["all", "others"])
    assert {"notification_count", "highlight_count"}.isdisjoint(entry)
    assert (entry["name"], entry["initial"]) == ("Kitchen", True)
    counts = {name: it["count"] for name, it in answer["lists"].items()}
    assert counts == {"all": 1, "direct": 0, "others": 1}


def test_a_subscribed_room_is_in_no_list(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    wanted = {"timeline_limit": 1, "required_state": {}}

    entry = ask(alice, lists={}, room_subscriptions={room_id: wanted})["rooms"][room_id]

    assert "lists" not in entry


def test_the_position_and_the_timeout_are_in_the_body(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    answers: list[Json] = []
    thread = threading.Thread(target=lambda: answers.append(ask(bob, pos=pos, timeout=20_000)))
    thread.start()
    time.sleep(0.3)

    alice.send(room_id, "wake up")
    thread.join(10)

    assert bodies(answers[0], room_id) == ["wake up"]
    assert ask(bob, pos=answers[0]["pos"])["rooms"] == {}
    assert "initial" in ask(bob)["rooms"][room_id]


def test_reading_a_room_does_not_end_a_wait_as_there_are_no_counts(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    pos = ask(bob)["pos"]
    bob.post(f"rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}")

    began = time.monotonic()
    found = ask(bob, pos=pos, timeout=300)

    assert found["rooms"] == {}
    assert time.monotonic() - began >= 0.3


def test_an_invite_has_stripped_state_and_is_found_by_is_invited(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, name="Party", invite=[bob.user_id])
    room(bob)

    invited = ask(bob, lists=window(filters={"is_invited": True}))
    others = ask(bob, lists=window(filters={"is_invited": False}))

    entry = invited["rooms"][room_id]
    assert entry["membership"] == "invite"
    assert {"invite_state", "name", "timeline"}.isdisjoint(entry)
    assert {"type": "m.room.name", "content": {"name": "Party"}} in [
        {name: event[name] for name in ("type", "content")} for event in entry["stripped_state"]
    ]
    assert list(invited["rooms"]) == [room_id]
    assert room_id not in others["rooms"]


def test_a_rejected_invite_has_the_leave_as_stripped_state(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, invite=[bob.user_id])
    pos, other = ask(bob, conn_id="v4")["pos"], sliding.ask(bob)["pos"]
    bob.post(f"rooms/{quote(room_id)}/leave")

    entry = ask(bob, conn_id="v4", pos=pos)["rooms"][room_id]
    deployed = sliding.ask(bob, other)["rooms"][room_id]

    assert entry.keys() == {"membership", "bump_stamp", "stripped_state"}
    assert [it["content"]["membership"] for it in entry["stripped_state"]] == ["leave"]
    assert "invite_state" not in deployed
    assert [it["content"]["membership"] for it in deployed["required_state"]] == ["leave"]


def test_a_longer_timeline_is_marked_as_expanded(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.send(room_id, "one")
    alice.send(room_id, "two")
    pos = ask(alice, lists=window(timeline_limit=1))["pos"]

    entry = ask(alice, pos=pos, lists=window(timeline_limit=2))["rooms"][room_id]

    assert entry["expanded_timeline"] is True
    assert "unstable_expanded_timeline" not in entry
    assert len(entry["timeline"]) == 2


def test_a_name_that_was_removed_is_null(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice, name="Kitchen")
    pos = ask(alice)["pos"]
    alice.set_state(room_id, "m.room.name", {})

    assert ask(alice, pos=pos)["rooms"][room_id]["name"] is None


def test_without_a_range_a_list_has_all_rooms(login: Login) -> None:
    alice = login("alice")
    rooms = [alice.create_room() for _ in range(3)]

    found = ask(alice, lists={"all": {"timeline_limit": 1, "required_state": {}}})

    assert list(found["rooms"]) == rooms[::-1]


def test_state_is_included_by_type_by_key_and_as_a_whole(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, topic="Bread")
    alice.set_state(room_id, "org.example.of", {"is": "his"}, state_key="x")
    everything = set(required(alice, room_id, include=[{}]))

    assert set(required(alice, room_id)) == set()
    assert set(required(alice, room_id, include=[CREATE, TOPIC])) == {
        ("m.room.create", ""),
        ("m.room.topic", ""),
    }
    assert set(required(alice, room_id, include=[{"type": "m.room.member"}])) == {
        ("m.room.member", alice.user_id),
        ("m.room.member", bob.user_id),
    }
    assert set(required(alice, room_id, include=[{"state_key": "x"}])) == {("org.example.of", "x")}
    assert {("m.room.member", bob.user_id), ("org.example.of", "x")} <= everything


def test_excluded_state_is_not_included(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    everything = set(required(alice, room_id, **EVERYTHING))
    of_members = {key for key in everything if key[0] == "m.room.member"}

    no_create = required(alice, room_id, include=[{}], exclude=[CREATE])
    no_members = required(alice, room_id, include=[{}], exclude=[{"type": "m.room.member"}])
    not_bob = required(alice, room_id, include=[{}], exclude=[{"state_key": bob.user_id}])

    assert set(no_create) == everything - {("m.room.create", "")}
    assert set(no_members) == everything - of_members
    assert set(not_bob) == everything - {("m.room.member", bob.user_id)}
    assert required(alice, room_id, include=[CREATE], exclude=[{}]) == {}
    assert required(alice, room_id, exclude=[CREATE]) == {}


def test_an_asterisk_is_no_wildcard(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)

    assert required(alice, room_id, include=[{"type": "*"}]) == {}
    assert required(alice, room_id, include=[{"type": "m.room.create", "state_key": "*"}]) == {}
    assert required(alice, room_id, include=[{"type": "m.room.member", "state_key": "$ME"}]) == {}


def test_members_are_loaded_lazily_but_for_those_that_are_named(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol, dave = (login(name) for name in ("alice", "bob", "carol", "dave"))
    room_id = room(alice, bob, carol, dave)
    bob.send(room_id)
    named = {"type": "m.room.member", "state_key": carol.user_id}
    excluded = {"state_key": bob.user_id}

    lazy = required(alice, room_id, include=[{}, named], exclude=[excluded], lazy_members=True)
    other = required(alice, room_id, include=[{"type": "m.room.member"}], lazy_members=True)

    shown = {key for kind, key in lazy if kind == "m.room.member"}
    assert shown == {bob.user_id, carol.user_id}
    assert ("m.room.create", "") in lazy
    assert set(other) == {("m.room.member", bob.user_id)}


def test_configs_of_lists_and_subscriptions_are_combined(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, topic="Bread")
    alice.send(room_id)
    lists = window(required_state={"include": [{}], "exclude": [CREATE], "lazy_members": True})
    subscription = {"timeline_limit": 1, "required_state": {"include": [CREATE]}}
    all_members = {"include": [{"type": "m.room.member"}]}

    both = ask(alice, lists=lists, room_subscriptions={room_id: subscription})
    subscription = {"timeline_limit": 1, "required_state": all_members}
    with_members = ask(alice, lists=lists, room_subscriptions={room_id: subscription})

    assert {("m.room.create", ""), ("m.room.topic", "")} <= state(both, room_id).keys()
    assert members(with_members, room_id) == {alice.user_id, bob.user_id}


def test_more_required_state_is_sent_at_once_and_only_once(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice, topic="Bread")
    pos = ask(alice)["pos"]
    more = window(required_state={"include": [{}], "exclude": [CREATE]})

    answer = ask(alice, pos=pos, lists=more)
    again = ask(alice, pos=answer["pos"], lists=more)

    assert ("m.room.topic", "") in state(answer, room_id)
    assert ("m.room.create", "") not in state(answer, room_id)
    assert again["rooms"] == {}


def test_a_pos_is_a_token_for_messages_and_relations(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    thread = alice.send(room_id, "before")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": thread}}
    alice.send(room_id, "related before", **relation)
    pos = ask(alice)["pos"]
    alice.send(room_id, "related after", **relation)
    query = {"dir": "b", "from": pos, "limit": 2}

    messages = alice.get(f"rooms/{quote(room_id)}/messages", query_string=query).get_json()
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/relations/{quote(thread)}"
    relations = alice.get(path, query_string=query).get_json()

    said = [event["content"]["body"] for event in messages["chunk"]]
    assert said == ["related before", "before"]
    assert [event["content"]["body"] for event in relations["chunk"]] == ["related before"]


def test_the_two_forms_share_connections_but_not_what_is_wanted(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = sliding.ask(bob)["pos"]
    alice.send(room_id, "hello")

    found = ask(bob, pos=pos)

    assert bodies(found, room_id) == ["hello"]
    assert "notification_count" not in found["rooms"][room_id]


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"lists": {str(n): window()["all"] for n in range(MAX_LISTS + 1)}}, "M_INVALID_PARAM"),
        ({"lists": {"a list": window()["all"]}}, "M_INVALID_PARAM"),
        ({"lists": {"": window()["all"]}}, "M_INVALID_PARAM"),
        ({"lists": {"x" * 256: window()["all"]}}, "M_INVALID_PARAM"),
        ({"set_presence": "asleep"}, "M_INVALID_PARAM"),
        ({"conn_id": "x" * 256}, "M_INVALID_PARAM"),
        ({"pos": "s1"}, "M_UNKNOWN_POS"),
        ({"pos": "s" + "9" * 18 + "~1." + "A" * 16}, "M_UNKNOWN_POS"),
        ({"pos": "s1~" + "9" * 400 + "." + "A" * 16}, "M_UNKNOWN_POS"),
        ({"pos": 5}, "M_BAD_JSON"),
        ({"timeout": -1}, "M_BAD_JSON"),
        ({"timeout": "soon"}, "M_BAD_JSON"),
        ({"lists": []}, "M_BAD_JSON"),
        ({"lists": {"all": {"range": [0, 9], "required_state": {}}}}, "M_MISSING_PARAM"),
        ({"lists": {"all": {"range": [0, 9], "timeline_limit": 1}}}, "M_MISSING_PARAM"),
        ({"lists": window(range=[0])}, "M_BAD_JSON"),
        ({"lists": window(range=[-1, 3])}, "M_BAD_JSON"),
        ({"lists": window(range=[[0, 9]])}, "M_BAD_JSON"),
        ({"lists": window(required_state=[["m.room.create", ""]])}, "M_BAD_JSON"),
        ({"lists": window(required_state={"include": [{"type": 1}]})}, "M_BAD_JSON"),
        ({"lists": window(required_state={"include": [CREATE] * 201})}, "M_INVALID_PARAM"),
        ({"lists": window(filters={"is_dm": "yes"})}, "M_BAD_JSON"),
        ({"extensions": {"typing": True}}, "M_BAD_JSON"),
    ],
)
def test_a_request_that_is_not_allowed_is_refused(
    app: Application, login: Login, body: Json, errcode: str
) -> None:
    alice = login("alice")
    with unchanged(app):
        answer = request(alice, **body)

    assert refusal(answer) == (400, errcode)


@pytest.mark.parametrize("many", [MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS + 1])
def test_a_request_has_at_most_a_hundred_subscriptions(login: Login, many: int) -> None:
    wanted = {"timeline_limit": 1, "required_state": {}}
    subscriptions = {f"!{number}:localhost": wanted for number in range(many)}

    answer = request(login("alice"), lists={}, room_subscriptions=subscriptions)

    allowed = many <= MAX_SUBSCRIPTIONS
    assert answer.status_code == (200 if allowed else 400)
    assert answer.get_json().get("errcode") == (None if allowed else "M_INVALID_PARAM")


@pytest.mark.parametrize("range_", [[5, 3], [0, 2**53], [2**53, 2**60], [0, 2**64 - 1]])
def test_a_range_may_be_empty_or_huge(login: Login, range_: list[int]) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answer = ask(alice, lists=window(range=range_))

    assert list(answer["rooms"]) == ([room_id] if range_[0] == 0 else [])


def test_state_that_was_deleted_has_an_entry_without_content(
    app: Application, login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol, topic="Bread")
    alice.set_state(room_id, "m.room.avatar", {"url": "mxc://localhost/a"})
    lists = window(required_state={"include": [CREATE, TOPIC], "lazy_members": True})
    pos = ask(alice, lists=lists)["pos"]
    deployed = sliding.ask(alice, lists=sliding.window(9, required_state=[["*", "*"]]))["pos"]

    deleted = [("m.room.topic", ""), ("m.room.avatar", ""), member(carol.user_id)]
    reset(app, room_id, dict.fromkeys(deleted))
    found = ask(alice, pos=pos, lists=lists)["rooms"][room_id]["required_state"]
    other = sliding.ask(alice, deployed, lists=sliding.window(9, required_state=[["*", "*"]]))

    assert {(it["type"], it["state_key"]) for it in found} == {deleted[0], deleted[2]}
    assert not any("content" in it for it in found)
    assert other["rooms"][room_id]["required_state"] == []


def test_members_whose_state_was_resolved_otherwise_are_sent_though_they_are_lazy(
    app: Application, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    before = alice.get(f"rooms/{quote(room_id)}/state/m.room.member/{bob.user_id}?format=event")
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Robert"})
    lists = window(timeline_limit=1, required_state={"lazy_members": True})
    pos = ask(alice, lists=lists)["pos"]

    reset(app, room_id, {member(bob.user_id): before.get_json()["event_id"]})
    found = ask(alice, pos=pos, lists=lists)

    assert list(state(found, room_id)) == [("m.room.member", bob.user_id)]
