"""The way to a provider and back: what is believed, and what is not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from homebody.core.sign_on import attempts, providers
from homebody.outside import expiring
from homebody.outside import openid_provider as calls
from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers import openid_provider
from tests.helpers.openid_provider import CLIENT_SECRET, KEY, OTHER_KEY, Provider, visit
from tests.helpers.scripted_server import Response
from tests.web.sign_on_pages.test_accounts import START, who
from tests.web.test_pages import visible

CONFIGURATION = "/.well-known/openid-configuration"


@pytest.fixture
def app(make_app: MakeApp, provider: Provider) -> Application:
    """A server that makes accounts at once."""
    return make_app(oidc_providers=provider.settings(localpart_template="{sub}"))


def leave(browser: FlaskClient) -> str:
    """The URL of the provider's login page."""
    answer = browser.get(START)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    return answer.headers["Location"]


def come_back(browser: FlaskClient, provider: Provider, **claims: Any) -> TestResponse:
    """The response to a browser that the provider sends back."""
    return browser.get(provider.log_in(leave(browser), **claims))


def test_the_provider_gets_a_challenge_and_a_nonce_and_the_cookie_is_for_us_alone(
    browser: FlaskClient, provider: Provider
) -> None:
    answer = browser.get(START)

    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["scope"] == ["openid profile email"]
    assert query["redirect_uri"] == ["http://localhost:8008/_homebody/sign-on/callback/test"]
    assert len(query["code_challenge"][0]) == len(query["nonce"][0]) == 43
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("homebody_sign_on=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_keys_of_several_kinds_sign(browser: FlaskClient, provider: Provider, key: Any) -> None:
    provider.keys, provider.key = [KEY, OTHER_KEY], key

    visit(browser, provider)

    assert who(browser) == "@1234:localhost"


@pytest.mark.parametrize(
    "lies",
    [
        {"iss": "https://evil.test"},
        {"aud": "another"},
        {"aud": ["homebody", "another"]},
        {"aud": None},
        {"azp": "another"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": int(time.time()) - 1000},
        {"exp": None},
        {"exp": "never"},
        {"exp": float("inf")},
        {"iat": float("nan")},
        {"iat": int(time.time()) + 100_000},
        {"iat": int(time.time()) - 10_000},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
    ],
)
def test_a_token_that_says_something_else_is_refused(
    browser: FlaskClient, provider: Provider, lies: dict[str, Any]
) -> None:
    provider.lies = lies

    answer = come_back(browser, provider)

    assert answer.status_code == 502
    assert "does not work at the moment" in visible(answer)
    assert who(browser) is None


@pytest.mark.parametrize(
    "sign",
    [
        openid_provider.unsigned,
        openid_provider.signed_with_public_key,
        lambda claims: openid_provider.signed(claims, RSAKey.generate_key(2048, {"kid": "first"})),
        lambda claims: openid_provider.signed(claims, KEY, kid="another"),
        lambda claims: openid_provider.signed(claims, KEY, typ="logout+jwt"),
        lambda claims: openid_provider.signed(claims, KEY)[:-8],
        lambda _claims: "x.y.z",
        lambda _claims: "",
    ],
)
def test_a_token_that_is_signed_in_another_way_is_refused(
    browser: FlaskClient, provider: Provider, sign: Callable[[dict[str, Any]], str]
) -> None:
    provider.sign = sign

    answer = come_back(browser, provider)

    assert answer.status_code == 502
    assert who(browser) is None


def test_a_key_is_found_among_many(browser: FlaskClient, provider: Provider) -> None:
    provider.keys = [*[OTHER_KEY] * 60, KEY]

    visit(browser, provider)

    assert who(browser) is not None


def test_new_keys_are_fetched_when_a_token_has_one(
    browser: FlaskClient, provider: Provider, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(browser, provider)
    provider.keys, provider.key = [OTHER_KEY], OTHER_KEY
    monkeypatch.setattr("homebody.core.sign_on.providers.RENEWED_AFTER_S", -1.0)
    other = app.test_client()

    visit(other, provider)

    assert who(other) == "@1234:localhost"
    assert len(provider.server.received("/keys")) == 2


def test_tokens_with_unknown_keys_do_not_have_the_keys_fetched_each_time(
    browser: FlaskClient, provider: Provider
) -> None:
    provider.sign = lambda claims: openid_provider.signed(claims, KEY, kid="another")

    for _ in range(3):
        come_back(browser, provider)

    assert len(provider.server.received("/keys")) == 1


def test_a_code_is_taken_once(browser: FlaskClient, provider: Provider) -> None:
    back = provider.log_in(leave(browser))
    first = browser.get(back)

    second = browser.get(back)

    assert (first.status_code, second.status_code) == (303, 403)
    assert len(provider.server.received("/token")) == 1


def test_a_response_that_somebody_else_began_is_refused(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    attacker = app.test_client()
    back = provider.log_in(leave(attacker), sub="attacker")
    leave(browser)

    answers = [browser.get(back), app.test_client().get(back)]

    assert [it.status_code for it in answers] == [403, 403]
    assert provider.server.received("/token") == []
    assert who(browser) is None


@pytest.mark.parametrize(
    "query", ["", "?state=x&code=y", "?code=y", "?state=%00&code=y", "?error=access_denied"]
)
def test_a_response_that_nobody_asked_for_is_refused(browser: FlaskClient, query: str) -> None:
    answer = browser.get(f"/_homebody/sign-on/callback/test{query}")

    assert answer.status_code == 403


def test_the_code_of_another_provider_is_refused(make_app: MakeApp, provider: Provider) -> None:
    with openid_provider.running() as other:
        tables = [provider.settings()[1:-1], other.settings(id="other")[1:-1]]
        browser = make_app(oidc_providers=f"[{', '.join(tables)}]").test_client()
        back = provider.log_in(leave(browser))

        elsewhere = browser.get(back.replace("/callback/test", "/callback/other"))
        named = browser.get(f"{back}&iss={other.issuer}")

    assert (elsewhere.status_code, named.status_code) == (403, 502)
    assert provider.server.received("/token") == other.server.received("/token") == []


def test_a_provider_that_names_itself_has_to(browser: FlaskClient, provider: Provider) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    without = come_back(browser, provider)
    back = provider.log_in(leave(browser))

    named = browser.get(f"{back}&iss={provider.issuer}")

    assert (without.status_code, named.status_code) == (502, 303)


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("access_denied", 403, "The test did not let you in."),
        ("server_error", 502, "The login at The test did not work."),
        ("<script>alert(1)</script>", 502, "The login at The test did not work."),
        ("", 502, "The login at The test did not work."),
    ],
)
def test_a_refusal_of_the_provider_is_a_page(
    browser: FlaskClient, code: str, status: int, sentence: str
) -> None:
    state = parse_qs(urlsplit(leave(browser)).query)["state"][0]

    query = {"state": state, "error": code, "error_description": "<b>Call 555</b>"}
    answer = browser.get("/_homebody/sign-on/callback/test", query_string=query)

    assert answer.status_code == status
    assert sentence in visible(answer)
    assert "555" not in answer.get_data(as_text=True)


def test_a_login_that_takes_too_long_is_over(
    browser: FlaskClient, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = provider.log_in(leave(browser))
    monkeypatch.setattr(attempts, "LIFETIME_MS", -1)

    assert browser.get(back).status_code == 403


@pytest.mark.parametrize(
    ("part", "response"),
    [
        (CONFIGURATION, Response(503)),
        (CONFIGURATION, Response(body=b"<html>")),
        (CONFIGURATION, Response(body={"issuer": "https://evil.test"})),
        (CONFIGURATION, Response(302, headers={"Location": "https://evil.test"})),
        (CONFIGURATION, Response(body=b" " * (calls.MAX_BYTES + 1))),
        ("/token", Response(400, {"error": "invalid_grant"})),
        ("/token", Response(body={"access_token": "a"})),
        ("/token", Response(body={"id_token": 7})),
        ("/token", Response(body=b"[" * 100_000)),
        ("/keys", Response(500)),
        ("/keys", Response(body={"keys": "none"})),
        ("/keys", Response(body={"keys": [7, {"kty": "RSA"}, {"kty": "oct", "k": "eA"}]})),
        ("/keys", Response(body={"keys": [{"kty": ["RSA"]}, {"kty": "RSA", "kid": ["first"]}]})),
        ("/userinfo", Response(body={"sub": "another", "name": "X"})),
        ("/userinfo", Response(body=b"eyJ")),
    ],
)
def test_a_provider_that_fails_lets_nobody_in(
    browser: FlaskClient, provider: Provider, part: str, response: Response
) -> None:
    provider.server.answer(part, response)

    answer = browser.get(START)
    if answer.status_code == 302:
        answer = browser.get(provider.log_in(answer.headers["Location"]))

    assert answer.status_code == 502
    assert answer.content_type == "text/html; charset=utf-8"
    assert who(browser) is None


def test_a_provider_that_is_down_can_be_used_again_when_it_is_up(
    browser: FlaskClient, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[0])
    monkeypatch.setattr(expiring, "time", clock)
    provider.server.fail(CONFIGURATION, times=1)

    down, at_once = browser.get(START), browser.get(START)
    passed_s[0] = providers.FAILED_FOR_S
    up = browser.get(START)

    assert [it.status_code for it in (down, at_once, up)] == [502, 502, 302]
    assert len(provider.server.received(CONFIGURATION)) == 2


@pytest.mark.parametrize("part", [CONFIGURATION, "/token", "/keys", "/userinfo"])
def test_a_provider_that_never_responds_is_not_waited_for(
    browser: FlaskClient, provider: Provider, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    provider.server.hang(part)
    monkeypatch.setattr(calls, "TIMEOUT_S", 0.3)

    answer = browser.get(START)
    if answer.status_code == 302:
        answer = browser.get(provider.log_in(answer.headers["Location"]))

    assert answer.status_code == 504
    assert who(browser) is None


def test_what_the_id_token_lacks_comes_from_the_user_info(
    browser: FlaskClient, provider: Provider
) -> None:
    provider.user_info = {"sub": "1234", "name": "Alice Liddell", "iss": "https://evil.test"}

    visit(browser, provider)

    profile = browser.get("/_matrix/client/v3/profile/@1234:localhost").get_json()
    assert profile["displayname"] == "Alice Liddell"


def test_a_provider_may_want_the_secret_in_the_form(
    browser: FlaskClient, provider: Provider
) -> None:
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}

    visit(browser, provider)

    assert who(browser) is not None


def test_an_endpoint_with_a_private_address_elsewhere_is_not_called(
    browser: FlaskClient, provider: Provider
) -> None:
    provider.metadata = {"token_endpoint": f"http://localhost:{provider.server.port}/token"}

    answer = come_back(browser, provider)

    assert answer.status_code == 502
    assert provider.server.received("/token") == []


def test_metadata_are_fetched_once(browser: FlaskClient, provider: Provider) -> None:
    for _ in range(3):
        come_back(browser, provider)

    assert len(provider.server.received(CONFIGURATION)) == 1


def test_an_unknown_provider_is_a_page(browser: FlaskClient) -> None:
    for path in ("start/x", "callback/x", "link/x"):
        answer = browser.get(f"/_homebody/sign-on/{path}")
        assert answer.status_code in {303, 404}
        assert answer.content_type == "text/html; charset=utf-8"


def test_logins_from_one_address_are_limited(make_app: MakeApp, provider: Provider) -> None:
    settings = {"oidc_providers": provider.settings(), "rate_limits": "true"}
    browser = make_app(**settings, **{"rc_login.address.burst_count": "5"}).test_client()

    statuses = [browser.get(START).status_code for _ in range(7)]

    assert statuses[:5] == [302] * 5
    assert statuses[6] == 429
    for path in (
        "/_homebody/sign-on/callback/test?state=x&code=x",
        "/_matrix/client/v3/login/sso/redirect/test?redirectUrl=https://example.com",
    ):
        assert browser.get(path).status_code == 429


def test_no_secret_is_in_the_log(
    browser: FlaskClient, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    back = provider.log_in(leave(browser))
    provider.lies = {"aud": "another"}

    browser.get(back)

    secrets = parse_qs(urlsplit(back).query)
    shown = caplog.text
    assert "it is for another client" in shown
    assert all(values[0] not in shown for values in secrets.values())
    assert CLIENT_SECRET not in shown
