"""The page on which the users of a client register."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.sessions import registration_tokens
from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp
from tests.helpers.oauth import App, decide, register, returned, whoami
from tests.helpers.pages import field
from tests.web.test_invitations import may_log_in
from tests.web.test_pages import visible

NEW = {"name": "maria", "password": PASSWORD, "again": PASSWORD}
TERMS = (
    '[{ id = "rules", version = "1", language = "en", name = "Our rules",'
    ' url = "https://example.com/rules" }]'
)


def fill_in(browser: FlaskClient, example: App, **values: str) -> TestResponse:
    """Follow the client's link, fill in the form, and send it."""
    url = browser.get(example.url(prompt="create")).headers["Location"]
    return browser.post(url, data={"csrf_token": field(browser.get(url)), **NEW, **values})


@pytest.fixture
def browser(app: Application) -> FlaskClient:
    """The browser of somebody without an account."""
    return app.test_client()


def test_a_new_user_registers_and_lets_the_client_in(
    app: Application, browser: FlaskClient, example: App
) -> None:
    answer = fill_in(browser, example, name="Maria")

    url = answer.headers["Location"]
    assert answer.status_code == 303
    assert "prompt" not in url
    assert "@maria:localhost" in visible(browser.get(url))
    code = returned(decide(browser, url, "allow"))["code"]
    token = example.exchange(code).get_json()["access_token"]
    assert whoami(example.client, token).get_json()["user_id"] == "@maria:localhost"
    assert may_log_in(app, "maria", PASSWORD)


def test_a_user_who_has_an_account_goes_to_the_login(browser: FlaskClient, example: App) -> None:
    page = browser.get(browser.get(example.url(prompt="create")).headers["Location"])

    assert "/_homebody/oauth/authorize?client_id=" in page.text
    assert "prompt" not in page.text


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "bob"}, "taken"),
        ({"name": "ä"}, "A user name consists of"),
        ({"name": ""}, "A user name consists of"),
        ({"password": "short", "again": "short"}, "The password has fewer"),
        ({"again": "other"}, "not the same"),
    ],
)
def test_the_page_says_what_is_wrong(
    app: Application,
    browser: FlaskClient,
    example: App,
    login: Login,
    values: dict[str, str],
    problem: str,
) -> None:
    login("bob")

    answer = fill_in(browser, example, **values)

    assert answer.status_code == 400
    assert problem in visible(answer)
    assert not may_log_in(app, "maria", PASSWORD)


def test_a_registration_token_is_used_up(make_app: MakeApp) -> None:
    app = make_app(registration="token")
    with app.homeserver.database.write() as tx:
        registration_tokens.add(tx, "test", "let-me-in", uses_allowed=1, expires_ts=None)
    example, browser = App(app.test_client()), app.test_client()

    wrong = fill_in(browser, example, token="nonsense")
    none = fill_in(browser, example)
    right = fill_in(browser, example, token="let-me-in")
    again = fill_in(app.test_client(), example, name="other", token="let-me-in")

    assert [it.status_code for it in (wrong, none, right, again)] == [400, 400, 303, 400]
    assert "not valid" in visible(wrong)


def test_terms_must_be_accepted(make_app: MakeApp) -> None:
    app = make_app(terms=TERMS)
    example, browser = App(app.test_client()), app.test_client()

    without = fill_in(browser, example)
    accepted = fill_in(browser, example, terms="yes")

    assert (without.status_code, accepted.status_code) == (400, 303)
    assert "Our rules" in visible(without)


def test_closed_registration_stays_closed(make_app: MakeApp) -> None:
    app = make_app(registration="closed")
    example, browser = App(app.test_client()), app.test_client()
    url = browser.get(example.url(prompt="create")).headers["Location"]

    shown = browser.get(url)
    token = field(browser.get("/_homebody/login"))
    sent = browser.post(url, data={"csrf_token": token, **NEW})

    assert (shown.status_code, sent.status_code) == (403, 403)
    assert "closed" in visible(shown)
    assert "register?" not in browser.get(browser.get(example.url()).headers["Location"]).text


def test_a_form_of_another_site_registers_nobody(
    app: Application, browser: FlaskClient, example: App
) -> None:
    url = browser.get(example.url(prompt="create")).headers["Location"]

    answer = browser.post(url, data={"csrf_token": "0" * 64, **NEW})

    assert answer.status_code == 403
    assert not may_log_in(app, "maria", PASSWORD)


def test_registrations_share_the_limit_of_the_api(make_app: MakeApp) -> None:
    app = make_app(rate_limits="true", **{"rc_registration.burst_count": "2"})
    example, browser = App(app.test_client()), app.test_client()

    first = fill_in(browser, example)
    second = fill_in(browser, example, name="other")

    assert (first.status_code, second.status_code) == (303, 429)
    assert register(app.test_client()).status_code == 429


def test_the_page_is_for_clients_that_are_registered(browser: FlaskClient, example: App) -> None:
    url = example.url(redirect_uri="https://evil.example.org/")

    answer = browser.get(f"/_homebody/oauth/register?{urlsplit(url).query}")

    assert answer.status_code == 400
