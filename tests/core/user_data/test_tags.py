"""Tags of rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, refusal, unchanged

Room = Callable[..., str]


def path(room_id: str, tag: str | None = None) -> str:
    above = f"user/@alice:localhost/rooms/{room_id}/tags"
    return above if tag is None else f"{above}/{quote(tag, safe='')}"


def tags(person: Person, room_id: str) -> Json:
    found: Json = person.get(path(room_id)).get_json()
    return found


def test_a_room_has_no_tags_at_first(login: Login, room: Room) -> None:
    alice = login("alice")

    assert tags(alice, room(alice)) == {"tags": {}}


def test_tags_are_added_changed_and_taken_away(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    for tag, information in [
        ("m.favourite", {"order": 0.5}),
        ("u.work/küche", {}),
        ("m.lowpriority", {"order": 1}),
        ("m.favourite", {"order": 0.1, "org.example.x": [1]}),
    ]:
        answer = alice.put(path(room_id, tag), json=information)
        assert (answer.status_code, answer.get_json()) == (200, {})
    removed = alice.delete(path(room_id, "m.lowpriority"))

    assert (removed.status_code, removed.get_json()) == (200, {})
    assert tags(alice, room_id) == {
        "tags": {"m.favourite": {"order": 0.1, "org.example.x": [1]}, "u.work/küche": {}}
    }


def test_sync_tells_all_tags_of_the_room_that_changed(login: Login, room: Room) -> None:
    alice = login("alice")
    first, second = room(alice), room(alice)
    alice.put(path(first, "u.a"), json={})
    token = alice.sync()["next_batch"]
    alice.put(path(first, "u.b"), json={"order": 0.2})

    rooms = alice.sync(token)["rooms"]["join"]

    assert rooms[first]["account_data"]["events"] == [
        {"type": "m.tag", "content": {"tags": {"u.a": {}, "u.b": {"order": 0.2}}}}
    ]
    assert second not in rooms


def test_taking_away_what_is_not_there_changes_nothing(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answer = alice.delete(path(room_id, "u.a"))

    assert answer.status_code == 200


@pytest.mark.parametrize("order", [1.1, -0.1, "0.5", True, None, [0.5]])
def test_an_order_is_a_number_from_0_to_1(
    app: Application, login: Login, room: Room, order: Any
) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answer = alice.put(path(room_id, "u.a"), json={"order": order})

    assert refusal(answer) == (400, "M_BAD_JSON")


def test_a_long_tag_a_wrong_room_and_another_user_are_refused(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)

    with unchanged(app):
        answers = [
            alice.put(path(room_id, "ü" * 128), json={}),
            alice.put(path("nowhere", "u.a"), json={}),
            bob.put(path(room_id, "u.a"), json={}),
            bob.delete(path(room_id, "u.a")),
            bob.get(path(room_id)),
        ]

    assert [refusal(answer) for answer in answers] == [
        *[(400, "M_INVALID_PARAM")] * 2,
        *[(403, "M_FORBIDDEN")] * 3,
    ]


def test_nonsense_that_a_client_wrote_as_m_tag_is_no_tags(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    whole = f"user/@alice:localhost/rooms/{room_id}/account_data/m.tag"
    alice.put(whole, json={"tags": ["u.a"]})

    before = tags(alice, room_id)
    alice.put(path(room_id, "u.b"), json={})

    assert before == {"tags": {}}
    assert alice.get(whole).get_json() == {"tags": {"u.b": {}}}
