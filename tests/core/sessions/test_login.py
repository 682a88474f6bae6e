"""Logging in and out."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from passlib.hash import argon2, bcrypt
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts
from homebody.core.sessions import devices
from homebody.core.sessions import login as login_core
from homebody.errors import MatrixError
from homebody.storage.database import Database
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp
from tests.helpers.rooms import refusal

R0 = "/_matrix/client/r0/"


def log_in(client: FlaskClient, name: str, password: str = PASSWORD, **body: Any) -> TestResponse:
    identifier = {"type": "m.id.user", "user": name}
    return client.post(
        V3 + "login",
        json={
            "type": "m.login.password",
            "identifier": identifier,
            "password": password,
            **body,
        },
    )


def test_the_flows_are_told(client: FlaskClient) -> None:
    flows = client.get(V3 + "login").get_json()["flows"]
    older = client.get(R0 + "login").get_json()

    assert older == {"flows": [{"type": "m.login.password"}]}
    assert [it["type"] for it in flows] == ["m.login.password", "m.login.sso", "m.login.token"]
    assert flows[1]["oauth_aware_preferred"] is True
    assert "identity_providers" not in flows[1]


@pytest.mark.parametrize("name", ["alice", "@alice:localhost", "Alice"])
def test_a_name_is_a_localpart_or_a_whole_user_id(
    client: FlaskClient, login: Login, name: str
) -> None:
    login("alice")

    answer = log_in(client, name)

    assert answer.status_code == 200
    session = answer.get_json()
    assert session["user_id"] == "@alice:localhost"
    assert session["home_server"] == "localhost"
    assert session["well_known"] == {"m.homeserver": {"base_url": "http://localhost:8008"}}
    assert "expires_in_ms" not in session


def test_the_older_key_user_works_without_a_content_type(client: FlaskClient, login: Login) -> None:
    login("example")
    body = f'{{"type":"m.login.password", "user":"example", "password":"{PASSWORD}"}}'

    answer = client.post(R0 + "login", data=body)

    assert answer.get_json()["user_id"] == "@example:localhost"


def test_an_unknown_user_and_a_wrong_password_get_the_same_answer(
    client: FlaskClient, login: Login
) -> None:
    login("alice")

    wrong = log_in(client, "alice", "guess")
    unknown = log_in(client, "bob", "guess")
    elsewhere = log_in(client, "@alice:example.org")

    assert refusal(wrong) == (403, "M_FORBIDDEN")
    assert wrong.get_json() == unknown.get_json() == elsewhere.get_json()


@pytest.mark.parametrize("name", ["nobody", "closed"])
def test_an_unknown_or_closed_account_takes_as_long_as_a_wrong_password(
    make_app: MakeApp, name: str
) -> None:
    database: Database = make_app(password_hashing="argon2id").homeserver.database
    hashed = accounts.hash_password(database.server, PASSWORD)
    with database.write() as tx:
        for known in ("alice", "closed"):
            accounts.create(tx, f"@{known}:localhost", hashed)
        accounts.mark_deactivated(tx, "@closed:localhost", erase=False)
    accounts.has_password(database.server, None, "warm-up")

    def seconds(name: str) -> float:
        began = time.thread_time()
        with pytest.raises(MatrixError, match=login_core.WRONG):
            login_core.by_password(database, name, "guess")
        return time.thread_time() - began

    for_known = min(seconds("alice") for _ in range(3))
    for_other = min(seconds(name) for _ in range(3))

    assert for_other > for_known / 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"type": "m.login.sso"}, (400, "M_UNKNOWN")),
        ({"type": None}, (400, "M_BAD_JSON")),
        ({"password": None}, (400, "M_MISSING_PARAM")),
        ({"password": 5}, (400, "M_BAD_JSON")),
        ({"identifier": None}, (400, "M_MISSING_PARAM")),
        ({"identifier": "alice"}, (400, "M_BAD_JSON")),
        ({"identifier": {"type": "m.id.user"}}, (400, "M_MISSING_PARAM")),
        ({"identifier": {"type": "m.id.user", "user": 5}}, (400, "M_BAD_JSON")),
        ({"identifier": {"type": "org.example.face", "user": "alice"}}, (400, "M_UNKNOWN")),
        (
            {"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@b.c"}},
            (403, "M_FORBIDDEN"),
        ),
        (
            {"identifier": {"type": "m.id.phone", "country": "DE", "phone": "1"}},
            (403, "M_FORBIDDEN"),
        ),
        ({"identifier": None, "medium": "email", "address": "a@b.c"}, (403, "M_FORBIDDEN")),
        ({"password": "x" * 100_000}, (403, "M_FORBIDDEN")),
        ({"password": "a\x00b"}, (403, "M_FORBIDDEN")),
        ({"device_id": "x" * 256}, (400, "M_INVALID_PARAM")),
    ],
)
def test_a_bad_request_begins_no_session(
    client: FlaskClient, login: Login, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    alice = login("alice")

    answer = log_in(client, "alice", **body)

    assert refusal(answer) == expected
    assert len(alice.get("devices").get_json()["devices"]) == 1


def test_a_body_without_a_type_lacks_a_parameter(client: FlaskClient) -> None:
    assert refusal(client.post(V3 + "login", json={})) == (400, "M_MISSING_PARAM")
    assert refusal(client.post(V3 + "login", data="{")) == (400, "M_NOT_JSON")


def test_a_new_login_of_a_device_ends_its_former_session(client: FlaskClient, login: Login) -> None:
    alice = login("alice")

    session = log_in(client, "alice", device_id=alice.device_id).get_json()

    assert session["device_id"] == alice.device_id
    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    assert client.get(V3 + "account/whoami", headers=headers).status_code == 200


def test_a_device_that_logs_in_again_keeps_its_name(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    log_in(client, "alice", device_id="PHONE", initial_device_display_name="phone")

    log_in(client, "alice", device_id="PHONE", initial_device_display_name="other")

    assert alice.get("devices/PHONE").get_json()["display_name"] == "phone"


def test_a_name_that_is_too_long_is_cut_at_login(client: FlaskClient, login: Login) -> None:
    alice = login("alice")

    log_in(client, "alice", device_id="PHONE", initial_device_display_name="ä" * 1000)

    assert alice.get("devices/PHONE").get_json()["display_name"] == "ä" * 255


def test_logging_out_ends_this_session_only(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")

    answer = phone.post("logout")

    assert answer.get_json() == {}
    assert refusal(phone.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    devices = laptop.get("devices").get_json()["devices"]
    assert [device["device_id"] for device in devices] == [laptop.device_id]


def test_logging_out_everywhere_ends_the_sessions_of_nobody_else(login: Login) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")

    phone.post("logout/all")

    assert refusal(phone.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(laptop.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert bob.get("account/whoami").status_code == 200


def test_a_deactivated_account_is_refused_as_one_that_never_was(
    client: FlaskClient, login: Login
) -> None:
    proof = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    login("alice").post("account/deactivate", json={"auth": proof})

    answers = [
        log_in(client, "alice"),
        log_in(client, "alice", password="wrong"),
        log_in(client, "nobody", password="wrong"),
    ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3
    assert len({answer.data for answer in answers}) == 1


def test_a_locked_user_is_told_so_who_knows_the_password(
    app: Application, client: FlaskClient, login: Login
) -> None:
    alice = login("alice")
    with app.homeserver.database.write() as tx:
        tx.sql.connection.exec_driver_sql("UPDATE accounts SET is_locked = 1")
        tx.caches.clear(tx.position)

    assert refusal(log_in(client, "alice")) == (401, "M_USER_LOCKED")
    assert refusal(log_in(client, "alice", "guess")) == (403, "M_FORBIDDEN")
    answer = alice.get("account/whoami")
    assert (answer.status_code, answer.get_json()["soft_logout"]) == (401, True)


def stored_hash(app: Application) -> str:
    with app.homeserver.database.read() as tx:
        return str(
            tx.sql.connection.exec_driver_sql("SELECT password_hash FROM accounts").scalar_one()
        )


def test_a_password_hash_of_another_kind_is_renewed_at_login(make_app: MakeApp) -> None:
    app = make_app(password_hashing="argon2id")
    with app.homeserver.database.write() as tx:
        accounts.create(tx, "@alice:localhost", bcrypt.using(rounds=4).hash(PASSWORD))

    assert log_in(app.test_client(), "alice", "guess").status_code == 403
    assert stored_hash(app).startswith("$2b$")
    assert log_in(app.test_client(), "alice").status_code == 200
    assert stored_hash(app).startswith("$argon2id$v=19$m=9216,t=4,p=1$")
    assert argon2.verify(PASSWORD, stored_hash(app))
    assert log_in(app.test_client(), "alice").status_code == 200


def test_a_short_password_from_before_there_was_a_rule_stays_good(
    app: Application, client: FlaskClient
) -> None:
    with app.homeserver.database.write() as tx:
        accounts.create(tx, "@alice:localhost", bcrypt.using(rounds=4).hash("tea"))

    answers = [log_in(client, "alice", "tea") for _ in range(2)]  # the first renews the hash

    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_long_password_is_wrong_for_a_bcrypt_hash_and_no_fault(make_app: MakeApp) -> None:
    app = make_app()
    with app.homeserver.database.write() as tx:
        accounts.create(tx, "@alice:localhost", bcrypt.using(rounds=4).hash(PASSWORD))

    assert refusal(log_in(app.test_client(), "alice", "x" * 80)) == (403, "M_FORBIDDEN")


def test_a_renewed_hash_does_not_bring_an_old_password_back(app: Application, login: Login) -> None:
    login("alice")
    database: Database = app.homeserver.database
    with database.read() as tx:
        before = accounts.find(tx, "@alice:localhost")
    assert before is not None
    with database.write() as tx:
        accounts.set_password_hash(tx, "@alice:localhost", "changed meanwhile")

    with database.write() as tx:
        accounts.renew_hash(tx, before, "of the old password")

    assert stored_hash(app) == "changed meanwhile"


def test_a_new_password_keeps_out_who_was_under_way_with_the_old_one(
    app: Application, login: Login
) -> None:
    login("alice")
    database: Database = app.homeserver.database
    proved = login_core.by_password(database, "alice", PASSWORD)
    with database.write() as tx:
        accounts.set_password_hash(tx, "@alice:localhost", "changed meanwhile")

    def begin() -> None:
        with database.write() as tx:
            login_core.begin(tx, proved, login_core.SessionRequest(device_id="LATE"))

    with pytest.raises(MatrixError, match="wrong password"):
        begin()
    with database.read() as reader:
        assert "LATE" not in devices.ids(reader, "@alice:localhost")


def test_an_identifier_whose_type_is_no_word_is_refused(client: FlaskClient) -> None:
    for kind in ({"a": 1}, [1], 1):
        body = {"type": "m.login.password", "identifier": {"type": kind, "user": "alice"}}

        answer = client.post(V3 + "login", json={**body, "password": "x"})

        assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_BAD_JSON")
