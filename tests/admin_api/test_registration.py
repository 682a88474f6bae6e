"""POST /_synapse/admin/v1/register: what the tools that know the shared secret may ask for."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import PASSWORD, V3, MakeApp
from tests.helpers.rooms import refusal, unchanged

PATH = "/_synapse/admin/v1/register"
SECRET = "s3cret"


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(registration_shared_secret=SECRET, registration="closed")


def new_nonce(client: FlaskClient) -> str:
    return str(client.get(PATH).get_json()["nonce"])


def signed(nonce: str, **body: Any) -> dict[str, Any]:
    """The body with the proof that belongs to it."""
    wanted: dict[str, Any] = {"username": "bob", "password": PASSWORD, **body}
    parts = [nonce, wanted["username"], wanted["password"]]
    parts.append("admin" if wanted.get("admin") else "notadmin")
    if wanted.get("user_type"):
        parts.append(wanted["user_type"])
    mac = hmac.new(SECRET.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
    return {"nonce": nonce, "mac": mac, **wanted}


def register(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post(PATH, json=signed(new_nonce(client), **body))


def test_an_account_is_made_where_registration_is_closed(client: FlaskClient) -> None:
    answer = register(client, device_id="TOOL", initial_device_display_name="A tool")

    session = answer.get_json()
    assert answer.status_code == 200
    assert session["user_id"] == "@bob:localhost"
    assert session["home_server"] == "localhost"
    assert session["device_id"] == "TOOL"
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    (device,) = client.get(V3 + "devices", headers=headers).get_json()["devices"]
    assert device["display_name"] == "A tool"


def test_a_nonce_works_once(client: FlaskClient, app: Application) -> None:
    nonce = new_nonce(client)
    first = client.post(PATH, json=signed(nonce))

    with unchanged(app):
        second = client.post(PATH, json=signed(nonce, username="carol"))

    assert first.status_code == 200
    assert refusal(second) == (400, "M_UNKNOWN")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mac": "00"}, (403, "M_FORBIDDEN")),
        ({"mac": None}, (400, "M_BAD_JSON")),
        ({"username": None}, (400, "M_BAD_JSON")),
        ({"password": 17}, (400, "M_BAD_JSON")),
        ({"admin": "yes"}, (400, "M_BAD_JSON")),
        ({"inhibit_login": "yes"}, (400, "M_BAD_JSON")),
        ({"user_type": "king"}, (400, "M_INVALID_PARAM")),
        ({"username": "a\0b"}, (400, "M_INVALID_PARAM")),
    ],
)
def test_a_refused_request_makes_no_account_and_uses_up_its_nonce(
    client: FlaskClient, app: Application, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    nonce = new_nonce(client)

    with unchanged(app):
        answer = client.post(PATH, json={**signed(nonce), **change})
        again = client.post(PATH, json=signed(nonce))

    assert refusal(answer) == expected
    assert refusal(again) == (400, "M_UNKNOWN")


@pytest.mark.parametrize("body", [{}, {"nonce": 1}, {"nonce": None}])
def test_a_nonce_is_wanted(client: FlaskClient, body: dict[str, Any]) -> None:
    assert refusal(client.post(PATH, json=body)) == (400, "M_BAD_JSON")


def test_a_nonce_of_another_process_is_unknown(make_app: MakeApp, client: FlaskClient) -> None:
    nonce = new_nonce(client)
    other = make_app(registration_shared_secret=SECRET).test_client()

    assert refusal(other.post(PATH, json=signed(nonce))) == (400, "M_UNKNOWN")


def test_inhibit_login_starts_no_session(client: FlaskClient) -> None:
    answer = register(client, inhibit_login=True)

    assert answer.status_code == 200
    assert answer.get_json() == {"user_id": "@bob:localhost", "home_server": "localhost"}


def test_name_type_and_rights_are_those_of_the_request(client: FlaskClient) -> None:
    owner = register(client, username="owner", admin=True).get_json()
    register(client, username="Robot", displayname="Ro Bot", user_type="bot")
    headers = {"Authorization": f"Bearer {owner['access_token']}"}

    made = client.get("/_synapse/admin/v2/users/@robot:localhost", headers=headers).get_json()

    assert (made["displayname"], made["user_type"]) == ("Ro Bot", "bot")
    assert made["admin"] is False


def test_a_taken_name_is_refused(client: FlaskClient) -> None:
    register(client)

    assert refusal(register(client, username="BOB")) == (400, "M_USER_IN_USE")


def test_a_display_name_that_is_too_long_makes_no_account(
    client: FlaskClient, app: Application
) -> None:
    with unchanged(app):
        answer = register(client, displayname="x" * 1000)

    assert answer.status_code == 400
