"""Extensions of sliding sync: to-device messages, keys, account data, receipts, typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.sliding_sync import kept_states
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import encryption
from tests.helpers.sliding import Json, ask, request, window

MakeRoom = Callable[..., str]
ON: Json = {"enabled": True}
ROOM_EXTENSIONS = ("account_data", "receipts", "typing")


def rooms_of(answer: Json, extension: str) -> dict[str, Any]:
    """Return {room_id: section of the extension}."""
    found: dict[str, Any] = answer["extensions"][extension]["rooms"]
    return found


def send_to(receiver: Person, sender: Person, txn_id: str, **content: object) -> None:
    to = {"messages": {receiver.user_id: {receiver.device_id: content}}}
    answer = sender.put(f"sendToDevice/org.example.secret/{txn_id}", json=to)
    assert answer.status_code == 200


def types(person: Person, room_id: str, *, is_typing: bool = True) -> None:
    body = {"typing": is_typing, "timeout": 30_000}
    path = f"rooms/{quote(room_id)}/typing/{person.user_id}"
    assert person.put(path, json=body).status_code == 200


def reads(person: Person, room_id: str, event_id: str, kind: str = "m.read") -> None:
    path = f"rooms/{quote(room_id)}/receipt/{kind}/{quote(event_id)}"
    assert person.post(path).status_code == 200


def readers(answer: Json, room_id: str) -> dict[str, set[str]]:
    """Return {event_id: users with a receipt for it}."""
    content = rooms_of(answer, "receipts").get(room_id, {"content": {}})["content"]
    return {
        event: {u for users in kinds.values() for u in users} for event, kinds in content.items()
    }


def set_data(person: Person, colour: str, room_id: str = "") -> None:
    place = f"rooms/{quote(room_id)}/" if room_id else ""
    path = f"user/{person.user_id}/{place}account_data/org.example.colour"
    assert person.put(path, json={"colour": colour}).status_code == 200


def test_nothing_is_told_that_nobody_asked_for(login: Login) -> None:
    alice = login("alice")
    alice.create_room()

    assert ask(alice)["extensions"] == {}
    assert ask(alice, extensions={"typing": {"enabled": False}})["extensions"] == {}


def test_messages_to_the_device_come_until_they_are_acknowledged(login: Login) -> None:
    alice = login("alice")
    wanted: Json = {"to_device": dict(ON)}
    first = ask(alice, extensions=wanted)
    send_to(alice, alice, "t1", secret=1)

    news = ask(alice, first["pos"], extensions=wanted)["extensions"]["to_device"]
    again = ask(alice, first["pos"], extensions=wanted)
    wanted["to_device"]["since"] = news["next_batch"]
    later = ask(alice, again["pos"], extensions=wanted)["extensions"]["to_device"]

    assert [it["content"] for it in news["events"]] == [{"secret": 1}]
    assert again["extensions"]["to_device"]["events"] == news["events"]
    assert later["events"] == []


def test_many_messages_come_in_their_order_and_none_is_lost(login: Login) -> None:
    alice = login("alice")
    for number in range(103):
        send_to(alice, alice, f"t{number}", number=number)
    wanted: Json = {"to_device": dict(ON)}
    first = ask(alice, extensions=wanted)
    wanted["to_device"]["since"] = first["extensions"]["to_device"]["next_batch"]

    then = ask(alice, first["pos"], extensions=wanted)

    events = first["extensions"]["to_device"]["events"] + then["extensions"]["to_device"]["events"]
    assert [event["content"]["number"] for event in events] == list(range(103))


@pytest.mark.parametrize("since", ["nonsense", "s999999999"])
def test_a_token_of_messages_that_was_never_given_out_is_refused(login: Login, since: str) -> None:
    answer = request(login("alice"), extensions={"to_device": {"enabled": True, "since": since}})

    assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_INVALID_PARAM")


def test_keys_that_change_are_told_on_the_connection(login: Login, room: MakeRoom) -> None:
    alice, bob, stranger = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    wanted = {"e2ee": ON}
    first = ask(bob, lists={}, extensions=wanted)
    encryption.upload_device_keys(alice)
    encryption.upload_device_keys(stranger)

    changed = ask(bob, first["pos"], lists={}, extensions=wanted)
    alice.post(f"rooms/{quote(room_id)}/leave")
    gone = ask(bob, changed["pos"], lists={}, extensions=wanted)

    assert first["extensions"]["e2ee"]["device_lists"] == {"changed": [], "left": []}
    assert changed["extensions"]["e2ee"]["device_lists"]["changed"] == [alice.user_id]
    assert gone["extensions"]["e2ee"]["device_lists"]["left"] == [alice.user_id]
    assert gone["extensions"]["e2ee"]["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert gone["extensions"]["e2ee"]["device_unused_fallback_key_types"] == []


def test_a_connection_that_starts_anew_hears_of_keys_that_changed_meanwhile(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    both: Json = {"to_device": dict(ON), "e2ee": ON}
    inbox = ask(bob, extensions=both)["extensions"]["to_device"]["next_batch"]
    encryption.upload_device_keys(alice)

    both["to_device"]["since"] = inbox
    anew = ask(bob, conn_id="after a restart", extensions=both)["extensions"]

    assert anew["e2ee"]["device_lists"]["changed"] == [alice.user_id]


def test_a_connection_that_was_without_keys_for_a_while_hears_what_changed_meanwhile(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    both: Json = {"to_device": dict(ON), "e2ee": ON}
    first = ask(bob, extensions=both)
    both["to_device"]["since"] = first["extensions"]["to_device"]["next_batch"]
    encryption.upload_device_keys(alice)
    without = ask(bob, first["pos"])

    found = ask(bob, without["pos"], extensions=both)
    later = ask(bob, found["pos"], extensions=both)

    assert found["extensions"]["e2ee"]["device_lists"]["changed"] == [alice.user_id]
    assert later["extensions"]["e2ee"]["device_lists"]["changed"] == []


def test_account_data_comes_in_full_and_then_what_changes(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    set_data(alice, "blue")
    set_data(alice, "red", room_id)
    wanted = {"account_data": ON}
    first = ask(alice, extensions=wanted)
    set_data(alice, "green", room_id)
    then = ask(alice, first["pos"], extensions=wanted)
    later = ask(alice, then["pos"], extensions=wanted)

    data = {it["type"]: it["content"] for it in first["extensions"]["account_data"]["global"]}
    assert data["org.example.colour"] == {"colour": "blue"}
    assert "m.push_rules" in data
    assert [it["content"]["colour"] for it in rooms_of(first, "account_data")[room_id]] == ["red"]
    assert then["extensions"]["account_data"]["global"] == []
    assert [it["content"]["colour"] for it in rooms_of(then, "account_data")[room_id]] == ["green"]
    assert later["extensions"]["account_data"] == {"global": [], "rooms": {}}


def test_an_extension_that_is_asked_for_later_tells_all_from_the_start(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    said = alice.send(room_id)
    reads(bob, room_id, said)
    types(bob, room_id)
    set_data(alice, "blue")
    set_data(alice, "red", room_id)
    pos = ask(alice)["pos"]

    found = ask(alice, pos, extensions=dict.fromkeys(ROOM_EXTENSIONS, ON))

    types_of_data = {it["type"] for it in found["extensions"]["account_data"]["global"]}
    assert {"org.example.colour", "m.push_rules"} <= types_of_data
    assert room_id in rooms_of(found, "account_data")
    assert bob.user_id in readers(found, room_id)[said]
    assert rooms_of(found, "typing")[room_id]["content"] == {"user_ids": [bob.user_id]}


def test_receipts_of_a_new_room_are_those_of_what_is_shown_and_ones_own(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    old = alice.send(room_id)
    reads(bob, room_id, old)
    reads(carol, room_id, old, "m.read.private")
    new = alice.send(room_id)
    wanted = {"receipts": ON}

    first = ask(carol, lists=window(9, limit=1), extensions=wanted)
    longer = ask(carol, first["pos"], lists=window(9, limit=2), extensions=wanted)
    reads(bob, room_id, new)
    then = ask(carol, longer["pos"], lists=window(9, limit=2), extensions=wanted)

    assert readers(first, room_id) == {old: {carol.user_id}}
    assert readers(longer, room_id) == {old: {bob.user_id, carol.user_id}}
    assert readers(then, room_id) == {new: {bob.user_id}}


def test_receipts_of_what_a_newcomer_may_not_see_are_not_sent(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    hidden = {"history_visibility": "joined"}
    alice.set_state(room_id, "m.room.history_visibility", hidden)
    said = alice.send(room_id)
    carol.post(f"rooms/{room_id}/join")
    wanted = {"receipts": ON}
    pos = ask(carol, lists=window(9, limit=2), extensions=wanted)["pos"]

    reads(bob, room_id, said)
    then = ask(carol, pos, lists=window(9, limit=2), extensions=wanted)

    assert rooms_of(then, "receipts") == {}


def test_private_receipts_stay_private(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    said = alice.send(room_id)
    wanted = {"receipts": ON}
    pos = ask(alice, extensions=wanted)["pos"]
    reads(bob, room_id, said, "m.read.private")

    assert rooms_of(ask(alice, pos, extensions=wanted), "receipts") == {}
    assert rooms_of(ask(alice, extensions=wanted), "receipts") == {}


def test_typing_comes_when_it_begins_and_ends(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    wanted = {"typing": ON}
    first = ask(alice, extensions=wanted)
    types(bob, room_id)
    begun = ask(alice, first["pos"], extensions=wanted)
    still = ask(alice, begun["pos"], extensions=wanted)
    types(bob, room_id, is_typing=False)
    ended = ask(alice, still["pos"], extensions=wanted)

    assert rooms_of(first, "typing") == rooms_of(still, "typing") == {}
    assert rooms_of(begun, "typing")[room_id]["content"] == {"user_ids": [bob.user_id]}
    assert rooms_of(ended, "typing")[room_id]["content"] == {"user_ids": []}


def test_who_is_invited_only_is_told_neither_receipts_nor_who_types(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    said = alice.send(room_id)
    wanted = dict.fromkeys(ROOM_EXTENSIONS, ON)
    alice.post(f"rooms/{quote(room_id)}/invite", json={"user_id": carol.user_id})
    reads(bob, room_id, said)
    types(bob, room_id)

    first = ask(carol, extensions=wanted)
    types(alice, room_id)
    then = ask(carol, first["pos"], extensions=wanted)

    assert first["rooms"][room_id]["membership"] == "invite"
    for found in (first, then):
        assert rooms_of(found, "receipts") == rooms_of(found, "typing") == {}


def test_who_has_joined_is_told_what_there_was(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    alice.post(f"rooms/{quote(room_id)}/invite", json={"user_id": carol.user_id})
    wanted = dict.fromkeys(ROOM_EXTENSIONS, ON)
    first = ask(carol, extensions=wanted)
    said = alice.send(room_id)
    reads(bob, room_id, said)
    types(bob, room_id)
    carol.post(f"rooms/{quote(room_id)}/join")

    found = ask(carol, first["pos"], extensions=wanted)

    assert bob.user_id in readers(found, room_id)[said]
    assert rooms_of(found, "typing")[room_id]["content"] == {"user_ids": [bob.user_id]}


def test_rooms_that_no_window_has_shown_are_not_told_of(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    hidden, shown = room(alice, bob), room(alice, bob)
    wanted = dict.fromkeys(ROOM_EXTENSIONS, ON)
    pos = ask(alice, lists=window(0), extensions=wanted)["pos"]
    for room_id in (hidden, shown):
        types(bob, room_id)
        set_data(alice, "blue", room_id)

    narrow = ask(alice, pos, lists=window(0), extensions=wanted)
    wide = ask(alice, narrow["pos"], lists=window(1), extensions=wanted)

    for name in ("typing", "account_data"):
        assert list(rooms_of(narrow, name)) == [shown]
        assert list(rooms_of(wide, name)) == [hidden]


def test_an_extension_may_be_about_some_lists_or_rooms_only(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    third, second, first = (room(alice, bob) for _ in range(3))
    lists = {
        "top": window(0)["all"],
        "next": window(1, ranges=[[1, 1]])["all"],
    }
    for room_id in (first, second, third):
        types(bob, room_id)

    def typed_in(**scope: list[str]) -> set[str]:
        body: Json = {"lists": lists, "room_subscriptions": {third: {}}}
        return set(rooms_of(ask(alice, **body, extensions={"typing": ON | scope}), "typing"))

    assert typed_in() == {first, second, third}
    assert typed_in(lists=["top"], rooms=[]) == {first}
    assert typed_in(lists=["next"]) == {second, third}
    assert typed_in(lists=[], rooms=[third]) == {third}
    assert typed_in(lists=["*"], rooms=[]) == {first, second}
    assert typed_in(rooms=["*"], lists=[]) == {third}


def test_another_scope_takes_effect_though_nothing_else_has_changed(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    types(bob, room_id)
    pos = ask(alice, extensions={"typing": ON | {"lists": [], "rooms": []}})["pos"]

    found = ask(alice, pos, extensions={"typing": ON})

    assert list(rooms_of(found, "typing")) == [room_id]


def test_a_client_that_has_to_begin_anew_hears_who_types_no_more(
    login: Login, room: MakeRoom, make_app: MakeApp
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    wanted = {"typing": ON}
    types(bob, room_id)
    pos = ask(alice, extensions=wanted)["pos"]

    alice.client = bob.client = make_app().test_client()
    refused = request(alice, pos, extensions=wanted)
    anew = ask(alice, extensions=wanted)
    then = ask(alice, anew["pos"], extensions=wanted)
    other = ask(alice, conn_id="another", extensions=wanted)

    assert refused.get_json()["errcode"] == "M_UNKNOWN_POS"
    assert rooms_of(anew, "typing")[room_id]["content"] == {"user_ids": []}
    assert rooms_of(then, "typing") == rooms_of(other, "typing") == {}


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("has_typed", [False, True])
def test_after_a_restart_only_who_showed_users_that_type_hears_that_nobody_does(
    app: Application,
    make_app: MakeApp,
    login: Login,
    room: MakeRoom,
    *,
    has_typed: bool,
    is_written: bool,
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice, bob), room(alice, bob)
    wanted = {"typing": ON}
    if has_typed:
        types(bob, room_id)
    pos = ask(alice, ask(alice, extensions=wanted)["pos"], extensions=wanted)["pos"]
    if is_written:
        homeserver = app.homeserver
        kept_states.write(homeserver.database, homeserver.sliding_connections, is_last=True)

    alice.client = bob.client = make_app().test_client()
    answer = request(alice, pos, extensions=wanted)
    found = answer.get_json() if is_written else ask(alice, extensions=wanted)
    types(bob, other)
    then = ask(alice, found["pos"], extensions=wanted)

    assert answer.status_code == (200 if is_written else 400)
    sent = {name: event["content"]["user_ids"] for name, event in rooms_of(found, "typing").items()}
    assert sent == ({room_id: [], other: []} if has_typed else {})
    assert list(rooms_of(then, "typing")) == [other]


def test_what_a_user_has_left_shows_no_typing_though_they_are_invited_again(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    lists = window(9, filters={"is_invite": False})
    wanted = dict.fromkeys(ROOM_EXTENSIONS, ON)
    pos = ask(bob, lists=lists, extensions=wanted)["pos"]
    bob.post(f"rooms/{quote(room_id)}/leave")
    alice.post(f"rooms/{quote(room_id)}/invite", json={"user_id": bob.user_id})
    types(alice, room_id)

    found = ask(bob, pos, lists=lists, extensions=wanted)

    assert found["lists"]["all"]["count"] == 0
    assert rooms_of(found, "typing") == rooms_of(found, "receipts") == {}


def test_account_data_that_was_deleted_is_sent_with_a_room_that_comes_anew(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    set_data(bob, "red", room_id)
    wanted = {"account_data": ON}
    pos = ask(bob, extensions=wanted)["pos"]
    path = f"user/{bob.user_id}/rooms/{quote(room_id)}/account_data/org.example.colour"
    assert bob.put(path, json={}).status_code == 200
    bob.post(f"rooms/{quote(room_id)}/leave")
    bob.post(f"rooms/{quote(room_id)}/join")

    found = ask(bob, pos, extensions=wanted)
    fresh = ask(bob, conn_id="fresh", extensions=wanted)

    assert found["rooms"][room_id]["initial"] is True
    sent = {it["type"]: it["content"] for it in rooms_of(found, "account_data")[room_id]}
    assert sent == {"org.example.colour": {}}
    assert room_id not in rooms_of(fresh, "account_data")
