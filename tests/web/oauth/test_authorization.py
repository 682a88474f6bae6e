"""The page on which a user lets a client in."""

from __future__ import annotations

import re
import threading
import time
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts, oauth_sessions
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.oauth import (
    AUTHORIZE,
    METADATA,
    WEB,
    App,
    decide,
    forwarded,
    returned,
    scope,
    whoami,
)
from tests.helpers.pages import field, log_in
from tests.web.test_pages import visible


def test_a_client_logs_in(browser: FlaskClient, example: App, alice: Person) -> None:
    tokens = example.log_in(browser)

    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == scope()
    found = whoami(example.client, tokens["access_token"]).get_json()
    assert (found["user_id"], found["device_id"]) == (alice.user_id, "DEVICE1234")
    devices = {it["device_id"]: it for it in alice.get("devices").get_json()["devices"]}
    assert devices["DEVICE1234"]["display_name"] == "Example"


def test_the_page_names_client_user_and_device(
    browser: FlaskClient, client: FlaskClient, alice: Person
) -> None:
    app = App(client, client_name="<b>Bad</b>", policy_uri="https://example.com/policy")

    answer = browser.get(app.url())

    text = visible(answer)
    assert "<b>Bad</b>" not in answer.text
    assert alice.user_id in text
    assert "(example.com)" in text
    assert "DEVICE1234" in text
    assert "app.example.com" in text
    assert "https://example.com/policy" in answer.text


def test_a_page_can_not_be_framed_or_kept(browser: FlaskClient, example: App) -> None:
    answer = browser.get(example.url())

    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_form_may_lead_to_other_sites_but_only_this_one(
    browser: FlaskClient, example: App
) -> None:
    asking, login = browser.get(example.url()), browser.get("/_homebody/account/password")

    assert "form-action" not in asking.headers["Content-Security-Policy"]
    assert "form-action 'self'" in login.headers["Content-Security-Policy"]


@pytest.mark.parametrize("mode", ["query", "fragment", None])
def test_the_code_is_sent_as_the_client_wants(
    browser: FlaskClient, example: App, mode: str | None
) -> None:
    answer = decide(browser, example.url(response_mode=mode, state="a b&c"), "allow")

    parts = urlsplit(answer.headers["Location"])
    given, other = (
        (parts.fragment, parts.query) if mode == "fragment" else (parts.query, parts.fragment)
    )
    assert answer.headers["Location"].startswith(WEB)
    assert parse_qs(given)["state"] == ["a b&c"]
    assert parse_qs(given)["iss"] == ["http://localhost:8008/"]
    assert parse_qs(given)["code"]
    assert other == ""


@pytest.mark.parametrize("state", ["", None])
def test_a_state_without_a_value_is_none(
    browser: FlaskClient, example: App, state: str | None
) -> None:
    answer = decide(browser, example.url(state=state), "allow")

    assert "state=" not in answer.headers["Location"]


def test_a_redirect_uri_keeps_its_query(browser: FlaskClient, client: FlaskClient) -> None:
    app = App(client, redirect_uris=[f"{WEB}?a=b"])

    answer = decide(browser, app.url(), "allow")

    assert answer.headers["Location"].startswith(f"{WEB}?a=b&code=")


@pytest.mark.parametrize(
    ("registered", "used"),
    [
        ("com.example.app:/callback", "com.example.app:/callback"),
        ("com.example:callback", "com.example:callback"),
        ("http://localhost/callback", "http://localhost:1234/callback"),
        ("http://127.0.0.1/", "http://127.0.0.1:80"),
        ("http://[::1]/callback?a=b", "http://[::1]:65535/callback?a=b"),
    ],
)
def test_native_clients_get_their_code(
    browser: FlaskClient, client: FlaskClient, registered: str, used: str
) -> None:
    app = App(client, application_type="native", redirect_uris=[registered])

    answer = decide(browser, app.url(redirect_uri=used), "allow")

    assert answer.headers["Location"].startswith(used)
    code = returned(answer)["code"]
    assert app.exchange(code, redirect_uri=registered).status_code == (
        200 if registered == used else 400
    )
    assert app.exchange(code, redirect_uri=used).status_code == (400 if registered == used else 200)


def test_users_may_refuse(browser: FlaskClient, example: App, alice: Person) -> None:
    answer = decide(browser, example.url(), "deny")

    assert returned(answer)["error"] == "access_denied"
    assert returned(answer)["state"] == "xyz"
    assert returned(answer)["iss"] == "http://localhost:8008/"
    assert "code" not in returned(answer)
    assert len(alice.get("devices").get_json()["devices"]) == 1


def test_a_form_of_another_site_lets_nobody_in(browser: FlaskClient, example: App) -> None:
    answer = browser.post(example.url(), data={"decision": "allow", "csrf_token": "0" * 64})

    assert answer.status_code == 403
    assert "Location" not in answer.headers


def test_users_log_in_first(app: Application, example: App, login: Login) -> None:
    login("bob")
    browser = app.test_client()
    url = example.url()

    to_login = browser.get(url)
    page = browser.get(to_login.headers["Location"])
    answer = browser.post(
        "/_homebody/login",
        data={
            "csrf_token": field(page),
            "next": url,
            "user": "bob",
            "password": "correct horse battery staple",
        },
    )

    assert to_login.headers["Location"] == f"/_homebody/login?next={quote(url)}"
    assert answer.headers["Location"] == url
    assert "@bob:localhost" in visible(browser.get(url))


@pytest.mark.parametrize("hint", ["mxid:@bob:localhost", "@bob:localhost"])
def test_the_login_knows_whom_the_client_expects(app: Application, example: App, hint: str) -> None:
    browser = app.test_client()

    page = browser.get(browser.get(example.url(login_hint=hint)).headers["Location"])

    assert 'name="user" value="@bob:localhost"' in page.text


def test_the_login_leads_to_the_registration(app: Application, example: App) -> None:
    browser = app.test_client()

    page = browser.get(browser.get(example.url()).headers["Location"])

    assert "/_homebody/oauth/register?client_id=" in page.text


def test_a_session_that_has_ended_meanwhile_begins_again_with_the_login(
    browser: FlaskClient, example: App
) -> None:
    url = example.url()
    token = field(browser.get(url))
    other = {"csrf_token": field(browser.get("/_homebody/account/")), "decision": "other"}

    switched = browser.post(url, data=other)
    again = browser.post(url, data={"csrf_token": token, "decision": "allow"})

    assert switched.headers["Location"] == f"/_homebody/login?next={quote(url)}"
    assert again.status_code == 403
    assert browser.get(url).headers["Location"] == f"/_homebody/login?next={quote(url)}"


def test_consent_is_remembered_for_a_client_that_is_known_by_its_address(
    browser: FlaskClient, example: App
) -> None:
    example.log_in(browser)

    found = forwarded(browser.get(example.url(scope=scope("OTHER12345"))))

    assert found["state"] == "xyz"
    assert example.exchange(found["code"]).status_code == 200


def test_a_consent_that_is_withdrawn_meanwhile_lets_nobody_in(
    app: Application, browser: FlaskClient, example: App, alice: Person
) -> None:
    example.log_in(browser)
    url, answers = example.url(scope=scope("OTHER12345")), list[TestResponse]()
    database = app.homeserver.database
    going_on = threading.Thread(target=lambda: answers.append(browser.get(url)))

    with database.write() as tx:
        going_on.start()  # it has found the consent, and queues for the write
        end = time.monotonic() + 20
        # two, as the thread that commits queues as well
        while len(database.writer.turn._queue) < 2:  # noqa: SLF001 - the race can't be timed
            assert time.monotonic() < end
            going_on.join(0.01)
        oauth_sessions.forget_consent(tx, alice.user_id, example.client_id)
    going_on.join(20)

    assert "Let it in" in answers[0].text
    assert "Let it in" in browser.get(url).text


def test_consent_is_asked_for_again_after_logging_out_everywhere(
    browser: FlaskClient, example: App, alice: Person
) -> None:
    example.log_in(browser)
    alice.post("logout/all")
    log_in(browser, "alice")

    assert "Let it in" in browser.get(example.url(scope=scope("OTHER12345"))).text


def test_consent_is_that_of_one_user(
    browser: FlaskClient, app: Application, example: App, login: Login
) -> None:
    example.log_in(browser)
    login("bob")
    other = app.test_client()
    log_in(other, "bob")

    assert "Let it in" in other.get(example.url(scope=scope("OTHER12345"))).text


def test_a_client_that_anybody_could_be_always_asks(
    browser: FlaskClient, client: FlaskClient
) -> None:
    uri = "com.example.app:/callback"
    app = App(client, application_type="native", redirect_uris=[uri])
    app.log_in(browser)

    assert "Let it in" in browser.get(app.url(scope=scope("OTHER12345"))).text


def test_the_page_warns_of_a_device_that_loses_its_session(
    browser: FlaskClient, example: App, alice: Person
) -> None:
    answer = browser.get(example.url(scope=scope(alice.device_id)))

    assert "You have a device with this ID already" in visible(answer)
    example.log_in(browser, alice.device_id)
    assert alice.get("account/whoami").status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "unknown"},
        {"client_id": None},
        {"client_id": ""},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example.com/"},
        {"redirect_uri": f"{WEB}/"},
        {"redirect_uri": f"{WEB}?a=b"},
        {"redirect_uri": WEB.upper()},
        {"redirect_uri": f"{WEB}#fragment"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "http://localhost/callback"},
    ],
)
def test_what_may_come_from_somebody_else_is_shown_on_a_page(
    browser: FlaskClient, example: App, changes: dict[str, str | None]
) -> None:
    url = example.url(**changes)

    shown = browser.get(url)
    posted = browser.post(
        url, data={"csrf_token": field(browser.get("/_homebody/account/")), "decision": "allow"}
    )

    for answer in (shown, posted):
        assert answer.status_code == 400
        assert "Location" not in answer.headers
        assert "The app has made a mistake" in visible(answer)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "é" * 43}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "urn:matrix:client:api:*"}, "invalid_scope"),
        ({"scope": "urn:matrix:client:device:ABC"}, "invalid_scope"),
        ({"scope": f"{scope('A')} urn:matrix:client:device:B"}, "invalid_scope"),
        ({"scope": scope("")}, "invalid_scope"),
        ({"scope": scope("x" * 256)}, "invalid_scope"),
        ({"scope": scope("ü")}, "invalid_scope"),
        ({"scope": scope('"')}, "invalid_scope"),
    ],
)
def test_other_mistakes_are_sent_to_the_client(
    app: Application,
    browser: FlaskClient,
    example: App,
    changes: dict[str, str | None],
    error: str,
) -> None:
    example.log_in(browser)

    answer = app.test_client().get(example.url(**changes))

    assert answer.headers["Location"].startswith(WEB)
    assert (returned(answer)["error"], returned(answer)["state"]) == (error, "xyz")
    assert returned(answer)["iss"] == "http://localhost:8008/"
    assert returned(answer)["error_description"]


@pytest.mark.parametrize("changes", [{"scope": "openid"}, {"prompt": "none"}])
def test_a_link_leads_to_no_site_that_nobody_uses(
    app: Application, client: FlaskClient, changes: dict[str, str]
) -> None:
    phish = {"client_uri": "https://evil.example.org/", "client_name": "<b>Your bank</b>"}
    evil = App(client, redirect_uris=["https://evil.example.org/login"], **phish)

    answer = app.test_client().get(evil.url(**changes))

    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert "http-equiv" not in answer.text
    assert "<b>Your bank" not in answer.text
    assert "Go on to evil.example.org" in visible(answer)
    assert 'href="https://evil.example.org/login?error=' in answer.text


def test_an_app_of_the_device_learns_of_its_mistake_at_once(
    app: Application, client: FlaskClient
) -> None:
    uri = "com.example.app:/callback"
    native = App(client, application_type="native", redirect_uris=[uri])

    answer = app.test_client().get(native.url(scope="openid"))

    assert answer.headers["Location"].startswith(f"{uri}?error=invalid_scope")


def test_a_client_without_the_grant_gets_no_code(browser: FlaskClient, client: FlaskClient) -> None:
    device_grant = METADATA["grant_types"][2]
    app = App(client, grant_types=[device_grant])

    assert linked(browser.get(app.url()))["error"] == "unauthorized_client"


@pytest.mark.parametrize("name", ["scope", "state", "response_type", "code_challenge"])
def test_a_parameter_that_comes_twice_is_refused(
    browser: FlaskClient, example: App, name: str
) -> None:
    answer = browser.get(f"{example.url()}&{name}=again")

    assert linked(answer)["error"] == "invalid_request"


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_a_target_that_comes_twice_is_shown_on_a_page(
    browser: FlaskClient, example: App, name: str
) -> None:
    assert browser.get(f"{example.url()}&{name}={quote(WEB)}").status_code == 400


def test_scopes_of_older_clients_and_unknown_ones(browser: FlaskClient, example: App) -> None:
    older = "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device"
    code = example.code(browser, scope=f"openid {older}:OLD12345678")

    tokens = example.exchange(code).get_json()

    assert tokens["scope"] == f"{older}:OLD12345678"
    found = whoami(example.client, tokens["access_token"]).get_json()
    assert found["device_id"] == "OLD12345678"


def test_suspended_users_may_log_in_and_locked_ones_may_not(
    app: Application, browser: FlaskClient, example: App, alice: Person
) -> None:
    with app.homeserver.database.write() as tx:
        accounts.set_suspended(tx, alice.user_id, is_suspended=True)
    assert example.log_in(browser)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=True)

    assert browser.get(example.url()).headers["Location"].startswith("/_homebody/login")


def test_the_query_is_not_decoded_twice(browser: FlaskClient, example: App) -> None:
    answer = browser.get(f"{AUTHORIZE}?client_id={example.client_id}&redirect_uri=%2568ttps")

    assert answer.status_code == 400
    assert "has not registered this redirect_uri" in answer.text


def test_without_a_session_no_page_is_shown_to_a_client_that_wants_none(
    app: Application, browser: FlaskClient, example: App
) -> None:
    example.log_in(browser)

    answer = app.test_client().get(example.url(prompt="none", response_mode="fragment"))

    given = returned(answer)
    assert (given["error"], given["state"]) == ("login_required", "xyz")
    assert given["iss"] == "http://localhost:8008/"
    assert "#" in answer.headers["Location"]


def test_a_client_that_was_let_in_gets_its_code_without_a_page(
    browser: FlaskClient, example: App, alice: Person
) -> None:
    example.log_in(browser)

    answer = browser.get(example.url(prompt="none", scope=scope("OTHER12345")))

    given = returned(answer)
    assert (given["state"], given["iss"]) == ("xyz", "http://localhost:8008/")
    tokens = example.exchange(given["code"]).get_json()
    found = whoami(example.client, tokens["access_token"]).get_json()
    assert (found["user_id"], found["device_id"]) == (alice.user_id, "OTHER12345")


def test_a_client_that_was_never_let_in_gets_no_code_without_a_page(
    app: Application, browser: FlaskClient, example: App, login: Login
) -> None:
    login("bob")
    other = app.test_client()
    log_in(other, "bob")
    example.log_in(other)

    answer = browser.get(example.url(prompt="none"))

    assert returned(answer)["error"] == "consent_required"


def test_a_client_that_anybody_could_be_gets_no_code_without_a_page(
    browser: FlaskClient, client: FlaskClient
) -> None:
    uri = "com.example.app:/callback"
    app = App(client, application_type="native", redirect_uris=[uri])
    app.log_in(browser)

    answer = browser.get(app.url(prompt="none", scope=scope("OTHER12345")))

    assert returned(answer)["error"] == "consent_required"


def test_no_session_is_replaced_without_a_page(
    browser: FlaskClient, example: App, alice: Person
) -> None:
    example.log_in(browser)

    answer = browser.get(example.url(prompt="none", scope=scope(alice.device_id)))

    assert returned(answer)["error"] == "interaction_required"
    assert alice.get("account/whoami").status_code == 200


@pytest.mark.parametrize("prompt", ["none create", "login none"])
def test_no_page_and_a_page_can_not_be_had_at_once(
    browser: FlaskClient, example: App, prompt: str
) -> None:
    example.log_in(browser)

    assert returned(browser.get(example.url(prompt=prompt)))["error"] == "invalid_request"


@pytest.mark.parametrize("prompt", ["consent", "login", "select_account unknown"])
def test_a_client_may_have_its_user_asked_again(
    browser: FlaskClient, example: App, prompt: str
) -> None:
    example.log_in(browser)

    answer = browser.get(example.url(prompt=prompt, scope=scope("OTHER12345")))

    assert "Let it in" in answer.text


def linked(answer: TestResponse) -> dict[str, str]:
    """Return the parameters that a client gets if its user follows the link of a page."""
    assert answer.status_code == 400, answer.text
    (url,) = re.findall(rf'href="({re.escape(WEB)}[^"]+)"', answer.text)
    found = parse_qs(urlsplit(url.replace("&amp;", "&")).query)
    return {key: value for key, (value,) in found.items()}
