"""Single sign-on of clients: m.login.sso, with providers and without."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import login_tokens
from homebody.web import Application
from homebody.web.sign_on_pages.clients import with_token
from tests.conftest import PASSWORD, Login, MakeApp
from tests.helpers.openid_provider import Provider, visit
from tests.helpers.pages import field, log_in, send
from tests.helpers.rooms import refusal
from tests.web.test_pages import visible

V3 = "/_matrix/client/v3/"
REDIRECT = f"{V3}login/sso/redirect"
CLIENT = "https://client.test/?a=b"


@pytest.fixture
def app(make_app: MakeApp, provider: Provider) -> Application:
    """A server that makes accounts at once, and trusts a client."""
    settings = provider.settings(localpart_template="{sub}", brand="keycloak")
    return make_app(oidc_providers=settings, sso_trusted_clients="https://trusted.test/app")


def agree(browser: FlaskClient, page: TestResponse, url: str = CLIENT) -> TestResponse:
    """Send the form of the page that asks whether to continue."""
    data = {"csrf_token": field(page), "redirectUrl": url}
    return browser.post("/_homebody/sign-on/client", data=data)


def token_login(browser: FlaskClient, location: str) -> TestResponse:
    """Log in a client with the token that it got."""
    token = location.partition("loginToken=")[2].partition("&")[0]
    return browser.post(f"{V3}login", json={"type": "m.login.token", "token": token})


def ask(browser: FlaskClient, provider: Provider, url: str = CLIENT) -> TestResponse:
    """Log in at the provider for a client, and return the page that asks about it."""
    done = visit(browser, provider, f"{REDIRECT}/test?redirectUrl={quote(url, safe='')}")
    assert done.status_code == 303, done.get_data(as_text=True)
    return browser.get(done.headers["Location"])


def test_the_flow_names_the_providers(browser: FlaskClient) -> None:
    flows = browser.get(f"{V3}login").get_json()["flows"]
    older = browser.get("/_matrix/client/r0/login").get_json()["flows"]

    (sso,) = (it for it in flows if it["type"] == "m.login.sso")
    assert older == flows
    assert sso["identity_providers"] == [{"id": "test", "name": "The test", "brand": "keycloak"}]
    assert sso["oauth_aware_preferred"] is True
    assert sso["org.matrix.msc3824.delegated_oidc_compatibility"] is True


def test_no_flow_is_preferred_where_there_is_no_oauth(make_app: MakeApp) -> None:
    browser = make_app(oauth="false").test_client()

    flows = browser.get(f"{V3}login").get_json()["flows"]

    assert [it for it in flows if it["type"] == "m.login.sso"] == [{"type": "m.login.sso"}]


def test_a_client_logs_in_by_a_provider_once_the_user_agrees(
    browser: FlaskClient, provider: Provider
) -> None:
    page = ask(browser, provider)
    answer = agree(browser, page)
    session = token_login(browser, answer.headers["Location"])
    again = token_login(browser, answer.headers["Location"])

    assert "client.test gets access" in visible(page)
    assert "form-action" not in page.headers["Content-Security-Policy"]
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("https://client.test/?a=b&loginToken=hbl_")
    assert session.get_json()["user_id"] == "@1234:localhost"
    assert again.status_code == 403


def test_a_token_ends_with_the_session_of_the_browser(
    browser: FlaskClient, provider: Provider
) -> None:
    answer = agree(browser, ask(browser, provider))
    send(browser, "/_homebody/logout", page="/_homebody/account/")

    session = token_login(browser, answer.headers["Location"])

    assert refusal(session) == (403, "M_FORBIDDEN")


def test_without_providers_the_user_logs_in_by_password(make_app: MakeApp, login: Login) -> None:
    app = make_app()
    login("alice")
    browser = app.test_client()

    leaving = browser.get(f"{REDIRECT}?redirectUrl={quote(CLIENT, safe='')}")
    to_login = browser.get(leaving.headers["Location"])
    log_in(browser, "alice")
    page = browser.get(leaving.headers["Location"])
    answer = agree(browser, page)

    assert leaving.status_code == 302
    assert to_login.headers["Location"].startswith("/_homebody/login?next=")
    assert "@alice:localhost" in visible(page)
    assert token_login(browser, answer.headers["Location"]).status_code == 200


def test_a_new_user_registers_for_a_client(make_app: MakeApp) -> None:
    browser = make_app().test_client()
    query = f"redirectUrl={quote(CLIENT, safe='')}&action=register"

    leaving = browser.get(f"{REDIRECT}?{query}")
    page = browser.get(leaving.headers["Location"])
    form = {"name": "maria", "password": PASSWORD, "again": PASSWORD}
    made = browser.post(leaving.headers["Location"], data={"csrf_token": field(page), **form})
    answer = agree(browser, browser.get(made.headers["Location"]))

    assert "Create an account" in visible(page)
    session = token_login(browser, answer.headers["Location"]).get_json()
    assert session["user_id"] == "@maria:localhost"


@pytest.mark.parametrize("action", ["login", "register", "x"])
def test_where_registration_is_closed_users_can_only_log_in(make_app: MakeApp, action: str) -> None:
    browser = make_app(registration="closed").test_client()

    leaving = browser.get(REDIRECT, query_string={"redirectUrl": CLIENT, "action": action})

    assert leaving.headers["Location"].startswith("/_homebody/sign-on/client?")


def test_the_registration_leads_to_no_other_kind_of_url(make_app: MakeApp) -> None:
    browser = make_app().test_client()

    answer = browser.get("/_homebody/oauth/register?redirectUrl=javascript:alert(1)")

    assert answer.status_code == 400


def test_the_login_page_leads_back_to_the_client(browser: FlaskClient, provider: Provider) -> None:
    leaving = browser.get(f"{REDIRECT}?redirectUrl={quote(CLIENT, safe='')}")
    to_login = browser.get(leaving.headers["Location"])
    html = browser.get(to_login.headers["Location"]).get_data(as_text=True)
    link = html.partition('href="/_homebody/sign-on/start')[2].partition('"')[0]

    done = visit(browser, provider, f"/_homebody/sign-on/start{link.replace('&amp;', '&')}")

    assert done.headers["Location"] == leaving.headers["Location"]


def test_a_token_is_sent_nowhere_without_the_form(browser: FlaskClient, provider: Provider) -> None:
    ask(browser, provider)

    forged = browser.post("/_homebody/sign-on/client", data={"redirectUrl": CLIENT})

    assert forged.status_code == 403


@pytest.mark.parametrize("url", ["https://trusted.test/app", "https://trusted.test/app/x?y#z"])
def test_a_trusted_client_needs_no_question_after_a_login(
    browser: FlaskClient, provider: Provider, url: str
) -> None:
    answer = ask(browser, provider, url)

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("https://trusted.test/app")
    assert token_login(browser, answer.headers["Location"].partition("#")[0]).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "https://trusted.test.evil.test/app",
        "https://trusted.test/application",
        "https://trusted.test/app/../x",
        "https://trusted.test/app/%2e%2e/x",
        "https://trusted.test/app/.%2E/x",
        "https://trusted.test/",
        "http://trusted.test/app",
        "https://trusted.test:8443/app",
    ],
)
def test_what_only_looks_like_a_trusted_client_is_asked_about(
    browser: FlaskClient, provider: Provider, url: str
) -> None:
    assert ask(browser, provider, url).status_code == 200


def test_a_trusted_client_is_asked_about_later(
    browser: FlaskClient, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.web.sign_on_pages.clients.FRESH_MS", -1)

    assert ask(browser, provider, "https://trusted.test/app").status_code == 200


def test_another_account_can_be_chosen(browser: FlaskClient, provider: Provider) -> None:
    page = ask(browser, provider)

    data = {"csrf_token": field(page), "redirectUrl": CLIENT}
    answer = browser.post("/_homebody/sign-on/switch", data=data)

    assert answer.headers["Location"].startswith("/_homebody/login?next=%2F_homebody%2Fsign-on")
    assert browser.get("/_homebody/login").status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/relative",
        "//client.test",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "https:",
        "https:///x",
        "https://user@client.test",
        "https://[client.test",
        "https://client.test/ x",
        "https://client.test/\nX: y",
        "https://client.test\\@evil.test",
        "https://cli\N{CYRILLIC SMALL LETTER IE}nt.test",
        "intent://x#Intent;package=test.evil;end",
        f"https://client.test/{'x' * 5000}",
    ],
)
@pytest.mark.parametrize("path", ["", "/test"])
def test_what_is_not_the_url_of_a_client_is_refused(
    browser: FlaskClient, path: str, url: str
) -> None:
    answer = browser.get(REDIRECT + path, query_string={"redirectUrl": url})

    assert answer.status_code == 400
    assert answer.get_json()["errcode"] == ("M_INVALID_PARAM" if url else "M_MISSING_PARAM")
    assert "Location" not in answer.headers


def test_an_unknown_provider_is_a_page_for_browsers(browser: FlaskClient) -> None:
    url = f"{REDIRECT}/x?redirectUrl=https://client.test"

    page = browser.get(url, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    answer = browser.get(url)

    assert (page.status_code, page.content_type) == (404, "text/html; charset=utf-8")
    assert (answer.status_code, answer.get_json()["errcode"]) == (404, "M_NOT_FOUND")


def test_the_token_expires_soon(
    browser: FlaskClient, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_tokens, "SSO_LIFETIME_MS", 0)
    answer = agree(browser, ask(browser, provider))

    assert token_login(browser, answer.headers["Location"]).status_code == 403


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://c.test", "https://c.test?loginToken=T"),
        ("https://c.test/?x=y&loginToken=a&z", "https://c.test/?x=y&z&loginToken=T"),
        ("https://c.test/?login%54oken=a&%zz", "https://c.test/?%zz&loginToken=T"),
        (
            "https://c.test/?loginToken=a#/b?loginToken=c",
            "https://c.test/?loginToken=T#/b?loginToken=c",
        ),
        ("element://connect", "element://connect?loginToken=T"),
        ("app:/x?y", "app:/x?y&loginToken=T"),
    ],
)
def test_the_token_replaces_those_in_the_url(url: str, expected: str) -> None:
    assert with_token(url, "T") == expected


def test_an_app_is_shown_by_its_scheme(browser: FlaskClient, provider: Provider) -> None:
    page = ask(browser, provider, "element://connect")

    assert "links of the kind element gets access" in visible(page)
