"""Logging out there when one logs out here, and the other way round."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core import audit
from homebody.core.accounts import external_ids
from homebody.core.administration import user_changes
from homebody.core.administration.user_changes import Changes, ExternalId
from homebody.web import Application
from tests.conftest import PASSWORD, V3, MakeApp
from tests.helpers import openid_provider
from tests.helpers.oauth import App, decide, returned, whoami
from tests.helpers.openid_provider import Provider, visit
from tests.helpers.pages import field, log_in
from tests.web.sign_on_pages.test_accounts import ACCOUNT, linked, register, who
from tests.web.sign_on_pages.test_stage import client_of
from tests.web.test_pages import visible

LOGOUT = "/_homebody/sign-on/logout/test"


@pytest.fixture
def app(make_app: MakeApp, provider: Provider) -> Application:
    """A server that makes accounts at once, and listens to logouts."""
    settings = provider.settings(localpart_template="{sub}", backchannel_logout=True)
    return make_app(oidc_providers=settings)


def end(browser: FlaskClient, token: str) -> TestResponse:
    """Send a logout token, as the provider does."""
    return browser.post(LOGOUT, data={"logout_token": token})


def test_the_logout_of_the_provider_is_offered(browser: FlaskClient, provider: Provider) -> None:
    visit(browser, provider)

    data = {"csrf_token": field(browser.get(ACCOUNT))}
    page = browser.post("/_homebody/logout", data=data)

    assert "log out of The test" in visible(page)
    html = page.get_data(as_text=True)
    assert f'href="{provider.issuer}/end?client_id=homebody"' in html
    assert who(browser) is None


def test_users_with_a_password_are_offered_none(browser: FlaskClient) -> None:
    register(browser, "alice")
    log_in(browser, "alice")

    data = {"csrf_token": field(browser.get(ACCOUNT))}
    answer = browser.post("/_homebody/logout", data=data)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_a_provider_without_a_logout_offers_none(browser: FlaskClient, provider: Provider) -> None:
    provider.metadata = {"end_session_endpoint": None}
    visit(browser, provider)

    data = {"csrf_token": field(browser.get(ACCOUNT))}
    answer = browser.post("/_homebody/logout", data=data)

    assert answer.status_code == 303


def test_a_logout_at_the_provider_ends_browsers_and_clients(
    browser: FlaskClient, provider: Provider
) -> None:
    person = client_of(browser, provider)

    answer = end(browser, provider.logout_token(sub="1234"))

    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert who(browser) is None
    assert person.get("account/whoami").status_code == 401


def test_a_logout_at_the_provider_ends_clients_that_use_oauth(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    example = App(app.test_client())
    to_login = browser.get(example.url())
    page = browser.get(to_login.headers["Location"])
    link = page.get_data(as_text=True).partition('href="/_homebody/sign-on/start')[2]
    start = f"/_homebody/sign-on/start{link.partition(chr(34))[0]}".replace("&amp;", "&")
    entered = visit(browser, provider, start)
    code = returned(decide(browser, entered.headers["Location"], "allow"))["code"]
    token = example.exchange(code).get_json()["access_token"]
    before = whoami(example.client, token)

    end(browser, provider.logout_token(sub="1234"))

    assert before.get_json()["user_id"] == "@1234:localhost"
    assert whoami(example.client, token).status_code == 401


def test_the_end_of_one_session_leaves_the_others(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    other = app.test_client()
    visit(browser, provider, sid="one")
    visit(other, provider, sid="two")

    by_both = end(browser, provider.logout_token(sub="1234", sid="one"))
    after = who(browser), who(other)
    by_sid = end(browser, provider.logout_token(sid="two"))

    assert (by_both.status_code, by_sid.status_code) == (200, 200)
    assert after == (None, "@1234:localhost")
    assert who(other) is None


def test_sessions_that_began_with_a_password_go_on(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    register(browser, "alice")
    log_in(browser, "alice")
    visit(app.test_client(), provider)

    end(browser, provider.logout_token(sub="1234"))

    assert who(browser) == "@alice:localhost"


def test_a_device_that_has_logged_in_again_by_its_password_goes_on(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    register(browser, "alice")
    with app.homeserver.database.write() as tx:
        external_ids.add(tx, "@alice:localhost", "test", "1234")
    device_id = client_of(browser, provider).device_id

    body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    again = browser.post(f"{V3}login", json={**body, "device_id": device_id}).get_json()
    end(browser, provider.logout_token(sub="1234"))

    assert whoami(browser, again["access_token"]).get_json()["device_id"] == device_id


@pytest.mark.parametrize("others", [[], [("elsewhere", "1")]])
def test_a_login_that_is_linked_no_more_ends_nothing(
    browser: FlaskClient, provider: Provider, app: Application, others: list[tuple[str, str]]
) -> None:
    visit(browser, provider)
    changes = Changes(external_ids=[ExternalId(*it) for it in others])
    user_changes.put(app.homeserver.database, audit.COMMAND_LINE, "@1234:localhost", changes)

    answer = end(browser, provider.logout_token(sub="1234"))

    assert answer.status_code == 200
    assert who(browser) == "@1234:localhost"
    assert linked(app, "@1234:localhost") == others


@pytest.mark.parametrize(
    "lies",
    [
        {"iss": "https://evil.test"},
        {"aud": "another"},
        {"events": None},
        {"events": {"another": {}}},
        {"nonce": "x"},
        {"sub": None},
        {"sub": 7},
        {"jti": None},
        {"iat": None},
        {"iat": int(time.time()) - 10_000},
        {"exp": int(time.time()) - 1000},
    ],
)
def test_a_logout_that_is_not_valid_ends_nothing(
    browser: FlaskClient, provider: Provider, lies: dict[str, Any]
) -> None:
    visit(browser, provider)
    provider.lies = lies

    answer = end(browser, provider.logout_token(sub="1234"))

    assert (answer.status_code, answer.get_json()) == (400, {"error": "invalid_request"})
    assert who(browser) == "@1234:localhost"


@pytest.mark.parametrize(
    "sign", [openid_provider.unsigned, openid_provider.signed_with_public_key, lambda _: "x"]
)
def test_a_logout_that_is_not_signed_ends_nothing(
    browser: FlaskClient, provider: Provider, sign: Any
) -> None:
    visit(browser, provider)
    provider.sign = sign

    answer = end(browser, provider.logout_token(sub="1234"))

    assert answer.status_code == 400
    assert who(browser) == "@1234:localhost"


@pytest.mark.parametrize(
    "header", [b"", b"[1]", b"7", b'"alg"', b'{"alg": "RS256", "kid": [1]}', b"[" * 4000]
)
def test_what_only_looks_like_a_token_is_refused(browser: FlaskClient, header: bytes) -> None:
    token = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.e30.AAAA"

    answer = end(browser, token)

    assert (answer.status_code, answer.get_json()) == (400, {"error": "invalid_request"})


def test_a_logout_token_is_taken_once(browser: FlaskClient, provider: Provider) -> None:
    visit(browser, provider)
    token = provider.logout_token(sub="1234")
    end(browser, token)
    visit(browser, provider)

    assert end(browser, token).status_code == 400
    assert who(browser) == "@1234:localhost"


def test_only_logouts_that_are_not_accepted_count_as_those_of_strangers(
    make_app: MakeApp, provider: Provider
) -> None:
    settings = provider.settings(backchannel_logout=True)
    limits = {"rate_limits": "true", "rc_strangers.burst_count": "2"}
    browser = make_app(oidc_providers=settings, **limits).test_client()

    accepted = [end(browser, provider.logout_token(sub="1234")) for _ in range(4)]
    others = [end(browser, "x") for _ in range(3)]

    assert [it.status_code for it in accepted] == [200] * 4
    assert [it.status_code for it in others] == [400, 400, 429]


def test_an_id_token_is_not_a_logout(browser: FlaskClient, provider: Provider) -> None:
    visit(browser, provider)

    answer = end(browser, provider.id_token({"sub": "1234", "nonce": "x"}))

    assert answer.status_code == 400


def test_it_does_nothing_unless_the_settings_say_so(make_app: MakeApp, provider: Provider) -> None:
    settings = provider.settings(localpart_template="{sub}")
    browser = make_app(oidc_providers=settings).test_client()
    visit(browser, provider)

    answer = end(browser, provider.logout_token(sub="1234"))
    unknown = browser.post(LOGOUT.replace("test", "x"), data={})

    assert (answer.status_code, unknown.status_code) == (400, 404)
    assert who(browser) == "@1234:localhost"
