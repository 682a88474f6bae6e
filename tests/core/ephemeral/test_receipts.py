"""Receipts and read markers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, in_thread, refusal, unchanged

Room = Callable[..., str]
READ, PRIVATE, FULLY = "m.read", "m.read.private", "m.fully_read"


def read(person: Person, room_id: str, event_id: str, kind: str = READ, **body: Any) -> Any:
    return person.post(f"rooms/{room_id}/receipt/{kind}/{quote(event_id, safe='')}", json=body)


def seen(sync: Json, room_id: str) -> Json:
    """{event ID: {kind: {user: thread, "" where it names none}}} of an answer of /sync."""
    room = sync["rooms"]["join"].get(room_id, {"ephemeral": {"events": []}})
    found: Json = {}
    for event in room["ephemeral"]["events"]:
        if event["type"] == "m.receipt":
            for event_id, kinds in event["content"].items():
                for kind, users in kinds.items():
                    for user_id, receipt in users.items():
                        assert isinstance(receipt["ts"], int)
                        receipts = found.setdefault(event_id, {}).setdefault(kind, {})
                        receipts[user_id] = receipt.get("thread_id", "")
    return found


def marker(person: Person, room_id: str) -> Any:
    path = f"user/{person.user_id}/rooms/{room_id}/account_data/{FULLY}"
    return person.get(path).get_json().get("event_id")


def test_a_receipt_is_shown_to_the_room_once(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    token = alice.sync()["next_batch"]

    answer = read(bob, room_id, event_id)

    assert (answer.status_code, answer.get_json()) == (200, {})
    news = alice.sync(token)
    assert seen(news, room_id) == {event_id: {READ: {bob.user_id: ""}}}
    assert seen(alice.sync(news["next_batch"]), room_id) == {}
    assert seen(alice.sync(), room_id) == {event_id: {READ: {bob.user_id: ""}}}


def test_a_receipt_moves_forward_only(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    first, second = alice.send(room_id), alice.send(room_id)
    read(bob, room_id, second)
    token = alice.sync()["next_batch"]

    answers = [read(bob, room_id, event_id) for event_id in (first, second)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert seen(alice.sync(token), room_id) == {}
    assert seen(alice.sync(), room_id) == {second: {READ: {bob.user_id: ""}}}


def test_a_private_receipt_is_shown_to_its_user_alone(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    tokens = [person.sync()["next_batch"] for person in (alice, bob)]

    read(bob, room_id, event_id, PRIVATE)

    own = {event_id: {PRIVATE: {bob.user_id: ""}}}
    assert seen(alice.sync(tokens[0]), room_id) == {}
    assert seen(alice.sync(), room_id) == {}
    assert seen(bob.sync(tokens[1]), room_id) == own
    assert seen(bob.sync(), room_id) == own


def test_public_and_private_receipts_move_apart(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    first, second = alice.send(room_id), alice.send(room_id)
    read(bob, room_id, second, PRIVATE)

    read(bob, room_id, first)

    assert seen(bob.sync(), room_id) == {
        first: {READ: {bob.user_id: ""}},
        second: {PRIVATE: {bob.user_id: ""}},
    }


def test_each_thread_has_a_receipt_of_its_own(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)
    later = alice.send(room_id)

    answers = [
        read(bob, room_id, later, thread_id="main"),
        read(bob, room_id, reply, thread_id=root),
        read(bob, room_id, root),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert seen(alice.sync(), room_id) == {
        later: {READ: {bob.user_id: "main"}},
        reply: {READ: {bob.user_id: root}},
        root: {READ: {bob.user_id: ""}},
    }


def test_of_two_for_one_event_the_one_for_the_whole_room_is_shown(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = alice.send(room_id)

    read(bob, room_id, event_id)
    read(bob, room_id, event_id, thread_id="main")

    assert seen(alice.sync(), room_id) == {event_id: {READ: {bob.user_id: ""}}}


def test_the_root_and_reactions_to_it_are_in_the_main_timeline(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    in_thread(alice, room_id, root)
    relation = {"rel_type": "m.annotation", "event_id": root, "key": "x"}
    reaction = alice.post(
        f"rooms/{room_id}/send/m.reaction", json={"m.relates_to": relation}
    ).get_json()["event_id"]

    answers = [
        read(bob, room_id, root, thread_id="main"),
        read(bob, room_id, root, thread_id=root),
        read(bob, room_id, reaction, thread_id="main"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_what_relates_to_a_root_may_be_read_in_its_thread(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    in_thread(alice, room_id, root)
    said = alice.send(room_id, "by the way", **relating(root, "m.reference"))
    last = alice.send(room_id, "so do I", **relating(said, "m.annotation"))

    answers = [read(bob, room_id, last, thread_id=it) for it in (root, "main", said)]

    assert [answer.status_code for answer in answers] == [200, 200, 400]
    assert set(seen(alice.sync(), room_id)) == {last}


def relating(event_id: str, rel_type: str) -> Json:
    return {"m.relates_to": {"event_id": event_id, "rel_type": rel_type}}


@pytest.mark.parametrize("thread_id", ["", None, 5, ["main"], "$other"])
def test_a_thread_must_be_the_events_own(
    app: Application, login: Login, room: Room, thread_id: Any
) -> None:
    alice = login("alice")
    room_id = room(alice)
    event_id = alice.send(room_id)

    with unchanged(app):
        answer = read(alice, room_id, event_id, thread_id=thread_id)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_reply_in_a_thread_is_not_in_the_main_timeline(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    reply = in_thread(alice, room_id, alice.send(room_id))

    with unchanged(app):
        answer = read(alice, room_id, reply, thread_id="main")

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_the_read_marker_is_account_data(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    first, second = alice.send(room_id), alice.send(room_id)
    token = bob.sync()["next_batch"]

    read(bob, room_id, second, FULLY)
    read(bob, room_id, first, FULLY)

    news = bob.sync(token)["rooms"]["join"][room_id]
    assert news["account_data"]["events"] == [{"type": FULLY, "content": {"event_id": second}}]
    assert news["ephemeral"]["events"] == []
    assert marker(bob, room_id) == second


def test_read_markers_sets_all_three_at_once(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    events = [alice.send(room_id) for _ in range(3)]

    answer = act(
        bob, room_id, "read_markers", **dict(zip((FULLY, READ, PRIVATE), events, strict=True))
    )

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert marker(bob, room_id) == events[0]
    assert seen(bob.sync(), room_id) == {
        events[1]: {READ: {bob.user_id: ""}},
        events[2]: {PRIVATE: {bob.user_id: ""}},
    }


def test_read_markers_takes_any_of_them_and_all_or_nothing(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    event_id = alice.send(room_id)

    with unchanged(app):
        nothing = act(alice, room_id, "read_markers")
        half = act(alice, room_id, "read_markers", **{READ: event_id, FULLY: "$nowhere"})
        wrong = act(alice, room_id, "read_markers", **{READ: 5})

    assert nothing.status_code == 200
    assert refusal(half) == (404, "M_NOT_FOUND")
    assert refusal(wrong) == (400, "M_BAD_JSON")


def test_what_does_not_exist_or_fit_is_refused(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    here, elsewhere = room(alice), room(alice)
    event_id, other = alice.send(here), alice.send(elsewhere)

    with unchanged(app):
        answers = [
            read(alice, here, "$nowhere"),
            read(alice, here, other),
            read(bob, here, event_id),
            read(alice, "!nowhere:localhost", event_id),
            read(alice, here, event_id, "m.seen"),
            read(alice, here, event_id, FULLY, thread_id="main"),
        ]

    assert [refusal(answer) for answer in answers] == [
        *[(404, "M_NOT_FOUND")] * 2,
        *[(403, "M_FORBIDDEN")] * 2,
        *[(400, "M_INVALID_PARAM")] * 2,
    ]


def test_who_may_not_see_an_event_cannot_learn_that_it_exists(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = alice.send(room_id)
    act(bob, room_id, "join")

    with unchanged(app):
        answer = read(bob, room_id, hidden)

    assert refusal(answer) == (404, "M_NOT_FOUND")


SETTINGS = [("joined", False), ("invited", False), ("shared", True), ("world_readable", True)]


@pytest.mark.parametrize(("setting", "is_shown"), SETTINGS)
def test_a_newcomer_sees_receipts_of_what_they_may_see(
    login: Login, room: Room, setting: str, is_shown: bool
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": setting})
    before = alice.send(room_id)
    read(bob, room_id, before)
    token = carol.sync()["next_batch"]
    carol.post(f"rooms/{room_id}/join")

    first, next_ = seen(carol.sync(), room_id), carol.sync(token)
    read(alice, room_id, before)
    later = seen(carol.sync(next_["next_batch"]), room_id)

    assert first == seen(next_, room_id)
    assert first == ({before: {READ: {bob.user_id: ""}}} if is_shown else {})
    assert later == ({before: {READ: {alice.user_id: ""}}} if is_shown else {})


def test_a_newcomer_sees_receipts_of_what_came_after_the_join(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    read(bob, room_id, alice.send(room_id))
    carol.post(f"rooms/{room_id}/join")
    after = alice.send(room_id)

    read(alice, room_id, after)
    read(carol, room_id, after)

    assert seen(carol.sync(), room_id) == {after: {READ: {alice.user_id: "", carol.user_id: ""}}}


def test_who_comes_back_still_sees_their_own_receipt(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    act(bob, room_id, "leave")
    missed = alice.send(room_id)
    read(alice, room_id, missed)
    bob.post(f"rooms/{room_id}/join")
    known = alice.send(room_id)
    read(bob, room_id, known)

    assert seen(bob.sync(), room_id) == {known: {READ: {bob.user_id: ""}}}


def test_who_joins_sees_the_receipts_that_are_there(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    event_id = alice.send(room_id)
    read(alice, room_id, event_id)
    token = bob.sync()["next_batch"]

    act(bob, room_id, "join")

    assert seen(bob.sync(token), room_id) == {event_id: {READ: {alice.user_id: ""}}}
