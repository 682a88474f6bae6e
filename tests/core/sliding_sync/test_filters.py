"""Filters of lists in sliding sync."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.conftest import Login, Person
from tests.helpers.sliding import Json, ask, window

MakeRoom = Callable[..., str]
ENCRYPTED = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


def listed(person: Person, **filters: object) -> set[str]:
    """Return the rooms of a list with these filters on a new connection."""
    found = ask(person, lists=window(99, filters=filters))
    assert found["lists"]["all"]["count"] == len(found["rooms"])
    return set(found["rooms"])


def tag(person: Person, room_id: str, name: str) -> None:
    path = f"user/{person.user_id}/rooms/{quote(room_id)}/tags/{name}"
    assert person.put(path, json={}).status_code == 200


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def test_encrypted_rooms_are_those_with_the_state_event(alice: Person) -> None:
    secret = alice.create_room(initial_state=[ENCRYPTED])
    plain = alice.create_room()

    assert listed(alice, is_encrypted=True) == {secret}
    assert listed(alice, is_encrypted=False) == {plain}
    assert listed(alice, is_encrypted=None) == {secret, plain}


def test_a_room_that_is_encrypted_from_now_on_comes_into_the_list(alice: Person) -> None:
    room_id = alice.create_room()
    wanted = window(9, filters={"is_encrypted": True})
    first = ask(alice, lists=wanted)
    alice.set_state(room_id, "m.room.encryption", ENCRYPTED["content"])  # type: ignore[arg-type]  # a dict

    found = ask(alice, first["pos"], lists=wanted)

    assert (first["rooms"], first["lists"]["all"]["count"]) == ({}, 0)
    assert (list(found["rooms"]), found["lists"]["all"]["count"]) == ([room_id], 1)


def test_rooms_for_two_are_those_of_the_account_data(alice: Person) -> None:
    for_two, other = alice.create_room(), alice.create_room()
    content = {"@bob:localhost": [for_two, "!unknown:localhost"]}
    alice.put(f"user/{alice.user_id}/account_data/m.direct", json=content)

    assert listed(alice, is_dm=True) == {for_two}
    assert listed(alice, is_dm=False) == {other}


def test_a_room_that_becomes_one_for_two_moves_between_lists(alice: Person) -> None:
    room_id = alice.create_room()
    wanted = {
        "two": window(9, filters={"is_dm": True})["all"],
        "many": window(9, filters={"is_dm": False})["all"],
    }
    first = ask(alice, lists=wanted)
    content = {"@bob:localhost": [room_id]}
    alice.put(f"user/{alice.user_id}/account_data/m.direct", json=content)

    found = ask(alice, first["pos"], lists=wanted)

    assert first["lists"] == {"two": {"count": 0}, "many": {"count": 1}}
    assert found["lists"] == {"two": {"count": 1}, "many": {"count": 0}}
    assert found["rooms"][room_id]["is_dm"] is True


def test_invites_are_a_list_of_their_own(alice: Person, login: Login) -> None:
    mine = alice.create_room()
    invite = login("bob").create_room(invite=[alice.user_id])

    assert listed(alice, is_invite=True) == {invite}
    assert listed(alice, is_invite=False) == {mine}
    assert listed(alice) == {mine, invite}


def test_types_of_rooms_are_admitted_and_refused(alice: Person) -> None:
    space = alice.create_room(creation_content={"type": "m.space"})
    odd = alice.create_room(creation_content={"type": "org.example.odd"})
    plain = alice.create_room()

    assert listed(alice, room_types=["m.space"]) == {space}
    assert listed(alice, room_types=[None]) == {plain}
    assert listed(alice, room_types=["m.space", None]) == {space, plain}
    assert listed(alice, room_types=[]) == set()
    assert listed(alice, not_room_types=["m.space"]) == {odd, plain}
    assert listed(alice, not_room_types=[None]) == {space, odd}
    assert listed(alice, room_types=["m.space", None], not_room_types=["m.space"]) == {plain}


def test_tags_are_admitted_and_refused(alice: Person) -> None:
    dear, far, both, plain = (alice.create_room() for _ in range(4))
    for room_id, name in ((dear, "dear"), (far, "far"), (both, "dear"), (both, "far")):
        tag(alice, room_id, name)

    assert listed(alice, tags=["dear"]) == {dear, both}
    assert listed(alice, tags=["dear", "far"]) == {dear, far, both}
    assert listed(alice, not_tags=["far"]) == {dear, plain}
    assert listed(alice, tags=["dear"], not_tags=["far"]) == {dear}


def test_a_new_tag_moves_a_room_and_nonsense_in_place_of_tags_is_none(alice: Person) -> None:
    room_id = alice.create_room()
    wanted = window(9, filters={"tags": ["dear"]})
    first = ask(alice, lists=wanted)
    tag(alice, room_id, "dear")
    tagged = ask(alice, first["pos"], lists=wanted)
    path = f"user/{alice.user_id}/rooms/{quote(room_id)}/account_data/m.tag"
    alice.put(path, json={"tags": "dear"})
    broken = ask(alice, tagged["pos"], lists=wanted)

    counts = [answer["lists"]["all"]["count"] for answer in (first, tagged, broken)]
    assert counts == [0, 1, 0]
    assert list(tagged["rooms"]) == [room_id]


def test_rooms_of_a_space_are_those_that_it_names(alice: Person, login: Login) -> None:
    space = alice.create_room(creation_content={"type": "m.space"})
    inside, taken_out, _outside = (alice.create_room() for _ in range(3))
    others = login("bob").create_room(creation_content={"type": "m.space"})
    for room_id in (inside, taken_out):
        alice.set_state(space, "m.space.child", {"via": ["localhost"]}, room_id)
    alice.set_state(space, "m.space.child", {}, taken_out)

    assert listed(alice, spaces=[space]) == {inside}
    assert listed(alice, spaces=[others]) == set()
    assert listed(alice, spaces=[others, space]) == {inside}


def test_a_name_may_be_searched_for_in_part(alice: Person) -> None:
    kitchen = alice.create_room(name="Kitchen")
    hen_house = alice.create_room(name="The HEN house")
    alice.create_room()

    assert listed(alice, room_name_like="hen") == {kitchen, hen_house}
    assert listed(alice, room_name_like="KITCHEN") == {kitchen}


def test_who_was_kicked_finds_the_room_by_the_name_it_had(
    alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, bob, name="Before")
    alice.post(f"rooms/{quote(room_id)}/kick", json={"user_id": bob.user_id})
    alice.set_state(room_id, "m.room.name", {"name": "After"})

    assert listed(bob, room_name_like="before") == {room_id}
    assert listed(bob, room_name_like="after") == set()


def test_a_window_counts_only_what_its_filter_admits(alice: Person) -> None:
    rooms = [alice.create_room(name=f"Tea {number}") for number in range(3)]
    alice.create_room(name="Coffee")
    wanted: Json = window(1, filters={"room_name_like": "tea"})

    found = ask(alice, lists=wanted)

    assert found["lists"]["all"]["count"] == 3
    assert list(found["rooms"]) == [rooms[2], rooms[1]]
