"""What needs the password, of users who have none: a login at a provider just before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import PASSWORD, Login
from tests.helpers.openid_provider import Provider, visit
from tests.helpers.pages import log_in, send
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


@pytest.mark.parametrize("path", sorted(FORMS))
def test_a_fresh_login_is_enough(newcomer: FlaskClient, path: str) -> None:
    page = newcomer.get(path)

    answer = send(newcomer, path, **FORMS[path])

    assert 'name="current"' not in page.text
    assert answer.status_code in {200, 303}
    assert "Log out of these pages" not in visible(answer)


@pytest.mark.parametrize("path", sorted(FORMS))
def test_an_older_login_is_not(
    newcomer: FlaskClient, later: Callable[[int], None], path: str
) -> None:
    later(MINUTES_MS)

    answer = send(newcomer, path, **FORMS[path])

    assert answer.status_code in {400, 403}
    assert "log in again, and repeat this within 10 minutes" in visible(answer)
    assert newcomer.get(ACCOUNT).status_code == 200


def test_a_password_is_set_and_needed_from_then_on(newcomer: FlaskClient, app: Application) -> None:
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
