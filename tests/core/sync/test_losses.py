"""/sync: what fuzz/test_course_of_sync.py found to be lost, sent twice, or sent to strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.conftest import Login, Person

MakeRoom = Callable[..., str]
Json = dict[str, Any]


def asking(limit: int = 10, *, is_lazy: bool = False, **timeline: Any) -> Json:
    """The query of a sync with a filter."""
    state = {"lazy_load_members": is_lazy}
    room = {"timeline": {"limit": limit, **timeline}, "state": state, "include_leave": True}
    return {"filter": json.dumps({"room": room})}


def keys(entry: Json) -> set[tuple[str, str]]:
    """What is in a state section."""
    return {(event["type"], event["state_key"]) for event in entry["state"]["events"]}


def ids(entry: Json) -> list[str]:
    return [event["event_id"] for event in entry["timeline"]["events"]]


def nick(person: Person, room_id: str, name: str) -> None:
    content = {"membership": "join", "displayname": name}
    assert person.set_state(room_id, "m.room.member", content, person.user_id).status_code == 200


def test_who_was_only_invited_is_told_nothing_of_the_state(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="private_chat", invite=[bob.user_id])
    token = bob.sync()["next_batch"]
    alice.set_state(room_id, "org.example.secret", {"a": 1})
    bob.post(f"rooms/{quote(room_id)}/leave")

    for query in (asking(1) | {"since": token}, asking(1)):
        entry = bob.sync(**query)["rooms"]["leave"][room_id]
        assert entry["state"]["events"] == []
        assert [event["sender"] for event in entry["timeline"]["events"]] == [bob.user_id]


def test_who_is_banned_after_a_leave_is_told_of_no_state_in_between(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    bob.post(f"rooms/{quote(room_id)}/leave")
    alice.set_state(room_id, "org.example.secret", {"a": 1})
    alice.post(f"rooms/{quote(room_id)}/ban", json={"user_id": bob.user_id})

    for query in (asking(1) | {"since": token}, asking(1)):
        entry = bob.sync(**query)["rooms"]["leave"][room_id]
        assert ("org.example.secret", "") not in keys(entry)


def test_state_that_was_set_where_one_may_not_look_is_known_all_the_same(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat")
    hidden = {"history_visibility": "joined"}
    alice.set_state(room_id, "m.room.history_visibility", hidden)
    alice.set_state(room_id, "m.room.topic", {"topic": "spring"})
    bob.post(f"rooms/{quote(room_id)}/join")

    entry = bob.sync()["rooms"]["join"][room_id]

    assert ("m.room.topic", "") in keys(entry)
    assert [event["sender"] for event in entry["timeline"]["events"]] == [bob.user_id]


def test_a_first_sync_tells_the_state_behind_the_last_event_that_a_filter_wants(
    login: Login, room: MakeRoom
) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.send(room_id)
    alice.set_state(room_id, "m.room.topic", {"topic": "spring"})

    entry = alice.sync(**asking(types=["m.room.message"]))["rooms"]["join"][room_id]

    assert ("m.room.topic", "") in keys(entry)


def test_who_rejects_a_second_invite_is_told_of_it(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.post(f"rooms/{quote(room_id)}/leave")
    alice.post(f"rooms/{quote(room_id)}/invite", json={"user_id": bob.user_id})
    token = bob.sync()["next_batch"]
    bob.post(f"rooms/{quote(room_id)}/leave")

    entry = bob.sync(token)["rooms"]["leave"][room_id]

    own = bob.get(f"rooms/{quote(room_id)}/messages?dir=b").get_json()["chunk"]
    assert entry["timeline"]["events"][-1]["content"]["membership"] == "leave"
    assert ids(entry)[-1] not in {event["event_id"] for event in own}


def test_who_was_there_again_for_a_moment_is_told_of_a_gap(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.post(f"rooms/{quote(room_id)}/leave")
    token = bob.sync(**asking())["next_batch"]
    bob.post(f"rooms/{quote(room_id)}/join")
    bob.post(f"rooms/{quote(room_id)}/leave")

    entry = bob.sync(token)["rooms"]["leave"][room_id]

    assert entry["timeline"]["limited"] is True


def test_lazy_loading_tells_of_those_by_whom_the_room_is_called(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    alice.send(room_id)

    entry = alice.sync(**asking(1, is_lazy=True))["rooms"]["join"][room_id]

    assert entry["summary"]["m.heroes"] == [bob.user_id, carol.user_id]
    assert {("m.room.member", it) for it in entry["summary"]["m.heroes"]} <= keys(entry)


def test_lazy_loading_tells_again_of_a_member_whose_answer_was_lost(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol, name="Garden")
    alice.send(room_id)
    token = alice.sync(**asking(1, is_lazy=True))["next_batch"]
    bob.send(room_id)
    lost = alice.sync(token, **asking(1, is_lazy=True))
    carol.send(room_id)  # then there is nothing of Bob in the repeated answer
    repeated = alice.sync(token, **asking(1, is_lazy=True))
    bob.send(room_id)

    entry = alice.sync(repeated["next_batch"], **asking(1, is_lazy=True))["rooms"]["join"][room_id]

    assert keys(lost["rooms"]["join"][room_id]) == {("m.room.member", bob.user_id)}
    assert keys(repeated["rooms"]["join"][room_id]) == {("m.room.member", carol.user_id)}
    assert keys(entry) == {("m.room.member", bob.user_id)}


def test_lazy_loading_takes_who_starts_anew_to_know_nobody(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Garden")
    bob.send(room_id)
    alice.sync(**asking(1, is_lazy=True))
    alice.send(room_id)
    token = alice.sync(**asking(1, is_lazy=True))["next_batch"]
    bob.send(room_id)

    entry = alice.sync(token, **asking(1, is_lazy=True))["rooms"]["join"][room_id]

    assert keys(entry) == {("m.room.member", bob.user_id)}


def test_lazy_loading_tells_who_comes_back_what_members_have_changed(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Garden")
    alice.send(room_id)
    token = bob.sync(**asking(1, is_lazy=True))["next_batch"]
    bob.post(f"rooms/{quote(room_id)}/leave")
    nick(alice, room_id, "Alice in chains")
    bob.post(f"rooms/{quote(room_id)}/join")

    entry = bob.sync(token, **asking(1, is_lazy=True))["rooms"]["join"][room_id]

    assert ("m.room.member", alice.user_id) in keys(entry)


def test_lazy_loading_with_full_state_tells_of_members_who_changed_in_a_gap(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Garden")
    token = alice.sync(**asking(1, is_lazy=True))["next_batch"]
    nick(bob, room_id, "Robert")
    alice.send(room_id)

    query = asking(1, is_lazy=True) | {"full_state": "true"}
    entry = alice.sync(token, **query)["rooms"]["join"][room_id]

    assert ("m.room.member", bob.user_id) in keys(entry)


def test_who_is_invited_again_hears_with_whom_no_room_is_shared(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    alice.post(f"rooms/{quote(room_id)}/kick", json={"user_id": bob.user_id})
    alice.post(f"rooms/{quote(room_id)}/invite", json={"user_id": bob.user_id})

    assert bob.sync(token)["device_lists"]["left"] == [alice.user_id]


def test_who_comes_back_hears_who_has_gone_meanwhile(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    token = bob.sync()["next_batch"]
    for person, what in ((bob, "leave"), (carol, "leave"), (bob, "join")):
        person.post(f"rooms/{quote(room_id)}/{what}")

    assert bob.sync(token)["device_lists"]["left"] == [carol.user_id]


def test_a_room_that_loses_its_name_is_called_by_its_members(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = alice.sync()["next_batch"]
    alice.set_state(room_id, "m.room.name", {"name": "Garden"})

    summary = alice.sync(token)["rooms"]["join"][room_id]["summary"]

    assert summary["m.joined_member_count"] == 2


def test_a_room_whose_name_says_nothing_is_called_by_its_members(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Garden")

    alice.set_state(room_id, "m.room.name", {"name": ""})

    assert alice.sync()["rooms"]["join"][room_id]["summary"]["m.heroes"] == [bob.user_id]


def test_a_limit_of_account_data_loses_none(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    wanted = {"account_data": {"limit": 1}, "room": {"account_data": {"limit": 1}}}
    query: Json = {"filter": json.dumps(wanted)}
    token = alice.sync(**query)["next_batch"]
    for name in ("a", "b"):
        for part in ("", f"rooms/{quote(room_id)}/"):
            path = f"user/{alice.user_id}/{part}account_data/org.example.{name}"
            alice.put(path, json={"a": 1})

    answer = alice.sync(token, **query)

    found = [answer["account_data"], answer["rooms"]["join"][room_id]["account_data"]]
    names = [{event["type"] for event in part["events"]} for part in found]
    assert names == [{"org.example.a", "org.example.b"}] * 2


def test_a_limit_of_presence_loses_nobody(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room(alice, bob, carol)
    query: Json = {"filter": json.dumps({"presence": {"limit": 1}}), "set_presence": "offline"}
    token = alice.sync(**query)["next_batch"]
    for person in (bob, carol):
        path = f"presence/{person.user_id}/status"
        assert person.put(path, json={"presence": "online"}).status_code == 200

    events = alice.sync(token, **query)["presence"]["events"]

    assert {event["sender"] for event in events} >= {bob.user_id, carol.user_id}


def test_a_limit_of_zero_keeps_a_section_empty(login: Login) -> None:
    alice = login("alice")
    none = {"limit": 0}

    answer = alice.sync(filter=json.dumps({"account_data": none, "presence": none}))

    assert answer["account_data"] == answer["presence"] == {"events": []}
