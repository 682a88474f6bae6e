"""The admin API with the token of an application service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from homebody.web import Application
from tests.client_server.test_appservices import BOT, Irc
from tests.conftest import Login, MakeApp, Person
from tests.helpers import bridge
from tests.helpers.bridge import AS_TOKEN
from tests.helpers.rooms import refusal

V1 = "/_synapse/admin/v1"
V2 = "/_synapse/admin/v2"
NEIL = "@_irc_neil:localhost"


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Application:
    path = bridge.write(tmp_path, bridge.registration("http://127.0.0.1:9"))
    return make_app(appservices=f'["{path}"]')


@pytest.fixture
def irc(app: Application, admin: Person) -> Irc:
    """The bridge, after it has registered a user."""
    found = Irc(app.test_client(), BOT, AS_TOKEN, "")
    assert found.make_ghost().status_code == 200
    return found


def test_a_bridge_needs_the_rights_as_well(admin: Person, irc: Irc, alice: Person) -> None:
    path = f"{V1}/users/{alice.user_id}/admin"
    before = irc.get(path)

    admin.put(f"{V1}/users/{BOT}/admin", json={"admin": True})
    as_itself, as_neil = irc.get(path), irc.as_user(NEIL, "GET", path)

    assert refusal(before) == (403, "M_FORBIDDEN")
    assert as_itself.get_json() == {"admin": False}
    assert irc.get(f"{V1}/users/@foo:bar/admin").status_code == 400
    assert refusal(as_neil) == (403, "M_FORBIDDEN")


def test_a_user_of_a_bridge_names_it(admin: Person, irc: Irc) -> None:
    assert admin.get(f"{V2}/users/{NEIL}").get_json()["appservice_id"] == "irc"


def test_a_shadow_ban_holds_for_users_of_bridges(
    admin: Person, irc: Irc, login: Login, room: Any
) -> None:
    room_id = room(login("bob"))
    irc.as_user(NEIL, "POST", f"rooms/{room_id}/join")
    admin.post(f"{V1}/users/{NEIL}/shadow_ban")

    path = f"rooms/{room_id}/send/m.room.message/1"
    sent = irc.as_user(NEIL, "PUT", path, json={"msgtype": "m.text", "body": "spam"})

    event_id = sent.get_json()["event_id"]
    assert refusal(login("bob").get(f"rooms/{room_id}/event/{event_id}"))[0] == 404
