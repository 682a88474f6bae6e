"""What the admin API tells of a user: rooms, invites, account data, experimental features."""

from __future__ import annotations

import time
from typing import Any

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import act, refusal, unchanged

V1 = "/_synapse/admin/v1"


def test_rooms_and_memberships(admin: Person, alice: Person, login: Login, room: Any) -> None:
    bob = login("bob")
    joined, left, invited = room(alice), room(bob, alice), bob.create_room(invite=[alice.user_id])
    act(alice, left, "leave")

    rooms = admin.get(f"{V1}/users/{alice.user_id}/joined_rooms").get_json()
    memberships = admin.get(f"{V1}/users/{alice.user_id}/memberships").get_json()

    assert rooms == {"joined_rooms": [joined], "total": 1}
    assert memberships == {"memberships": {joined: "join", left: "leave", invited: "invite"}}


@pytest.mark.parametrize("user_id", ["@nobody:localhost", "@bob:elsewhere.example"])
def test_unknown_users_are_in_no_rooms(admin: Person, user_id: str) -> None:
    path = f"{V1}/users/{user_id}"

    assert admin.get(f"{path}/joined_rooms").get_json() == {"joined_rooms": [], "total": 0}
    assert admin.get(f"{path}/memberships").get_json() == {"memberships": {}}


def test_invites_and_joins_are_counted_from_a_time_on(
    admin: Person, alice: Person, login: Login, room: Any
) -> None:
    bob = login("bob")
    first, second = room(alice), room(bob, alice)
    for target in ("@carol:localhost", "@dora:localhost"):
        act(alice, first, "invite", user_id=target)
        act(bob, second, "invite", user_id=target)
    act(alice, second, "leave")
    act(alice, second, "join")
    act(alice, second, "leave")
    later = time.time_ns() // 1_000_000 + 1000

    def count(name: str, from_ts: int) -> Any:
        answer = admin.get(f"{V1}/users/{alice.user_id}/{name}", query_string={"from_ts": from_ts})
        assert answer.status_code == 200, answer.get_json()
        return answer.get_json()

    assert count("sent_invite_count", 0) == {"invite_count": 2}
    assert count("sent_invite_count", later) == {"invite_count": 0}
    assert count("cumulative_joined_room_count", 0) == {"cumulative_joined_room_count": 2}
    assert count("cumulative_joined_room_count", later) == {"cumulative_joined_room_count": 0}


@pytest.mark.parametrize("name", ["sent_invite_count", "cumulative_joined_room_count"])
@pytest.mark.parametrize(
    ("query", "code"),
    [({}, "M_MISSING_PARAM"), ({"from_ts": "x"}, "M_INVALID_PARAM")],
)
def test_counts_need_a_time(
    admin: Person, alice: Person, name: str, query: dict[str, str], code: str
) -> None:
    answer = admin.get(f"{V1}/users/{alice.user_id}/{name}", query_string=query)

    assert refusal(answer) == (400, code)


def test_account_data_is_that_of_the_user_and_the_rooms(
    admin: Person, alice: Person, room: Any
) -> None:
    path = f"{V1}/users/{alice.user_id}/accountdata"
    room_id = room(alice)
    none = admin.get(path).get_json()
    alice.put(f"user/{alice.user_id}/account_data/org.example.a", json={"a": 1})
    alice.put(f"user/{alice.user_id}/rooms/{room_id}/account_data/org.example.b", json={"b": 2})

    found = admin.get(path).get_json()

    assert none == {"account_data": {"global": {}, "rooms": {}}}
    assert found["account_data"] == {
        "global": {"org.example.a": {"a": 1}},
        "rooms": {room_id: {"org.example.b": {"b": 2}}},
    }


def test_experimental_features_are_kept(admin: Person, alice: Person) -> None:
    path = f"{V1}/experimental_features/{alice.user_id}"

    before = admin.get(path).get_json()
    put = admin.put(path, json={"features": {"msc3881": True, "msc4222": True}})
    admin.put(path, json={"features": {"msc4222": False}})

    off = {"msc3881": False, "msc3575": False, "msc4222": False}
    assert before == {"features": off}
    assert put.get_json() == {}
    assert admin.get(path).get_json() == {"features": {**off, "msc3881": True}}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"features": {}},
        {"features": {"msc1": True}},
        {"features": {"msc3881": 1}},
        {"features": {"msc3881": True, "msc1": True}},
        {"features": ["msc3881"]},
    ],
)
def test_unknown_features_change_nothing(
    app: Application, admin: Person, alice: Person, body: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = admin.put(f"{V1}/experimental_features/{alice.user_id}", json=body)

    assert answer.status_code == 400
