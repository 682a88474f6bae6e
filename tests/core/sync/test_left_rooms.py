"""Rooms that users are not in any more: what they are still sent of them, and of their own part."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Login, Person
from tests.helpers.legacy import bodies, events
from tests.helpers.rooms import act
from tests.helpers.sliding import ask, state, window

Json = dict[str, Any]
Room = Callable[..., str]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def filtered(**room: Any) -> Json:
    """The query of a sync with a filter for rooms."""
    return {"filter": json.dumps({"room": room})}


def memberships(section: list[Json]) -> list[tuple[str, str]]:
    """(user, membership) of the member events in a section."""
    return [
        (event["state_key"], event["content"]["membership"])
        for event in section
        if event["type"] == "m.room.member"
    ]


# --- the own leave, and the filter


@pytest.mark.parametrize("section", ["state", "state_after"])
def test_a_filter_keeps_the_own_leave_out_of_the_timeline_and_it_comes_as_state(
    alice: Person, bob: Person, section: str
) -> None:
    room_id = alice.create_room(preset="private_chat", invite=[bob.user_id])
    token = bob.sync()["next_batch"]
    act(bob, room_id, "leave")
    query: Json = {"use_state_after": "true"} if section == "state_after" else {}
    messages = {"types": ["m.room.message"]}

    for wanted in (messages, {"limit": 0}, {"not_senders": [bob.user_id]}):
        entry = bob.sync(token, **filtered(timeline=wanted), **query)["rooms"]["leave"][room_id]
        assert entry["timeline"]["events"] == []
        assert memberships(entry[section]["events"]) == [(bob.user_id, "leave")]
    both = filtered(timeline=messages, state={"not_types": ["m.room.member"]})
    entry = bob.sync(token, **both, **query)["rooms"]["leave"][room_id]
    assert (entry["timeline"]["events"], entry[section]["events"]) == ([], [])


def test_the_own_leave_is_in_the_timeline_and_with_state_after_in_the_state_too(
    alice: Person, bob: Person
) -> None:
    room_id = alice.create_room(preset="private_chat", invite=[bob.user_id])
    token = bob.sync()["next_batch"]
    act(bob, room_id, "leave")

    plain = bob.sync(token)["rooms"]["leave"][room_id]
    after = bob.sync(token, use_state_after="true")["rooms"]["leave"][room_id]

    own = [(bob.user_id, "leave")]
    assert memberships(plain["timeline"]["events"]) == own
    assert plain["state"]["events"] == []
    assert memberships(after["timeline"]["events"]) == own
    assert memberships(after["state_after"]["events"]) == own


# --- account data


def test_rooms_that_were_left_come_with_their_account_data(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    path = f"user/{bob.user_id}/rooms/{room_id}/account_data"
    bob.put(f"{path}/org.example.old", json={"a": 1})
    token = bob.sync()["next_batch"]
    bob.put(f"{path}/org.example.new", json={"b": 2})
    act(bob, room_id, "leave")
    old, new = ("org.example.old", {"a": 1}), ("org.example.new", {"b": 2})

    def told(since: str | None, **wanted: Any) -> list[tuple[str, Json]]:
        query = filtered(include_leave=True, **wanted)
        entry = bob.sync(since, **query)["rooms"]["leave"][room_id]
        return [(it["type"], it["content"]) for it in entry["account_data"]["events"]]

    assert told(token) == [new]
    assert sorted(told(None)) == sorted([old, new])
    assert told(None, account_data={"types": ["org.example.old"]}) == [old]


def test_a_room_joined_and_left_since_comes_with_all_its_account_data(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    bob.put(f"user/{bob.user_id}/rooms/{room_id}/account_data/org.example.a", json={"a": 1})
    act(bob, room_id, "leave")
    token = bob.sync()["next_batch"]
    act(bob, room_id, "join")
    act(bob, room_id, "leave")

    entry = bob.sync(token)["rooms"]["leave"][room_id]

    assert [it["type"] for it in entry["account_data"]["events"]] == ["org.example.a"]


# --- what happens to the own membership after the leave


def test_an_unban_and_a_ban_after_a_leave_are_told_and_nothing_else_of_the_room(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    alice.send(room_id, "old")
    act(bob, room_id, "leave")
    tokens = [bob.sync()["next_batch"]]
    alice.send(room_id, "not for bob")
    told = []
    for verb in ("ban", "unban"):
        assert act(alice, room_id, verb, user_id=bob.user_id).status_code == 200
        answer = bob.sync(tokens[-1])
        tokens.append(answer["next_batch"])
        told.append(answer["rooms"]["leave"][room_id])
    both = bob.sync(tokens[0])["rooms"]["leave"][room_id]
    nothing = bob.sync(tokens[-1])["rooms"]["leave"]

    assert [memberships(it["timeline"]["events"]) for it in [*told, both]] == [
        [(bob.user_id, "ban")],
        [(bob.user_id, "leave")],
        [(bob.user_id, "leave")],
    ]
    for entry in [*told, both]:
        assert len(entry["timeline"]["events"]) == 1
        assert entry["timeline"]["limited"] is False
        assert entry["state"]["events"] == []
    assert nothing == {}


def test_the_token_before_such_an_event_goes_on_to_what_was_before_the_leave(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    old = alice.send(room_id, "old")
    act(bob, room_id, "leave")
    token = bob.sync()["next_batch"]
    act(alice, room_id, "ban", user_id=bob.user_id)

    timeline = bob.sync(token)["rooms"]["leave"][room_id]["timeline"]
    query = {"dir": "b", "from": timeline["prev_batch"], "limit": 2}
    page = bob.get(f"rooms/{room_id}/messages", query_string=query).get_json()["chunk"]

    assert memberships(page[:1]) == [(bob.user_id, "leave")]
    assert page[1]["event_id"] == old


def test_an_invite_that_is_rejected_at_once_does_not_send_the_room_again(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    alice.send(room_id, "old")
    act(bob, room_id, "leave")
    token = bob.sync()["next_batch"]
    act(alice, room_id, "invite", user_id=bob.user_id)
    act(bob, room_id, "leave")

    entry = bob.sync(token)["rooms"]["leave"][room_id]

    assert memberships(entry["timeline"]["events"]) == [(bob.user_id, "leave")]
    assert len(entry["timeline"]["events"]) == 1


@pytest.mark.parametrize("verb", ["leave", "kick", "join"])
def test_an_invite_between_two_looks_hides_nothing_that_was_said_before_the_leave(
    alice: Person, bob: Person, room: Room, verb: str
) -> None:
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    unheard = alice.send(room_id, "new")
    act(bob, room_id, "leave")
    act(alice, room_id, "invite", user_id=bob.user_id)
    invited = bob.sync(token)
    if verb == "kick":
        act(alice, room_id, verb, user_id=bob.user_id)
    else:
        act(bob, room_id, verb)

    section = bob.sync(invited["next_batch"])["rooms"]["join" if verb == "join" else "leave"]

    assert room_id in invited["rooms"]["invite"]
    assert unheard in [it["event_id"] for it in section[room_id]["timeline"]["events"]]


def test_what_others_do_in_a_room_that_all_may_read_is_not_sent_with_a_ban_after_a_leave(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    act(bob, room_id, "leave")
    token, start = bob.sync()["next_batch"], events(bob, "END")["end"]
    alice.send(room_id, "after")
    act(alice, room_id, "ban", user_id=bob.user_id)

    entry = bob.sync(token)["rooms"]["leave"][room_id]
    streamed = events(bob, start)["chunk"]

    assert memberships(entry["timeline"]["events"]) == [(bob.user_id, "ban")]
    assert len(entry["timeline"]["events"]) == 1
    assert bodies(streamed) == ["@alice:localhost banned @bob:localhost."]


def test_a_ban_after_a_leave_tells_nothing_of_who_is_in_the_room(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    act(bob, room_id, "leave")
    token = bob.sync()["next_batch"]
    act(alice, room_id, "ban", user_id=bob.user_id)

    answer = bob.sync(token)

    assert room_id in answer["rooms"]["leave"]
    assert answer["device_lists"] == {"changed": [], "left": []}


def test_a_forgotten_room_stays_forgotten(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    act(bob, room_id, "leave")
    act(bob, room_id, "forget")
    token, pos = bob.sync()["next_batch"], ask(bob)["pos"]
    act(alice, room_id, "ban", user_id=bob.user_id)

    assert bob.sync(token)["rooms"]["leave"] == {}
    assert room_id not in ask(bob, pos)["rooms"]


# --- the same by sliding sync


def test_sliding_sync_tells_of_an_unban(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    act(alice, room_id, "ban", user_id=bob.user_id)
    banned = ask(bob, pos)
    act(alice, room_id, "unban", user_id=bob.user_id)
    unbanned = ask(bob, banned["pos"])
    nothing = ask(bob, unbanned["pos"])["rooms"]
    anew = ask(bob)

    assert banned["rooms"][room_id]["membership"] == "ban"
    assert unbanned["rooms"][room_id]["membership"] == "leave"
    own = memberships(unbanned["rooms"][room_id]["required_state"])
    assert (bob.user_id, "leave") in own
    assert anew["rooms"][room_id]["membership"] == "leave"
    assert nothing == {}


def test_sliding_sync_tells_of_a_ban_after_a_leave(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    act(bob, room_id, "leave")
    left = ask(bob, pos)
    alice.send(room_id, "not for bob")
    act(alice, room_id, "ban", user_id=bob.user_id)
    banned = ask(bob, left["pos"])

    assert left["rooms"][room_id]["membership"] == "leave"
    entry = banned["rooms"][room_id]
    assert entry["membership"] == "ban"
    assert (bob.user_id, "ban") in memberships(entry["required_state"])
    said = [it["content"].get("body") for it in entry["timeline"]]
    assert "not for bob" not in said


def test_sliding_sync_shows_who_was_kicked_between_two_looks_the_room_as_it_would_anew(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    pos = ask(bob)["pos"]
    act(bob, room_id, "join")
    act(alice, room_id, "kick", user_id=bob.user_id)

    assert ask(bob, pos)["rooms"][room_id]["membership"] == "leave"
    assert ask(bob)["rooms"][room_id]["membership"] == "leave"


def test_sliding_sync_tells_a_stranger_nothing_of_a_ban(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    pos = ask(bob)["pos"]
    act(alice, room_id, "ban", user_id=bob.user_id)
    banned = ask(bob, pos)
    act(alice, room_id, "unban", user_id=bob.user_id)

    assert room_id not in banned["rooms"]
    assert room_id not in ask(bob, banned["pos"])["rooms"]


@pytest.mark.parametrize("setting", ["joined", "shared"])
@pytest.mark.parametrize("verb", ["ban", "kick"])
def test_sliding_sync_shows_a_room_as_it_was_left_however_late_a_ban_comes(
    alice: Person, bob: Person, room: Room, setting: str, verb: str
) -> None:
    everything = window(9, required_state=[["*", "*"]])
    room_id = room(alice, bob, name="Before")
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": setting})
    said = alice.send(room_id, "your last")
    act(bob, room_id, "leave")
    pos = ask(bob)["pos"]
    for event_type, key in (("m.room.name", "name"), ("m.room.topic", "topic")):
        alice.set_state(room_id, event_type, {key: "not for bob"})
    alice.send(room_id, "not for bob")
    if verb == "kick":
        act(alice, room_id, "invite", user_id=bob.user_id)
    act(alice, room_id, verb, user_id=bob.user_id)

    later, anew = ask(bob, pos, lists=everything), ask(bob, conn_id="new", lists=everything)

    for found in (later, anew):
        entry = found["rooms"][room_id]
        assert entry["name"] == state(found, room_id)["m.room.name", ""]["name"] == "Before"
        assert [it["event_id"] for it in entry["timeline"] if it["type"] == "m.room.message"] == [
            said
        ]
        own = state(found, room_id)["m.room.member", bob.user_id]
        assert own["membership"] == entry["membership"] == {"ban": "ban", "kick": "leave"}[verb]
        assert "not for bob" not in json.dumps(found)
    for name, count in (("not for bob", 0), ("before", 1)):
        named = window(9, filters={"room_name_like": name})
        assert ask(bob, conn_id=name, lists=named)["lists"]["all"]["count"] == count


def test_sliding_sync_tells_all_up_to_a_leave_though_a_ban_came_before_the_next_look(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    alice.send(room_id, "your last")
    act(bob, room_id, "leave")
    alice.set_state(room_id, "m.room.topic", {"topic": "not for bob"})
    act(alice, room_id, "ban", user_id=bob.user_id)

    found = ask(bob, pos)

    shown = [it["content"].get("body") for it in found["rooms"][room_id]["timeline"]]
    assert "your last" in shown
    assert "not for bob" not in json.dumps(found)


@pytest.mark.parametrize("verb", ["leave", "kick", "ban"])
def test_sliding_sync_hides_nothing_that_was_said_before_a_leave_and_an_invite(
    alice: Person, bob: Person, room: Room, verb: str
) -> None:
    room_id = room(alice, bob)
    pos = ask(bob, lists=window(9))["pos"]
    unheard = alice.send(room_id, "new")
    act(bob, room_id, "leave")
    alice.send(room_id, "not for bob")
    act(alice, room_id, "invite", user_id=bob.user_id)
    invited = ask(bob, pos, lists=window(9))
    if verb == "leave":
        act(bob, room_id, verb)
    else:
        act(alice, room_id, verb, user_id=bob.user_id)

    shown = ask(bob, invited["pos"], lists=window(9))["rooms"][room_id]

    assert invited["rooms"][room_id]["membership"] == "invite"
    assert shown["membership"] == ("ban" if verb == "ban" else "leave")
    messages = [it for it in shown["timeline"] if it["type"] == "m.room.message"]
    assert [it["event_id"] for it in messages] == [unheard]


def test_sliding_sync_shows_the_end_of_an_invite_alone_where_all_was_heard_before(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    alice.send(room_id, "old")
    pos = ask(bob, lists=window(9))["pos"]
    act(bob, room_id, "leave")
    left = ask(bob, pos, lists=window(9))
    act(alice, room_id, "invite", user_id=bob.user_id)
    invited = ask(bob, left["pos"], lists=window(9))
    act(bob, room_id, "leave")

    shown = ask(bob, invited["pos"], lists=window(9))["rooms"][room_id]

    assert (shown["membership"], shown["timeline"]) == ("leave", [])
