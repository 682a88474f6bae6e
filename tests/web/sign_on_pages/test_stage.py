"""Users without a password confirm requests by a login at their provider."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import external_ids
from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp, Person
from tests.helpers.openid_provider import Provider, visit
from tests.web.sign_on_pages.test_accounts import send
from tests.web.sign_on_pages.test_clients import agree, ask, token_login
from tests.web.test_pages import visible

V3 = "/_matrix/client/v3/"
FALLBACK = f"{V3}auth/m.login.sso/fallback/web"
DELETE = "delete_devices"


@pytest.fixture
def app(make_app: MakeApp, provider: Provider) -> Application:
    """A server that makes accounts at once."""
    return make_app(oidc_providers=provider.settings(localpart_template="{sub}"))


def client_of(browser: FlaskClient, provider: Provider) -> Person:
    """A client that was logged in by the browser."""
    answer = agree(browser, ask(browser, provider))
    session = token_login(browser, answer.headers["Location"]).get_json()
    return Person(browser, session["user_id"], session["access_token"], session["device_id"])


def challenge(person: Person, **auth: Any) -> TestResponse:
    """The response to a request that needs confirmation."""
    body: dict[str, Any] = {"devices": ["X"]}
    return person.post(DELETE, json=body | ({"auth": auth} if auth else {}))


def confirm(browser: FlaskClient, provider: Provider, session: str, **claims: Any) -> TestResponse:
    """Follow the link of the fallback page, and log in."""
    return visit(browser, provider, f"/_homebody/sign-on/confirm/test?session={session}", **claims)


def test_a_user_without_a_password_confirms_by_a_login(
    browser: FlaskClient, provider: Provider
) -> None:
    person = client_of(browser, provider)
    asked = challenge(person).get_json()

    page = browser.get(FALLBACK, query_string={"session": asked["session"]})
    before = challenge(person, session=asked["session"])
    asking = confirm(browser, provider, asked["session"])
    unconfirmed = challenge(person, session=asked["session"])
    done = send(browser, asking, "confirm")
    after = challenge(person, session=asked["session"])

    assert asked["flows"] == [{"stages": ["m.login.sso"]}]
    assert "log out some of your devices" in visible(page)
    assert "log out some of your devices" in visible(asking)
    assert (before.status_code, unconfirmed.status_code) == (401, 401)
    assert "onAuthDone" in done.get_data(as_text=True)
    assert after.status_code == 200


def test_the_stage_is_not_completed_by_naming_it(browser: FlaskClient, provider: Provider) -> None:
    person = client_of(browser, provider)
    session = challenge(person).get_json()["session"]

    answer = challenge(person, type="m.login.sso", session=session)

    assert answer.status_code == 401
    assert answer.get_json()["completed"] == []
    assert challenge(person, session=session).status_code == 401


def test_another_user_of_the_provider_confirms_nothing(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    person = client_of(browser, provider)
    other = app.test_client()
    visit(other, provider, sub="5678")
    session = challenge(person).get_json()["session"]

    page = confirm(other, provider, session, sub="5678")

    assert page.status_code == 403
    assert "belongs to another account" in visible(page)
    assert challenge(person, session=session).status_code == 401


def test_the_provider_is_asked_for_a_new_login(browser: FlaskClient, provider: Provider) -> None:
    person = client_of(browser, provider)
    session = challenge(person).get_json()["session"]
    start = f"/_homebody/sign-on/confirm/test?session={session}"

    first = browser.get(start).headers["Location"]
    usual = browser.get("/_homebody/sign-on/start/test").headers["Location"]
    old = browser.get(provider.log_in(first, auth_time=int(time.time()) - 3600))
    page = confirm(browser, provider, session, auth_time=int(time.time()))

    assert "&max_age=0" in first
    assert "max_age" not in usual
    assert old.status_code == 502
    assert "Go ahead?" in visible(page)


def test_a_login_for_something_else_confirms_nothing(make_app: MakeApp, provider: Provider) -> None:
    browser = make_app(oidc_providers=provider.settings()).test_client()
    page = visit(browser, provider)

    assert send(browser, page, "confirm").status_code == 403


def test_users_with_a_password_may_choose(
    browser: FlaskClient, login: Login, app: Application
) -> None:
    alice = login("alice")
    unlinked = challenge(alice).get_json()
    with app.homeserver.database.write() as tx:
        external_ids.add(tx, alice.user_id, "test", "1")

    linked = challenge(alice).get_json()
    who = {"type": "m.id.user", "user": "alice"}
    auth = {"type": "m.login.password", "identifier": who, "password": PASSWORD}
    answer = challenge(alice, session=linked["session"], **auth)

    assert unlinked["flows"] == [{"stages": ["m.login.password"]}]
    assert linked["flows"] == [{"stages": ["m.login.password"]}, {"stages": ["m.login.sso"]}]
    assert answer.status_code == 200


@pytest.mark.parametrize("session", ["", "x", "%00"])
def test_an_unknown_session_is_a_page(browser: FlaskClient, session: str) -> None:
    answers = [
        browser.get(f"{FALLBACK}?session={session}"),
        browser.get(f"/_homebody/sign-on/confirm/test?session={session}"),
    ]

    assert [it.status_code for it in answers] == [401, 401]
    assert all(it.content_type == "text/html; charset=utf-8" for it in answers)
