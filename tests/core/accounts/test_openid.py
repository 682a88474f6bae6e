"""Proving to others who one is."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts, openid
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.rooms import refusal

USERINFO = "/_matrix/federation/v1/openid/userinfo"


def ask(client: FlaskClient, token: str) -> TestResponse:
    return client.get(USERINFO, query_string={"access_token": token})


def proof(person: Person) -> str:
    answer = person.post(f"user/{person.user_id}/openid/request_token")
    assert answer.status_code == 200
    return str(answer.get_json()["access_token"])


def test_the_token_tells_others_who_asked_for_it(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    answer = alice.post(f"user/{alice.user_id}/openid/request_token").get_json()

    info = ask(client, answer.pop("access_token"))

    assert answer == {
        "token_type": "Bearer",
        "matrix_server_name": "localhost",
        "expires_in": 3600,
    }
    assert (info.status_code, info.get_json()) == (200, {"sub": alice.user_id})


def test_the_token_opens_nothing_else(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    token = proof(alice)

    answer = Person(client, alice.user_id, token, "X").get("account/whoami")

    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")


def test_an_access_token_proves_nothing_to_others(client: FlaskClient, login: Login) -> None:
    assert refusal(ask(client, login("alice").access_token)) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(client.get(USERINFO)) == (401, "M_MISSING_TOKEN")


def test_it_is_good_for_an_hour(
    app: Application, client: FlaskClient, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    monkeypatch.setattr(openid, "LIFETIME_MS", -1)
    old = proof(alice)

    answer = ask(client, old)

    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")


def test_nobody_gets_one_for_somebody_else(login: Login) -> None:
    login("bob")

    answer = login("alice").post("user/@bob:localhost/openid/request_token")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_a_closed_or_locked_account_is_nobody(
    app: Application, client: FlaskClient, login: Login
) -> None:
    alice, bob = login("alice"), login("bob")
    tokens = [proof(alice), proof(bob)]
    auth = {"type": "m.login.password", "password": PASSWORD}
    alice.post("account/deactivate", json={"auth": auth})
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, bob.user_id, is_locked=True)

    answers = [refusal(ask(client, token)) for token in tokens]

    assert answers == [(401, "M_UNKNOWN_TOKEN")] * 2
