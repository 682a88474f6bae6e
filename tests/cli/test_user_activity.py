"""The commands that print what a user does and has set, and the devices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import Result

from homebody.core import audit
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import act

ADMIN = "/_synapse/admin"
Command = Callable[..., Result]
Printed = Callable[..., Any]
PUSHER = {
    "kind": "http",
    "app_id": "org.example.app",
    "app_display_name": "App",
    "device_display_name": "Phone",
    "pushkey": "a-key",
    "lang": "en",
    "data": {"url": "https://push.example.org/_matrix/push/v1/notify"},
}


@pytest.fixture
def owner(login: Login) -> Person:
    return login("owner")


@pytest.fixture
def bob(owner: Person, login: Login) -> Person:
    return login("bob")


def actions(app: Application) -> list[str]:
    """Return the actions in the audit log, newest first."""
    with app.homeserver.database.read() as tx:
        return [it["action"] for it in audit.latest(tx, 20)]


def test_a_name_is_available_or_not(printed: Printed, command: Command, bob: Person) -> None:
    free = printed("user", "available", "carol")
    taken = command("user", "available", "bob", "--json")

    assert free == {"user_id": "@carol:localhost", "available": True}
    assert (taken.exit_code, json.loads(taken.stderr)["errcode"]) == (1, "M_USER_IN_USE")
    assert json.loads(command("user", "available", "#", "--json").stderr)["errcode"] == (
        "M_INVALID_USERNAME"
    )


def test_joins_and_invites_are_counted(
    printed: Printed, command: Command, owner: Person, bob: Person, room: Callable[..., str]
) -> None:
    room_id = room(bob)
    act(bob, room_id, "invite", user_id=owner.user_id)

    time.sleep(0.01)

    found = printed("user", "activity", "bob")
    later = printed("user", "activity", bob.user_id, "--since", "1 ms")

    assert (found["joined_rooms"], found["sent_invites"]) == (1, 1)
    assert later["joined_rooms"] == 0
    assert "sent 1 invites" in command("user", "activity", "bob").stdout
    assert command("user", "activity", "nobody").exit_code == 1
    assert command("user", "activity", "bob", "--since", "7").exit_code == 2


def test_account_data_is_that_of_the_api(
    printed: Printed, command: Command, owner: Person, bob: Person, room: Callable[..., str]
) -> None:
    room_id = room(bob)
    path = f"user/{bob.user_id}"
    bob.put(f"{path}/account_data/org.example.colour", json={"colour": "blue"})
    bob.put(f"{path}/rooms/{quote(room_id)}/account_data/org.example.note", json={"a": 1})

    found = printed("user", "account-data", "bob")
    one = printed("user", "account-data", "bob", "--type", "org.example.colour")

    by_api = owner.get(f"{ADMIN}/v1/users/{bob.user_id}/accountdata").get_json()["account_data"]
    assert found == by_api
    assert one == {"global": {"org.example.colour": {"colour": "blue"}}, "rooms": {}}
    text = command("user", "account-data", "bob").stdout
    assert 'org.example.colour  {"colour":"blue"}\n' in text
    assert f'{room_id}  org.example.note  {{"a":1}}\n' in text


def test_pushers_are_printed(printed: Printed, command: Command, bob: Person) -> None:
    assert bob.post("pushers/set", json=PUSHER).status_code == 200

    (found,) = printed("user", "pushers", "bob")

    assert found["data"]["url"] == PUSHER["data"]["url"]  # type: ignore[index] # it is an object
    assert (
        "App on Phone  http https://push.example.org/" in command("user", "pushers", "bob").stdout
    )


def test_features_are_switched(
    app: Application, printed: Printed, command: Command, owner: Person, bob: Person
) -> None:
    path = f"{ADMIN}/v1/experimental_features/{bob.user_id}"

    before = printed("user", "features", "bob")["features"]
    after = printed("user", "features", "bob", "--on", "msc3881")["features"]

    assert not any(before.values())
    assert owner.get(path).get_json()["features"] == after == {**before, "msc3881": True}
    assert actions(app)[0] == "user.features"
    wrong = command("user", "features", "bob", "--on", "msc3881", "--off", "msc3881")
    assert wrong.exit_code == 2


def test_devices_are_added_renamed_and_all_logged_out(
    app: Application, printed: Printed, command: Command, bob: Person
) -> None:
    (own,) = printed("user", "devices", "bob")

    printed("user", "devices", "bob", "--add", "KETTLE", "--rename", "KETTLE", "Kitchen")
    (kettle,) = printed("user", "devices", "bob", "--device", "KETTLE")
    unknown = command("user", "devices", "bob", "--device", "NONE", "--json")
    wrong = command("user", "devices", "bob", "--rename", "NONE", "x", "--json")
    empty = command("user", "devices", "bob", "--add", "", "--json")
    mistyped = command("user", "devices", "bob", "--delete", "KETLE", "--json")
    left = printed("user", "devices", "bob", "--delete-all")

    assert kettle["display_name"] == "Kitchen"
    for refused, errcode in (
        (unknown, "M_NOT_FOUND"),
        (wrong, "M_NOT_FOUND"),
        (mistyped, "M_NOT_FOUND"),
        (empty, "M_INVALID_PARAM"),
    ):
        assert refused.exit_code == 1
        assert json.loads(refused.stderr)["errcode"] == errcode
    assert left == []
    assert bob.get("account/whoami").status_code == 401
    assert own["device_id"] != "KETTLE"
    assert actions(app)[:3] == ["device.delete", "device.rename", "device.create"]
