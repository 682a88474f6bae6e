"""A new password for users who have forgotten the old one, by a mail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts
from homebody.web import Application
from tests.client_server.test_account import can_log_in
from tests.conftest import PASSWORD, V3, Login, MakeApp
from tests.core.accounts.test_threepids import add, ask, press_the_button, validated
from tests.helpers import mail_server
from tests.helpers.mail_server import Mailbox, body_of
from tests.helpers.rooms import refusal

FORGOTTEN = "account/password/email/requestToken"
ADDRESS = "alice@example.org"
NEW = "another battery"


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mail_server.running(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def app(make_app: MakeApp, mailbox: Mailbox) -> Application:
    mailbox.empty()
    return make_app(**mailbox.settings)


def reset(client: FlaskClient, credentials: dict[str, str], **body: Any) -> TestResponse:
    auth = {"type": "m.login.email.identity", "threepid_creds": credentials}
    return client.post(V3 + "account/password", json={"new_password": NEW, "auth": auth, **body})


def test_a_mail_brings_a_new_password(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)

    answer = reset(alice.client, credentials)

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert can_log_in(alice.client, NEW)
    assert not can_log_in(alice.client, PASSWORD)
    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_a_locked_account_gets_no_new_password(
    app: Application, login: Login, mailbox: Mailbox
) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=True)

    answer = reset(alice.client, credentials)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=False)

    assert refusal(answer) == (401, "M_USER_LOCKED")
    assert can_log_in(alice.client, PASSWORD)


def test_the_sessions_may_go_on(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)

    reset(alice.client, credentials, logout_devices=False)

    assert can_log_in(alice.client, NEW)
    assert alice.get("account/whoami").status_code == 200


def test_the_flow_can_be_asked_for_and_waits_for_the_link(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    sid = ask(alice.client, FORGOTTEN, ADDRESS).get_json()["sid"]
    credentials = {"sid": sid, "client_secret": "monkeys_are.GREAT"}

    asked = alice.client.post(V3 + "account/password", json={"new_password": NEW})
    early = reset(alice.client, credentials)
    press_the_button(alice.client, mailbox.link(ADDRESS))
    late = reset(alice.client, credentials)

    assert asked.get_json()["flows"] == [{"stages": ["m.login.email.identity"]}]
    assert refusal(early) == (401, "M_THREEPID_AUTH_FAILED")
    assert late.status_code == 200


def test_a_link_gives_one_password(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)
    reset(alice.client, credentials)

    again = reset(alice.client, credentials, new_password="a third one")

    assert refusal(again) == (401, "M_THREEPID_AUTH_FAILED")
    assert can_log_in(alice.client, NEW)


@pytest.mark.parametrize("path", ["register/email/requestToken", "account/3pid/email/requestToken"])
def test_a_mail_for_another_purpose_gives_no_password(
    login: Login, mailbox: Mailbox, path: str
) -> None:
    alice = login("alice")
    credentials = validated(alice.client, mailbox, path, ADDRESS)
    add(alice, mailbox, ADDRESS)

    answer = reset(alice.client, credentials)

    assert refusal(answer) == (401, "M_THREEPID_AUTH_FAILED")
    assert can_log_in(alice.client, PASSWORD)


def test_an_unknown_address_gets_a_mail_that_says_so(client: FlaskClient, mailbox: Mailbox) -> None:
    answer = ask(client, FORGOTTEN, "stranger@example.org")

    credentials = {"sid": answer.get_json()["sid"], "client_secret": "monkeys_are.GREAT"}
    mail = mailbox.newest("stranger@example.org")
    assert answer.status_code == 200
    assert mail["Subject"] == "There is no account with this address (localhost)"
    assert "http" not in body_of(mail, "plain")
    assert refusal(reset(client, credentials)) == (401, "M_THREEPID_AUTH_FAILED")


def test_an_address_that_was_removed_meanwhile_gives_no_password(
    login: Login, mailbox: Mailbox
) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)
    alice.post("account/3pid/delete", json={"medium": "email", "address": ADDRESS})

    answer = reset(alice.client, credentials)

    assert refusal(answer) == (400, "M_THREEPID_NOT_FOUND")
    assert can_log_in(alice.client, PASSWORD)


def test_a_session_of_one_request_sets_no_other_password(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)
    first = alice.client.post(V3 + "account/password", json={"new_password": NEW})
    auth = {
        "type": "m.login.email.identity",
        "threepid_creds": credentials,
        "session": first.get_json()["session"],
    }

    answer = alice.client.post(
        V3 + "account/password", json={"new_password": "x" * 12, "auth": auth}
    )

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert can_log_in(alice.client, PASSWORD)


@pytest.mark.parametrize("password", ["", "x" * 513])
def test_a_bad_password_is_refused_before_the_link_is_used(
    login: Login, mailbox: Mailbox, password: str
) -> None:
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    credentials = validated(alice.client, mailbox, FORGOTTEN, ADDRESS)

    refused = reset(alice.client, credentials, new_password=password)

    assert refused.status_code == 400
    assert reset(alice.client, credentials).status_code == 200


def test_without_a_mail_server_the_token_is_needed(make_app: MakeApp) -> None:
    client = make_app().test_client()

    answer = client.post(V3 + "account/password", json={"new_password": NEW})

    assert refusal(answer) == (401, "M_MISSING_TOKEN")
