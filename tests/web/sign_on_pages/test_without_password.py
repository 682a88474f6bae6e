"""What needs the password, of users who have none: they log in again, at a provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import PASSWORD, Login
from tests.helpers.openid_provider import Provider, visit
from tests.helpers.pages import log_in, send
from tests.web.sign_on_pages.test_accounts import ALICE, linked
from tests.web.sign_on_pages.test_accounts import send as answer_page
from tests.web.test_invitations import may_log_in
from tests.web.test_pages import visible

ACCOUNT = "/_homebody/account/"
RESET = "/_homebody/oauth/account/cross_signing_reset"
MINUTES_MS = 10 * 60_000
FORMS = {
    f"{ACCOUNT}password": {"password": PASSWORD, "again": PASSWORD},
    f"{ACCOUNT}deactivate": {"sure": "yes"},
    RESET: {},
}


@pytest.fixture
def newcomer(browser: FlaskClient, provider: Provider) -> FlaskClient:
    """The browser of Alice, who has an account by a provider alone."""
    page = visit(browser, provider, preferred_username="alice")
    assert answer_page(browser, page, "new", name="alice").status_code == 303
    return browser


def log_in_again(browser: FlaskClient, provider: Provider, **claims: Any) -> TestResponse:
    """Follow the link of a page that needs a password."""
    return visit(browser, provider, "/_homebody/sign-on/again/test", **claims)


@pytest.mark.parametrize("path", sorted(FORMS))
def test_a_login_that_was_asked_for_is_enough(
    newcomer: FlaskClient, provider: Provider, path: str
) -> None:
    page = newcomer.get(path)
    done = log_in_again(newcomer, provider)

    answer = send(newcomer, path, **FORMS[path])

    assert 'name="current"' not in page.text
    assert 'href="/_homebody/sign-on/again/test"' in page.text
    assert "send the form on the page before" in visible(done)
    assert answer.status_code in {200, 303}
    assert "Log in again first" not in visible(answer)


@pytest.mark.parametrize("path", sorted(FORMS))
def test_a_login_that_may_have_asked_nothing_is_not(newcomer: FlaskClient, path: str) -> None:
    answer = send(newcomer, path, **FORMS[path])

    assert answer.status_code in {400, 403}
    assert "Log in again first" in visible(answer)
    assert newcomer.get(ACCOUNT).status_code == 200


def test_an_older_one_is_not(
    newcomer: FlaskClient, provider: Provider, later: Callable[[int], None]
) -> None:
    log_in_again(newcomer, provider)
    later(MINUTES_MS)

    assert send(newcomer, RESET).status_code == 403


def test_one_of_another_user_or_in_another_browser_is_not(
    newcomer: FlaskClient, provider: Provider, app: Application
) -> None:
    other = log_in_again(newcomer, provider, sub="5678")
    elsewhere = app.test_client()
    visit(elsewhere, provider)
    log_in_again(elsewhere, provider)

    assert (other.status_code, "belongs to another account" in visible(other)) == (403, True)
    assert send(newcomer, RESET).status_code == 403
    assert send(elsewhere, RESET).status_code == 200


@pytest.mark.parametrize("auth_time", [int(time.time()) - 36_000, "now", float("nan"), []])
def test_the_provider_is_told_to_ask_and_must_not_say_that_it_has_not(
    newcomer: FlaskClient, provider: Provider, auth_time: Any
) -> None:
    leaving = newcomer.get("/_homebody/sign-on/again/test").headers["Location"]

    answer = newcomer.get(provider.log_in(leaving, auth_time=auth_time))

    assert "&max_age=0" in leaving
    assert answer.status_code == 502
    assert send(newcomer, RESET).status_code == 403


def test_another_login_is_linked_only_after_it(
    newcomer: FlaskClient, provider: Provider, app: Application
) -> None:
    page = visit(newcomer, provider, "/_homebody/sign-on/link/test", sub="5678")

    without = answer_page(newcomer, page, "link")
    before = linked(app, ALICE)
    log_in_again(newcomer, provider)
    after = answer_page(newcomer, page, "link")

    assert (without.status_code, "Log in again first" in visible(without)) == (403, True)
    assert before == [("test", "1234")]
    assert after.status_code == 303
    assert linked(app, ALICE) == [("test", "1234"), ("test", "5678")]


def test_somebody_without_a_session_has_to_log_in_first(browser: FlaskClient) -> None:
    answer = browser.get("/_homebody/sign-on/again/test")

    assert answer.headers["Location"].startswith("/_homebody/login?next=")


def test_a_password_is_set_and_needed_from_then_on(
    newcomer: FlaskClient, provider: Provider, app: Application
) -> None:
    log_in_again(newcomer, provider)
    send(newcomer, f"{ACCOUNT}password", password=PASSWORD, again=PASSWORD)

    without = send(newcomer, RESET)
    wrong = send(newcomer, RESET, current="wrong")
    right = send(newcomer, RESET, current=PASSWORD)

    assert may_log_in(app, "alice", PASSWORD)
    assert [it.status_code for it in (without, wrong, right)] == [403, 403, 200]


def test_users_with_a_password_still_need_it(app: Application, login: Login) -> None:
    login("bob")
    browser = app.test_client()
    log_in(browser, "bob")

    assert send(browser, RESET).status_code == 403
    assert send(browser, RESET, current=PASSWORD).status_code == 200
