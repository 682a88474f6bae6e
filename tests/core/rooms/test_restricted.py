"""Rooms that the members of other rooms may join: in each version, by the word of any server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, membership, refusal, state_of, unchanged

ALICE, BOB, CAROL = "@alice:localhost", "@bob:localhost", "@carol:localhost"
AUTHORISER = "join_authorised_via_users_server"
VERSIONS = ("8", "9", "10", "11", "12")
MakeRoom = Callable[..., str]


def restricted(person: Person, *allowed: str, rule: str = "restricted", **options: Any) -> str:
    """A room for the members of others."""
    allow = [{"type": "m.room_membership", "room_id": room_id} for room_id in allowed]
    content = {"join_rule": rule, "allow": allow}
    return person.create_room(
        initial_state=[{"type": "m.room.join_rules", "content": content}], **options
    )


def status(person: Person, room_id: str) -> int:
    return act(person, room_id, "join").status_code


@pytest.mark.parametrize("version", VERSIONS)
def test_in_each_version_a_member_of_the_other_room_comes_in(
    app: Application, login: Login, room: MakeRoom, version: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = restricted(alice, room(alice, bob), room_version=version)
    carol.get("account/whoami")

    with unchanged(app):
        refused = act(carol, room_id, "join")

    assert refusal(refused) == (403, "M_FORBIDDEN")
    assert status(bob, room_id) == 200
    assert membership(bob, room_id, BOB)[AUTHORISER] == ALICE


@pytest.mark.parametrize("version", ["10", "11", "12"])
def test_where_one_may_knock_as_well_strangers_do(
    login: Login, room: MakeRoom, version: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    space = room(alice, bob)
    room_id = restricted(alice, space, rule="knock_restricted", room_version=version)

    assert status(carol, room_id) == 403
    assert carol.post(f"knock/{quote(room_id)}").status_code == 200
    assert act(alice, room_id, "invite", user_id=CAROL).status_code == 200
    assert status(carol, room_id) == 200
    assert AUTHORISER not in membership(carol, room_id, CAROL)
    assert status(bob, room_id) == 200


@pytest.mark.parametrize(("version", "rule"), [("7", "restricted"), ("9", "knock_restricted")])
def test_where_the_version_does_not_know_the_rule_nobody_comes_in(
    login: Login, room: MakeRoom, version: str, rule: str
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = restricted(alice, room(alice, bob), rule=rule, room_version=version, invite=[BOB])

    assert status(bob, room_id) == 403


@pytest.mark.parametrize("version", ["8", "12"])
def test_when_who_vouched_leaves_another_does_and_the_joined_stay(
    login: Login, room: MakeRoom, version: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = restricted(
        alice,
        room(alice, bob, carol),
        room_version=version,
        power_level_content_override={
            "invite": 50,
            "users": {BOB: 50} if version == "12" else {ALICE: 100, BOB: 50},
        },
    )
    assert status(bob, room_id) == 200

    act(alice, room_id, "leave")

    assert membership(bob, room_id, BOB)["membership"] == "join"
    assert bob.send(room_id)
    assert status(carol, room_id) == 200
    assert membership(carol, room_id, CAROL)[AUTHORISER] == BOB


def test_when_nobody_is_left_who_could_invite_nobody_comes_in(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = restricted(
        alice, room(alice, bob, carol), power_level_content_override={"invite": 50}
    )
    status(bob, room_id)

    act(alice, room_id, "leave")

    assert refusal(act(carol, room_id, "join")) == (403, "M_FORBIDDEN")


def test_any_one_of_the_rooms_will_do(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = restricted(alice, "!far:example.org", room(alice), room(alice, bob))

    assert status(bob, room_id) == 200


def test_who_has_left_the_other_room_comes_in_no_more_but_may_stay(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    space = room(alice, bob, carol)
    room_id = restricted(alice, space)
    status(bob, room_id)

    for person in (bob, carol):
        act(person, space, "leave")

    assert status(carol, room_id) == 403
    assert bob.send(room_id)
    act(bob, room_id, "leave")
    assert status(bob, room_id) == 403


def test_an_invite_to_the_other_room_is_not_enough(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    space = room(alice)
    act(alice, space, "invite", user_id=BOB)
    room_id = restricted(alice, space)

    assert status(bob, room_id) == 403


def test_a_ban_counts_more_than_the_other_room(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = restricted(alice, room(alice, bob))
    act(alice, room_id, "ban", user_id=BOB)

    assert refusal(act(bob, room_id, "join")) == (403, "M_FORBIDDEN")


def test_nobody_vouches_for_themselves(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = restricted(alice, room(alice))
    content = {"membership": "join", AUTHORISER: ALICE}

    answer = bob.set_state(room_id, "m.room.member", content, BOB)

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_name_is_no_new_join(login: Login, room: MakeRoom, version: str) -> None:
    alice, bob = login("alice"), login("bob")
    space = room(alice, bob)
    room_id = restricted(alice, space, room_version=version)
    status(bob, room_id)
    act(bob, space, "leave")

    bob.put(f"profile/{BOB}/displayname", json={"displayname": "Bobby"})

    assert membership(bob, room_id, BOB) == {"membership": "join", "displayname": "Bobby"}


@pytest.mark.parametrize(
    "allow",
    [
        None,
        "x",
        [],
        [1],
        [{"type": "m.room_membership"}],
        [{"type": "m.room_membership", "room_id": 1}],
        [{"type": "org.example.age", "years": 18}],
    ],
)
def test_conditions_that_nobody_understands_let_nobody_in(login: Login, allow: Any) -> None:
    alice, bob = login("alice"), login("bob")
    content: Json = {"join_rule": "restricted"} | ({} if allow is None else {"allow": allow})
    room_id = alice.create_room(initial_state=[{"type": "m.room.join_rules", "content": content}])

    assert status(bob, room_id) == 403


def test_a_room_of_a_space_is_one_step_from_its_hierarchy(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    space = alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
    room_id = restricted(alice, space, name="Kitchen")
    alice.set_state(space, "m.space.child", {"via": ["localhost"]}, room_id)
    path = f"/_matrix/client/v1/rooms/{quote(space)}/hierarchy"
    before = [it["room_id"] for it in bob.get(path).get_json()["rooms"]]

    act(bob, space, "join")

    after = bob.get(path).get_json()["rooms"]
    assert before == [space]
    assert [it["room_id"] for it in after] == [space, room_id]
    assert (after[1]["join_rule"], after[1]["allowed_room_ids"]) == ("restricted", [space])
    assert status(bob, room_id) == 200


def test_after_an_upgrade_the_same_people_may_come_in(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    space = room(alice, bob)
    old = restricted(alice, space, room_version="8")
    new = act(alice, old, "upgrade", new_version="12").get_json()["replacement_room"]

    assert status(bob, new) == 200
    assert state_of(bob, new)["m.room.member", BOB][AUTHORISER] == ALICE
