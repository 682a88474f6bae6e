"""What suspended users may still do: a change is refused unless its view allows it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.rooms import act, membership, refusal
from tests.tools import routes

SUSPENDED = (403, "M_USER_SUSPENDED")


@pytest.fixture
def suspended(login: Login) -> Any:
    """`suspended(bob)`: the first account of the server, its administrator, suspends him."""
    admin = login("owner")

    def suspend(person: Person) -> None:
        path = f"/_matrix/client/v1/admin/suspend/{person.user_id}"
        assert admin.put(path, json={"suspended": True}).status_code == 200

    return suspend


def test_whatever_a_view_does_not_allow_is_refused(
    app: Application, login: Login, suspended: Any
) -> None:
    bob = login("bob")
    suspended(bob)
    asked = [
        (route.method, re.sub("<[^>]*>", "x", route.path))
        for route in routes.routes(app)
        if not route.may_suspended and route.access.authentication != "browser"
    ]

    answers = {(method, path): bob.request(method, path, json={}) for method, path in asked}

    assert len(asked) > 20
    assert {it: refusal(answers[it]) for it in asked} == dict.fromkeys(asked, SUSPENDED)


def test_files_aliases_and_the_directory_are_closed(
    login: Login, room: Any, suspended: Any
) -> None:
    bob = login("bob")
    room_id = room(bob, room_alias_name="mine")
    media_id = bob.post("/_matrix/media/v1/create").get_json()["content_uri"].rpartition("/")[2]
    suspended(bob)

    answers = [
        bob.post("/_matrix/media/v3/upload", data=b"picture", json=None),
        bob.post("/_matrix/media/v1/create"),
        bob.put(f"/_matrix/media/v3/upload/localhost/{media_id}", data=b"picture"),
        bob.put("directory/room/%23new:localhost", json={"room_id": room_id}),
        bob.delete("directory/room/%23mine:localhost"),
        bob.put(f"directory/list/room/{quote(room_id)}", json={"visibility": "public"}),
        bob.put(f"rooms/{quote(room_id)}/typing/{bob.user_id}", json={"typing": True}),
        bob.put(f"presence/{bob.user_id}/status", json={"presence": "online", "status_msg": "x"}),
        bob.post("account/3pid/delete", json={"medium": "email", "address": "bob@example.org"}),
        bob.request("PUT", f"/matrix/client/api/v1/join/{quote(room_id)}", json={}),
    ]

    assert [refusal(answer) for answer in answers] == [SUSPENDED] * len(answers)
    found = bob.get("directory/room/%23mine:localhost").get_json()
    assert found["room_id"] == room_id


def test_what_only_the_user_sees_and_encryption_stay_open(
    login: Login, room: Any, suspended: Any
) -> None:
    bob = login("bob")
    room_id = room(bob)
    event_id = bob.send(room_id)
    suspended(bob)
    message: Any = {"messages": {bob.user_id: {"*": {}}}}

    answers = [
        bob.put(f"user/{bob.user_id}/account_data/m.cross_signing.master", json={"a": 1}),
        bob.post(f"rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}"),
        bob.put("sendToDevice/m.key.verification.start/1", json=message),
        bob.post("keys/query", json={"device_keys": {bob.user_id: []}}),
        bob.post("keys/upload", json={"fallback_keys": {}}),
        bob.put(f"devices/{bob.device_id}", json={"display_name": "Laptop"}),
        bob.post("search", json={"search_categories": {}}),
        bob.post(f"rooms/{quote(room_id)}/report", json={"reason": "help"}),
    ]

    assert [answer.status_code for answer in answers] == [200] * len(answers)


@pytest.mark.parametrize("how", ["state", "leave"])
def test_leaving_is_open_by_both_ways_and_nothing_else_of_state(
    login: Login, room: Any, suspended: Any, how: str
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    member = f"rooms/{quote(room_id)}/state/m.room.member/{bob.user_id}"
    suspended(bob)

    renamed = bob.put(member, json={"membership": "join", "displayname": "New"})
    if how == "state":
        left = bob.put(member, json={"membership": "leave"})
    else:
        left = act(bob, room_id, "leave")

    assert refusal(renamed) == SUSPENDED
    assert left.status_code == 200
    assert membership(alice, room_id, bob.user_id)["membership"] == "leave"


def test_a_suspended_account_can_be_closed(login: Login, suspended: Any) -> None:
    bob = login("bob")
    suspended(bob)
    auth = {"type": "m.login.password", "password": PASSWORD}

    assert bob.post("account/deactivate", json={"auth": auth}).status_code == 200
