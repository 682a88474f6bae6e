"""The members of a room: for those in it, those who were, and those who never were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Login, Person
from tests.helpers.rooms import refusal

Room = Callable[..., str]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


@pytest.fixture
def carol(login: Login) -> Person:
    return login("carol")


def members(person: Person, room_id: str, **query: Any) -> dict[str, str]:
    """What /members says: each user's membership."""
    answer = person.get(f"rooms/{room_id}/members", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    chunk = answer.get_json()["chunk"]
    assert {event["type"] for event in chunk} <= {"m.room.member"}
    assert {event["room_id"] for event in chunk} <= {room_id}
    return {event["state_key"]: event["content"]["membership"] for event in chunk}


def now(person: Person, room_id: str) -> str:
    """A token of this moment."""
    answer = person.get(f"rooms/{room_id}/messages?dir=b&limit=0")
    return str(answer.get_json()["start"])


def test_members_are_all_who_have_any_membership(
    alice: Person, bob: Person, carol: Person, room: Room
) -> None:
    room_id = room(alice, bob, carol)
    bob.post(f"rooms/{room_id}/leave")
    alice.post(f"rooms/{room_id}/ban", json={"user_id": carol.user_id})
    alice.post(f"rooms/{room_id}/invite", json={"user_id": "@dave:localhost"})

    assert members(alice, room_id) == {
        alice.user_id: "join",
        bob.user_id: "leave",
        carol.user_id: "ban",
        "@dave:localhost": "invite",
    }


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"membership": "join"}, ["alice"]),
        ({"membership": "leave"}, ["bob"]),
        ({"membership": "knock"}, []),
        ({"not_membership": "leave"}, ["alice", "carol"]),
        ({"membership": "leave", "not_membership": "join"}, ["bob", "carol"]),
    ],
)
def test_with_both_conditions_either_is_enough(
    alice: Person, bob: Person, carol: Person, room: Room, query: dict[str, str], names: list[str]
) -> None:
    room_id = room(alice, bob)
    bob.post(f"rooms/{room_id}/leave")
    alice.post(f"rooms/{room_id}/invite", json={"user_id": carol.user_id})

    assert sorted(members(alice, room_id, **query)) == [f"@{name}:localhost" for name in names]


def test_members_at_a_token_are_those_of_that_time(
    alice: Person, bob: Person, carol: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    then = now(alice, room_id)
    carol.post(f"rooms/{room_id}/join")
    bob.post(f"rooms/{room_id}/leave")

    assert members(alice, room_id, at=then) == {alice.user_id: "join", bob.user_id: "join"}
    assert members(alice, room_id, at=then, membership="leave") == {}
    assert members(alice, room_id, at=now(alice, room_id))[carol.user_id] == "join"


def test_members_at_the_first_prev_batch_of_a_room_are_its_creator(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    first = alice.sync()["rooms"]["join"][room_id]["timeline"]
    assert first["events"][0]["type"] == "m.room.create"
    bob.post(f"rooms/{room_id}/join")

    for person in (alice, bob):
        assert members(person, room_id, at=first["prev_batch"]) == {alice.user_id: "join"}
    assert members(alice, room_id, at=first["prev_batch"], membership="leave") == {}


def test_who_left_sees_the_members_of_their_leave(
    alice: Person, bob: Person, carol: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    before = now(bob, room_id)
    bob.post(f"rooms/{room_id}/leave")
    carol.post(f"rooms/{room_id}/join")
    after = now(alice, room_id)

    at_the_leave = {alice.user_id: "join", bob.user_id: "leave"}
    assert members(bob, room_id) == members(bob, room_id, at=after) == at_the_leave
    assert members(bob, room_id, at=before)[bob.user_id] == "join"


def test_a_time_that_is_hidden_shows_the_first_one_that_is_not(
    alice: Person, bob: Person, carol: Person, room: Room
) -> None:
    room_id = room(alice, carol)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = now(alice, room_id)
    carol.post(f"rooms/{room_id}/leave")
    bob.post(f"rooms/{room_id}/join")

    assert members(bob, room_id, at=hidden) == {
        alice.user_id: "join",
        bob.user_id: "join",
        carol.user_id: "leave",
    }
    assert members(alice, room_id, at=hidden)[carol.user_id] == "join"


@pytest.mark.parametrize("standing", ["stranger", "invited", "never in and banned"])
@pytest.mark.parametrize("path", ["members", "joined_members"])
def test_who_never_was_in_the_room_may_not_know_who_is(
    alice: Person, bob: Person, standing: str, path: str
) -> None:
    room_id = alice.create_room(preset="private_chat")
    if standing != "stranger":
        way = "invite" if standing == "invited" else "ban"
        alice.post(f"rooms/{room_id}/{way}", json={"user_id": bob.user_id})

    assert refusal(bob.get(f"rooms/{room_id}/{path}")) == (403, "M_FORBIDDEN")
    assert refusal(bob.get(f"rooms/!none:localhost/{path}")) == (403, "M_FORBIDDEN")


def test_joined_members_come_with_name_and_avatar(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    content = {"membership": "join", "displayname": "Bob!", "avatar_url": "mxc://localhost/b"}
    bob.set_state(room_id, "m.room.member", content, bob.user_id)
    alice.post(f"rooms/{room_id}/invite", json={"user_id": "@dave:localhost"})

    joined = alice.get(f"rooms/{room_id}/joined_members").get_json()["joined"]

    assert sorted(joined) == [alice.user_id, bob.user_id]
    assert joined[bob.user_id] == {"display_name": "Bob!", "avatar_url": "mxc://localhost/b"}


@pytest.mark.parametrize("content", [{}, {"displayname": 5, "avatar_url": {}}])
def test_a_joined_member_without_name_and_avatar_has_null_there(
    alice: Person, room: Room, content: dict[str, Any]
) -> None:
    room_id = room(alice)
    alice.delete(f"profile/{alice.user_id}/displayname")
    own = {"membership": "join", **content}
    assert alice.set_state(room_id, "m.room.member", own, alice.user_id).status_code == 200

    joined = alice.get(f"rooms/{room_id}/joined_members").get_json()["joined"]

    assert joined == {alice.user_id: {"display_name": None, "avatar_url": None}}


@pytest.mark.parametrize("way", ["leave", "ban"])
def test_who_left_may_not_ask_who_is_joined_now(
    alice: Person, bob: Person, room: Room, way: str
) -> None:
    room_id = room(alice, bob)
    who, body = (bob, {}) if way == "leave" else (alice, {"user_id": bob.user_id})
    who.post(f"rooms/{room_id}/{way}", json=body)

    assert refusal(bob.get(f"rooms/{room_id}/joined_members")) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "query", [{"membership": "x"}, {"not_membership": ""}, {"at": "x"}, {"at": "s" + "9" * 18}]
)
def test_conditions_that_make_no_sense_are_refused(
    alice: Person, room: Room, query: dict[str, str]
) -> None:
    answer = alice.get(f"rooms/{room(alice)}/members", query_string=query)

    assert refusal(answer) == (400, "M_INVALID_PARAM")
