"""Getting an account."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.sessions import registration, registration_tokens
from homebody.spec import identifiers
from tests.conftest import PASSWORD, Login, MakeApp, Person
from tests.helpers.rooms import refusal

R0 = "/_matrix/client/r0/"
V3 = "/_matrix/client/v3/"
VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity"
SHARED_SECRET = "/_synapse/admin/v1/register"
DUMMY = {"type": "m.login.dummy"}
PROOF = {"type": "m.login.registration_token", "token": "family"}


def register(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post(V3 + "register", json={"auth": DUMMY, **body})


def test_one_request_of_the_tutorial_makes_an_account(client: FlaskClient) -> None:
    body = '{"username":"example", "password":"wordpass", "auth": {"type":"m.login.dummy"}}'
    form = "application/x-www-form-urlencoded"  # what curl says about -d

    answer = client.post(R0 + "register", data=body, content_type=form)

    assert answer.status_code == 200
    session = answer.get_json()
    assert session["user_id"] == "@example:localhost"
    assert session["home_server"] == "localhost"
    assert set(session) == {"user_id", "home_server", "access_token", "device_id"}
    whoami = client.get(f"{R0}account/whoami?access_token={session['access_token']}").get_json()
    assert whoami["user_id"] == "@example:localhost"


def test_a_request_without_proof_is_told_the_flows_and_a_session(client: FlaskClient) -> None:
    answer = client.post(V3 + "register", json={"username": "alice", "password": PASSWORD})

    assert answer.status_code == 401
    challenge = answer.get_json()
    assert challenge["flows"] == [{"stages": ["m.login.dummy"]}]
    assert challenge["params"] == {}
    assert challenge["session"]
    assert "errcode" not in challenge


def test_flows_may_be_asked_for_before_the_name_is_known(client: FlaskClient) -> None:
    session = client.post(V3 + "register", json={}).get_json()["session"]

    answer = register(client, username="alice", auth={**DUMMY, "session": session})

    assert answer.get_json()["user_id"] == "@alice:localhost"


def test_a_session_serves_for_one_account_only(client: FlaskClient) -> None:
    session = client.post(V3 + "register", json={}).get_json()["session"]
    register(client, username="alice", auth={**DUMMY, "session": session})

    answer = register(client, username="bob", auth={**DUMMY, "session": session})

    assert refusal(answer) == (401, "M_UNKNOWN")
    assert answer.get_json()["session"] != session


def test_who_gives_no_name_gets_a_random_one(client: FlaskClient) -> None:
    first = register(client, password=PASSWORD).get_json()["user_id"]
    second = register(client, password=PASSWORD).get_json()["user_id"]

    assert first != second
    assert identifiers.is_valid_localpart_for_registration(identifiers.localpart(first))


def test_who_gives_no_password_can_use_the_token_but_not_log_in(client: FlaskClient) -> None:
    token = register(client, username="alice").get_json()["access_token"]

    body = {"type": "m.login.password", "user": "alice", "password": ""}
    login = client.post(V3 + "login", json=body)

    assert refusal(login) == (403, "M_FORBIDDEN")
    assert client.get(f"{V3}account/whoami?access_token={token}").status_code == 200


def test_inhibit_login_makes_an_account_without_a_session(client: FlaskClient) -> None:
    answer = register(client, username="alice", password=PASSWORD, inhibit_login=True)

    assert answer.get_json() == {"user_id": "@alice:localhost", "home_server": "localhost"}


def test_the_device_is_as_the_client_wants_it(client: FlaskClient) -> None:
    session = register(
        client,
        username="alice",
        device_id="PHONE",
        initial_device_display_name="Alice's phone",
        refresh_token=True,
    ).get_json()

    assert session["device_id"] == "PHONE"
    assert session["refresh_token"]
    assert session["expires_in_ms"] == 3_600_000
    device = client.get(f"{V3}devices/PHONE?access_token={session['access_token']}").get_json()
    assert device["display_name"] == "Alice's phone"


@pytest.mark.parametrize(
    "name", ["al ice", "alice:bob", "@alice:localhost", "", "ålice", "a" * 250, "a\x00b"]
)
def test_a_name_outside_the_grammar_is_refused_before_any_proof(
    client: FlaskClient, name: str
) -> None:
    answer = client.post(V3 + "register", json={"username": name, "password": PASSWORD})

    assert refusal(answer) == (400, "M_INVALID_USERNAME")


@pytest.mark.parametrize("name", ["Alice", "ALICE"])
def test_capitals_in_a_name_are_folded_as_at_login(client: FlaskClient, name: str) -> None:
    free = client.get(V3 + "register/available", query_string={"username": name})
    session = register(client, username=name, password=PASSWORD).get_json()
    body = {"type": "m.login.password", "user": name, "password": PASSWORD}

    logged_in = client.post(V3 + "login", json=body)
    taken = client.get(V3 + "register/available", query_string={"username": name})

    assert free.get_json() == {"available": True}
    assert session["user_id"] == "@alice:localhost"
    assert logged_in.get_json()["user_id"] == "@alice:localhost"
    assert refusal(taken) == (400, "M_USER_IN_USE")
    assert refusal(register(client, username="alice")) == (400, "M_USER_IN_USE")


def test_no_letter_of_another_script_is_folded_into_a_name(client: FlaskClient) -> None:
    answer = register(client, username="\u212aate")  # the sign for kelvin; its small letter is k

    assert refusal(answer) == (400, "M_INVALID_USERNAME")


def test_a_new_account_is_called_by_its_localpart(client: FlaskClient) -> None:
    session = register(client, username="Alice").get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])

    room_id = alice.create_room()

    profile = client.get(f"{V3}profile/{alice.user_id}").get_json()
    member = alice.get(f"rooms/{room_id}/state/m.room.member/{alice.user_id}").get_json()
    assert profile == {"displayname": "alice"}
    assert member["displayname"] == "alice"


def test_a_name_that_was_taken_away_does_not_come_back(client: FlaskClient) -> None:
    session = register(client, username="alice").get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])

    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": ""})

    assert client.get(f"{V3}profile/{alice.user_id}").get_json() == {}


@pytest.mark.parametrize("name", ["a", "0", "a.b_c=d-e/f+g", "x" * 244])
def test_every_name_of_the_grammar_is_taken(client: FlaskClient, name: str) -> None:
    answer = register(client, username=name)

    assert answer.get_json()["user_id"] == f"@{name}:localhost"


def test_a_name_that_is_taken_is_refused_before_any_proof(
    client: FlaskClient, login: Login
) -> None:
    login("alice")

    answer = client.post(V3 + "register", json={"username": "alice", "password": PASSWORD})

    assert refusal(answer) == (400, "M_USER_IN_USE")


def test_the_name_of_a_deactivated_account_is_never_given_out_again(
    client: FlaskClient, login: Login
) -> None:
    proof = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    login("alice").post("account/deactivate", json={"auth": proof})

    assert refusal(register(client, username="alice")) == (400, "M_USER_IN_USE")
    available = client.get(V3 + "register/available?username=alice")
    assert refusal(available) == (400, "M_USER_IN_USE")


def test_available_tells_free_names_from_others(client: FlaskClient, login: Login) -> None:
    login("alice")

    free = client.get(V3 + "register/available?username=bob")
    taken = client.get(V3 + "register/available?username=alice")
    wrong = client.get(V3 + "register/available?username=Bob!")
    missing = client.get(V3 + "register/available")

    assert (free.status_code, free.get_json()) == (200, {"available": True})
    assert refusal(taken) == (400, "M_USER_IN_USE")
    assert refusal(wrong) == (400, "M_INVALID_USERNAME")
    assert refusal(missing) == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"username": 5}, (400, "M_BAD_JSON")),
        ({"password": ["secret"]}, (400, "M_BAD_JSON")),
        ({"inhibit_login": "yes"}, (400, "M_BAD_JSON")),
        ({"auth": "m.login.dummy"}, (400, "M_BAD_JSON")),
        ({"auth": {"type": 1}}, (400, "M_BAD_JSON")),
        ({"auth": {"type": "m.login.dummy", "session": 1}}, (400, "M_BAD_JSON")),
        ({"auth": {"type": "org.example.wink"}}, (401, "M_UNRECOGNIZED")),
        ({"password": ""}, (400, "M_WEAK_PASSWORD")),
        ({"password": "x" * 513}, (400, "M_INVALID_PARAM")),
        ({"device_id": "x" * 256}, (400, "M_INVALID_PARAM")),
    ],
)
def test_a_bad_request_makes_no_account(
    client: FlaskClient, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    answer = register(client, **{"username": "alice", "password": PASSWORD, **body})

    assert refusal(answer) == expected
    assert client.get(V3 + "register/available?username=alice").status_code == 200


def test_other_kinds_of_accounts_do_not_exist(client: FlaskClient) -> None:
    other = client.post(V3 + "register?kind=ghost", json={})

    assert refusal(other) == (400, "M_INVALID_PARAM")


def test_the_first_account_is_the_administrator(make_app: MakeApp) -> None:
    app = make_app()
    client = app.test_client()

    first = register(client, username="alice").get_json()
    second = register(client, username="bob").get_json()

    admins = app.homeserver.database
    with admins.read() as tx:
        from_tx = tx.sql.connection.exec_driver_sql(
            "SELECT user_id FROM accounts WHERE is_admin"
        ).scalars()
        assert list(from_tx) == [first["user_id"]]
    assert second["user_id"] == "@bob:localhost"


def test_a_closed_server_gives_out_no_accounts(make_app: MakeApp) -> None:
    with make_app().homeserver.database.write() as tx:
        registration.create(tx, "@bob:localhost", None)
    client = make_app(registration="closed").test_client()

    assert refusal(register(client, username="alice")) == (403, "M_FORBIDDEN")
    assert refusal(client.get(VALIDITY + "?token=x")) == (403, "M_FORBIDDEN")
    for name in ("alice", "bob"):  # strangers learn of no account by its name
        available = client.get(V3 + "register/available", query_string={"username": name})
        assert refusal(available) == (403, "M_FORBIDDEN")


def with_token(make_app: MakeApp) -> FlaskClient:
    """A server that lets one person in, who has the word."""
    app = make_app(registration="token")
    with app.homeserver.database.write() as tx:
        registration_tokens.add(tx, "test", PROOF["token"], uses_allowed=1)
    return app.test_client()


def test_a_registration_token_lets_as_many_in_as_it_says(make_app: MakeApp) -> None:
    client = with_token(make_app)

    dummy = register(client, username="mallory")
    wrong = register(client, username="mallory", auth={**PROOF, "token": "friends"})
    first = register(client, username="alice", auth=PROOF)
    second = register(client, username="bob", auth=PROOF)

    assert dummy.status_code == 401
    assert dummy.get_json()["flows"] == [{"stages": ["m.login.registration_token"]}]
    assert refusal(wrong) == (401, "M_FORBIDDEN")
    assert first.get_json()["user_id"] == "@alice:localhost"
    assert refusal(second) == (401, "M_FORBIDDEN")


def test_a_registration_that_fails_uses_no_token_up(make_app: MakeApp) -> None:
    client = with_token(make_app)

    register(client, username="alice", auth=PROOF, device_id="x" * 256)

    assert register(client, username="alice", auth=PROOF).status_code == 200


def test_validity_tells_which_tokens_would_be_taken(make_app: MakeApp) -> None:
    app = make_app(registration="token")
    client = app.test_client()
    with app.homeserver.database.write() as tx:
        registration_tokens.add(tx, "test", "good")
        registration_tokens.add(tx, "test", "old")
        tx.sql.raw.execute("UPDATE registration_tokens SET expires_ts = 1 WHERE token = 'old'")
        registration_tokens.add(tx, "test", "spent", uses_allowed=0)

    def is_valid(token: str) -> bool:
        answer: dict[str, bool] = client.get(f"{VALIDITY}?token={token}").get_json()
        return answer["valid"]

    assert [is_valid(token) for token in ("good", "old", "spent", "unknown")] == [
        True,
        False,
        False,
        False,
    ]
    assert refusal(client.get(VALIDITY)) == (400, "M_MISSING_PARAM")


def mac(secret: str, *parts: str) -> str:
    return hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()


def test_who_knows_the_shared_secret_registers_people(make_app: MakeApp) -> None:
    client = make_app(registration="closed", registration_shared_secret="s3cret").test_client()

    def attempt(**changed: bool) -> TestResponse:
        nonce = client.get(SHARED_SECRET).get_json()["nonce"]
        proof = mac("s3cret", nonce, "Alice", PASSWORD, "admin")
        body = {"nonce": nonce, "username": "Alice", "password": PASSWORD, "admin": True}
        return client.post(SHARED_SECRET, json={**body, "mac": proof, **changed})

    wrong = attempt(admin=False)
    right = attempt()
    again = attempt()

    assert refusal(wrong) == (403, "M_FORBIDDEN")
    assert right.status_code == 200
    assert right.get_json()["user_id"] == "@alice:localhost"
    assert client.get(f"{V3}profile/@alice:localhost").get_json() == {"displayname": "alice"}
    assert right.get_json()["access_token"]
    assert refusal(again) == (400, "M_USER_IN_USE")


@pytest.mark.parametrize("password", ["", "1234567", "ééééééé"])
def test_a_short_password_makes_no_account(make_app: MakeApp, password: str) -> None:
    client = make_app(registration_shared_secret="s3cret").test_client()
    nonce = client.get(SHARED_SECRET).get_json()["nonce"]
    proof = mac("s3cret", nonce, "alice", password, "notadmin")

    answers = [
        client.post(V3 + "register", json={"username": "alice", "password": password}),
        register(client, username="alice", password=password),
        client.post(
            SHARED_SECRET,
            json={"nonce": nonce, "username": "alice", "password": password, "mac": proof},
        ),
    ]
    free = client.get(V3 + "register/available", query_string={"username": "alice"})

    assert [refusal(answer) for answer in answers] == [(400, "M_WEAK_PASSWORD")] * 3
    assert free.status_code == 200


def test_how_long_a_password_has_to_be_is_a_setting(make_app: MakeApp) -> None:
    client = make_app(min_password_length="4").test_client()

    answers = [
        register(client, username="alice", password=password) for password in ("123", "1234")
    ]

    assert refusal(answers[0]) == (400, "M_WEAK_PASSWORD")
    assert answers[1].status_code == 200


@pytest.mark.parametrize("nonce", ["", "made-up", "ff.00.00", "ff.äö.€"])
def test_a_nonce_of_somebody_else_is_refused(make_app: MakeApp, nonce: str) -> None:
    client = make_app(registration_shared_secret="s3cret").test_client()
    proof = mac("s3cret", nonce, "alice", PASSWORD, "notadmin")

    answer = client.post(
        SHARED_SECRET,
        json={"nonce": nonce, "username": "alice", "password": PASSWORD, "mac": proof},
    )

    assert refusal(answer) == (400, "M_UNKNOWN")


def test_a_nonce_is_good_for_a_minute(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_app(registration_shared_secret="s3cret").test_client()
    nonce = client.get(SHARED_SECRET).get_json()["nonce"]
    proof = mac("s3cret", nonce, "alice", PASSWORD, "notadmin")
    later = time.time_ns() + 61_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)

    answer = client.post(
        SHARED_SECRET,
        json={"nonce": nonce, "username": "alice", "password": PASSWORD, "mac": proof},
    )

    assert refusal(answer) == (400, "M_UNKNOWN")


def test_without_a_shared_secret_there_is_no_such_endpoint(client: FlaskClient) -> None:
    assert refusal(client.get(SHARED_SECRET)) == (404, "M_UNRECOGNIZED")


def test_addresses_are_refused_by_their_names(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    body = {"client_secret": "x", "email": "alice@example.org", "send_attempt": 1}

    register_by_mail = client.post(V3 + "register/email/requestToken", json=body)
    forgotten = client.post(V3 + "account/password/email/requestToken", json=body)
    added = alice.post("account/3pid/add", json={"client_secret": "x", "sid": "1"})
    removed = alice.post("account/3pid/delete", json={"medium": "email", "address": "a@b.c"})

    assert refusal(register_by_mail) == (403, "M_THREEPID_DENIED")
    assert refusal(forgotten) == (400, "M_THREEPID_NOT_FOUND")
    assert refusal(added) == (403, "M_THREEPID_DENIED")
    assert refusal(removed) == (400, "M_THREEPID_NOT_FOUND")
    assert alice.get("account/3pid").get_json() == {"threepids": []}


def test_tokens_and_passwords_are_nowhere_in_the_database(make_app: MakeApp) -> None:
    app = make_app()
    session = register(
        app.test_client(), username="alice", password=PASSWORD, refresh_token=True
    ).get_json()

    with app.homeserver.database.read() as tx:
        dump = "\n".join(tx.sql.raw.iterdump())

    assert "@alice:localhost" in dump
    for secret in (PASSWORD, session["access_token"], session["refresh_token"]):
        assert not re.search(re.escape(secret), dump)
