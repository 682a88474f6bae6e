"""Logging in to pages with a browser, and what protects their forms."""

from __future__ import annotations

import re
import time
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts, moderation
from homebody.core.sessions import browser_sessions
from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp
from tests.helpers.pages import field, log_in, send
from tests.web.test_pages import visible

LOGIN = "/_homebody/login"
ACCOUNT = "/_homebody/account/"


def is_in(client: FlaskClient) -> bool:
    """Whether the browser has a session."""
    answer = client.get(LOGIN)
    return answer.status_code == 303


@pytest.fixture
def browser(app: Application, login: Login) -> FlaskClient:
    """Alice's browser, which has not logged in yet."""
    login("alice")
    return app.test_client()


def test_the_right_password_starts_a_session(browser: FlaskClient) -> None:
    answer = log_in(browser, "alice")

    assert (answer.status_code, answer.headers["Location"]) == (303, ACCOUNT)
    assert is_in(browser)
    (cookie,) = (it for it in answer.headers.getlist("Set-Cookie") if "session" in it)
    assert cookie.startswith("homebody_session=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


@pytest.mark.parametrize("name", ["Alice", "@alice:localhost", " alice "])
def test_the_name_may_be_typed_in_other_ways(browser: FlaskClient, name: str) -> None:
    assert log_in(browser, name).status_code == 303


@pytest.mark.parametrize(("name", "password"), [("alice", "x"), ("bob", PASSWORD), ("", "")])
def test_a_wrong_password_starts_none(browser: FlaskClient, name: str, password: str) -> None:
    answer = log_in(browser, name, password)

    assert answer.status_code == 403
    assert "Unknown user name or wrong password." in visible(answer)
    assert not is_in(browser)


def test_wrong_passwords_are_limited_as_those_of_clients(make_app: MakeApp) -> None:
    browser = make_app(rate_limits="true").test_client()

    statuses = [log_in(browser, "alice", "x") for _ in range(12)]

    assert statuses[0].status_code == 403
    last = statuses[-1]
    assert last.status_code == 429
    assert "Too many attempts. Try again in" in visible(last)


@pytest.mark.parametrize("token", ["", "x", "é", "0" * 64])
def test_a_form_of_another_site_is_refused(browser: FlaskClient, token: str) -> None:
    browser.get(LOGIN)

    form = {"user": "alice", "password": PASSWORD, "csrf_token": token}
    answer = browser.post(LOGIN, data=form)

    assert answer.status_code == 403
    assert "The form is too old" in visible(answer)
    assert not is_in(browser)


def test_a_form_without_any_cookie_is_refused(browser: FlaskClient, app: Application) -> None:
    token = field(browser.get(LOGIN))

    form = {"user": "alice", "password": PASSWORD, "csrf_token": token}
    answer = app.test_client().post(LOGIN, data=form)

    assert answer.status_code == 403


def test_a_form_that_was_open_before_the_login_is_still_accepted(browser: FlaskClient) -> None:
    token = field(browser.get(LOGIN))
    log_in(browser, "alice")

    answer = browser.post("/_homebody/logout", data={"csrf_token": token})

    assert answer.status_code == 303


def test_logging_out_ends_the_session(browser: FlaskClient, app: Application) -> None:
    log_in(browser, "alice")
    cookie = browser.get_cookie("homebody_session")
    assert cookie

    answer = send(browser, "/_homebody/logout", page=ACCOUNT)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert browser.get_cookie("homebody_session") is None
    thief = app.test_client()
    thief.set_cookie("homebody_session", cookie.value)
    assert not is_in(thief)


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/_homebody/account/export", "/_homebody/account/export"),
        ("/_homebody/admin/users?q=a%20b", "/_homebody/admin/users?q=a%20b"),
        ("https://evil.test/_homebody/", ACCOUNT),
        ("//evil.test/", ACCOUNT),
        ("/\\evil.test", ACCOUNT),
        ("/_homebody/\r\nSet-Cookie: a=b", ACCOUNT),
        ("/_homebody/é", ACCOUNT),
        ("", ACCOUNT),
    ],
)
def test_the_login_leads_to_pages_of_this_server_only(
    browser: FlaskClient, wanted: str, reached: str
) -> None:
    page = browser.get(LOGIN, query_string={"next": wanted})

    form = {"user": "alice", "password": PASSWORD, "next": wanted, "csrf_token": field(page)}
    answer = browser.post(LOGIN, data=form)

    assert answer.headers["Location"] == reached


def test_a_page_leads_to_the_login_and_back(browser: FlaskClient) -> None:
    answer = browser.get(ACCOUNT)

    assert answer.status_code == 303
    assert answer.headers["Location"] == f"{LOGIN}?next={ACCOUNT}"


def test_https_has_cookies_that_other_hosts_can_not_set(make_app: MakeApp, login: Login) -> None:
    login("alice")
    browser = make_app(public_url="https://chat.test").test_client()
    at = {"base_url": "https://chat.test"}

    token = field(browser.get(LOGIN, **at))
    form = {"user": "alice", "password": PASSWORD, "csrf_token": token}
    answer = browser.post(LOGIN, data=form, **at)

    (cookie,) = (it for it in answer.headers.getlist("Set-Cookie") if "session" in it)
    assert cookie.startswith("__Host-homebody_session=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))


def test_a_proxy_that_does_not_mention_https_changes_nothing(make_app: MakeApp) -> None:
    browser = make_app(public_url="https://chat.test").test_client()

    answer = browser.get(LOGIN, base_url="http://chat.test")

    assert answer.headers["Set-Cookie"].startswith("__Host-homebody_form=")
    assert "Secure" in answer.headers["Set-Cookie"]


def test_forms_are_limited_as_other_changes_of_a_user(make_app: MakeApp, login: Login) -> None:
    login("alice")
    limits = {"rc_writes.per_second": "0.001", "rc_writes.burst_count": "2"}
    browsers = make_app(rate_limits="true", **limits)
    browser = browsers.test_client()
    log_in(browser, "alice")

    for _ in range(2):
        browser.post("/_homebody/logout", data={"csrf_token": "wrong"})
    answer = send(browser, "/_homebody/logout", page=ACCOUNT)

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_a_suspended_user_can_log_out(app: Application, browser: FlaskClient) -> None:
    log_in(browser, "alice")
    with app.homeserver.database.write() as tx:
        accounts.set_suspended(tx, "@alice:localhost", is_suspended=True)

    answer = send(browser, "/_homebody/logout", page=ACCOUNT)

    assert answer.status_code == 303
    assert not is_in(browser)


def age(app: Application, column: str, by_ms: int) -> None:
    """Make all sessions older."""
    file = Path(app.homeserver.server.config.data_dir) / "homebody.db"
    with closing(connect(file)) as connection:
        connection.execute(f"UPDATE browser_sessions SET {column} = {column} - {by_ms}")  # noqa: S608
        connection.commit()


@pytest.mark.parametrize(
    ("column", "lifetime_ms"),
    [
        ("created_ts", browser_sessions.LIFETIME_MS),
        ("last_used_ts", browser_sessions.IDLE_MS),
    ],
)
def test_a_session_ends_by_itself(
    browser: FlaskClient, app: Application, column: str, lifetime_ms: int
) -> None:
    log_in(browser, "alice")

    age(app, column, lifetime_ms - 60_000)
    before = is_in(browser)
    age(app, column, lifetime_ms)

    assert (before, is_in(browser)) == (True, False)


def test_use_keeps_a_session(browser: FlaskClient, app: Application) -> None:
    log_in(browser, "alice")
    age(app, "last_used_ts", browser_sessions.IDLE_MS - 60_000)

    is_in(browser)
    with app.homeserver.database.read() as tx:
        (session,) = browser_sessions.all_of(tx, "@alice:localhost")

    assert time.time() * 1000 - session.last_used_ts < 60_000


@pytest.mark.parametrize("how", ["lock", "password", "everywhere", "deactivate"])
def test_a_session_ends_with_what_it_came_from(app: Application, login: Login, how: str) -> None:
    alice, browser = login("alice"), app.test_client()
    log_in(browser, "alice")
    who = {"type": "m.id.user", "user": "alice"}
    auth = {"type": "m.login.password", "identifier": who, "password": PASSWORD}

    if how == "lock":
        with app.homeserver.database.write() as tx:
            account = accounts.find(tx, alice.user_id)
            assert account
            moderation.set_locked(tx, "test", account, is_locked=True)
    elif how == "password":
        body = {"new_password": "another password", "logout_devices": False, "auth": auth}
        assert alice.post("account/password", json=body).status_code == 200
    elif how == "everywhere":
        assert alice.post("logout/all").status_code == 200
    else:
        assert alice.post("account/deactivate", json={"auth": auth}).status_code == 200

    assert not is_in(browser)


def test_the_oldest_of_many_sessions_end(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_sessions, "MAX_SESSIONS", 2)
    login("alice")
    browsers = [app.test_client() for _ in range(3)]

    for browser in browsers:
        log_in(browser, "alice")
        time.sleep(0.002)

    assert [is_in(browser) for browser in browsers] == [False, True, True]


def test_the_log_names_the_user_and_hides_tokens_in_paths(
    browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    log_in(browser, "alice")
    caplog.set_level("INFO", "homebody.access")

    browser.get(ACCOUNT)
    for path in ("/_homebody/invite/SECRET", "/_homebody/res%65t/SECRET/x"):
        browser.get(path)

    assert "GET /_homebody/account/ @alice:localhost" in caplog.text
    assert "SECRET/" not in caplog.text
    assert "/SECRET" not in caplog.text


def test_each_response_of_a_page_forbids_to_keep_it(browser: FlaskClient) -> None:
    answers: list[TestResponse] = [browser.get(LOGIN), browser.get(ACCOUNT)]

    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"https?://", answers[0].get_data(as_text=True))
