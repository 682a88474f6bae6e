"""The rooms that two users share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homebody.core.rooms import mutual_rooms
from tests.conftest import Login
from tests.helpers.rooms import act, refusal

PATH = "/_matrix/client/v1/mutual_rooms"
Room = Callable[..., str]


def test_the_rooms_of_both_are_listed(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    shared = sorted([room(alice, bob), room(bob, alice)])
    room(alice)
    left = room(alice, bob)
    act(bob, left, "leave")

    answer = alice.get(PATH, query_string={"user_id": bob.user_id})

    assert answer.get_json() == {"joined": shared, "count": 2}


def test_long_lists_come_in_pages(
    login: Login, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutual_rooms, "MAX_ROOMS", 2)
    alice, bob = login("alice"), login("bob")
    shared = sorted(room(alice, bob) for _ in range(5))

    pages, query = [], {"user_id": bob.user_id}
    while True:
        answer = alice.get(PATH, query_string=query).get_json()
        pages.append(answer["joined"])
        assert answer["count"] == 5
        if "next_batch" not in answer:
            break
        query["from"] = answer["next_batch"]

    assert pages == [shared[:2], shared[2:4], shared[4:]]


def test_matrix_js_sdk_asks_under_the_older_name(
    login: Login, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutual_rooms, "MAX_ROOMS", 1)
    alice, bob = login("alice"), login("bob")
    shared = sorted(room(alice, bob) for _ in range(2))
    path = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"
    query = {"user_id": bob.user_id}

    first = alice.get(path, query_string=query).get_json()
    token = first["next_batch_token"]
    second = alice.get(path, query_string={**query, "batch_token": token}).get_json()

    assert [first["joined"], second["joined"]] == [shared[:1], shared[1:]]
    assert "next_batch_token" not in second


def test_an_unknown_user_shares_nothing(login: Login, room: Room) -> None:
    alice = login("alice")
    room(alice)

    answer = alice.get(PATH, query_string={"user_id": "@nobody:localhost"})

    assert answer.get_json() == {"joined": [], "count": 0}


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"user_id": "bob"}, "M_INVALID_PARAM"),
        ({"user_id": "@alice:localhost"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:localhost", "from": "x"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:localhost", "from": "ä"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:localhost", "from": ""}, "M_INVALID_PARAM"),
    ],
)
def test_bad_questions_are_refused(login: Login, query: dict[str, str], errcode: str) -> None:
    assert refusal(login("alice").get(PATH, query_string=query)) == (400, errcode)
