"""Login tokens: a device lets another one in."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.cli import main
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.rooms import refusal

GET_TOKEN = "/_matrix/client/v1/login/get_token"
PROOF = {"type": "m.login.password", "user": "alice", "password": PASSWORD}


def token_of(person: Person) -> str:
    answer = person.post(GET_TOKEN, json={"auth": PROOF})
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["login_token"])


def log_in(client: FlaskClient, token: Any, **body: Any) -> TestResponse:
    return client.post(V3 + "login", json={"type": "m.login.token", "token": token, **body})


def test_the_flow_is_told_to_clients_of_today(client: FlaskClient, login: Login) -> None:
    flows = client.get(V3 + "login").get_json()["flows"]
    capabilities = login("alice").get("capabilities").get_json()["capabilities"]

    assert {"type": "m.login.token", "get_login_token": True} in flows
    assert capabilities["m.get_login_token"] == {"enabled": True}


def test_a_token_lets_another_device_in(login: Login) -> None:
    alice = login("alice")

    asked = alice.post(GET_TOKEN)
    answer = alice.post(GET_TOKEN, json={"auth": PROOF})
    session = log_in(
        alice.client, answer.get_json()["login_token"], device_id="TABLET", refresh_token=True
    ).get_json()

    assert asked.get_json()["flows"] == [{"stages": ["m.login.password"]}]
    assert answer.get_json()["expires_in_ms"] == 120_000
    assert (session["user_id"], session["device_id"]) == ("@alice:localhost", "TABLET")
    assert {"access_token", "refresh_token", "expires_in_ms", "well_known"} <= set(session)
    assert alice.get("account/whoami").status_code == 200


def test_a_token_is_good_once(login: Login) -> None:
    alice = login("alice")
    token = token_of(alice)
    assert log_in(alice.client, token).status_code == 200

    assert refusal(log_in(alice.client, token)) == (403, "M_FORBIDDEN")


def test_a_token_is_good_for_two_minutes(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = login("alice")
    token = token_of(alice)
    now = time.time_ns()

    monkeypatch.setattr(time, "time_ns", lambda: now + 121 * 10**9)

    assert refusal(log_in(alice.client, token)) == (403, "M_FORBIDDEN")


def test_the_password_is_asked_for_every_time(login: Login) -> None:
    alice = login("alice")
    token_of(alice)

    again = alice.post(GET_TOKEN)
    wrong = alice.post(GET_TOKEN, json={"auth": {**PROOF, "password": "guess"}})

    assert again.status_code == 401
    assert refusal(wrong) == (401, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("hbl_guess", (403, "M_FORBIDDEN")),
        ("", (403, "M_FORBIDDEN")),
        (None, (400, "M_MISSING_PARAM")),
        (5, (400, "M_BAD_JSON")),
    ],
)
def test_no_token_lets_nobody_in(
    client: FlaskClient, token: Any, expected: tuple[int, str]
) -> None:
    assert refusal(log_in(client, token)) == expected


def test_an_access_token_is_no_login_token(login: Login) -> None:
    alice = login("alice")

    assert refusal(log_in(alice.client, alice.access_token)) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("account/password", {"new_password": "another one"}),
        ("account/password", {"new_password": "another one", "logout_devices": False}),
        ("account/deactivate", {}),
    ],
)
def test_a_token_ends_with_the_password_that_gave_it(
    login: Login, path: str, body: dict[str, Any]
) -> None:
    alice = login("alice")
    token = token_of(alice)
    assert alice.post(path, json={**body, "auth": PROOF}).status_code == 200

    assert refusal(log_in(alice.client, token)) == (403, "M_FORBIDDEN")


def test_a_token_ends_with_all_sessions(login: Login) -> None:
    alice = login("alice")
    token = token_of(alice)

    alice.post("logout/all")

    assert refusal(log_in(alice.client, token)) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("options", [[], ["--keep-sessions"]])
def test_a_token_ends_when_the_administrator_sets_a_password(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    alice = login("alice")
    token = token_of(alice)
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.homeserver.database.server.config.data_dir))

    done = CliRunner().invoke(
        main, ["user", "passwd", "alice", "--password-stdin", *options], "another one"
    )

    assert done.exit_code == 0
    assert refusal(log_in(alice.client, token)) == (403, "M_FORBIDDEN")


def test_tokens_are_not_made_by_the_dozen(make_app: MakeApp) -> None:
    limits = {"rate_limits": "true", "rc_get_login_token.burst_count": "1"}
    client = make_app(**limits).test_client()
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = client.post(V3 + "register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])
    token_of(alice)

    assert refusal(alice.post(GET_TOKEN, json={"auth": PROOF})) == (429, "M_LIMIT_EXCEEDED")


def test_a_token_is_nowhere_in_the_database(app: Application, login: Login) -> None:
    token = token_of(login("alice"))

    with app.homeserver.database.read() as tx:
        dump = "\n".join(tx.sql.raw.iterdump())

    assert 'INTO "login_tokens"' in dump
    assert not re.search(re.escape(token), dump)
