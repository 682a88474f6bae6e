"""Odd values in the requests of clients of the OAuth 2.0 API: each is refused, as the RFCs say."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.core.oauth.client_metadata import DEVICE_CODE
from homebody.web import Application
from tests.conftest import Login
from tests.fuzz.requests import URL_TEXTS
from tests.helpers.oauth import METADATA, OAUTH, VERIFIER, App, challenge, scope
from tests.helpers.pages import field, log_in

VALUES: list[Any] = [
    *(
        None,
        0,
        -1,
        1.5,
        True,
        [],
        {},
        [[]],
        [None],
        {"a": []},
        "",
        " ",
        "\x00",
        "é\u202e",
        "x" * 9000,
    ),
    *(
        "https://",
        "https://[",
        "https://example.com:x/",
        "//example.com",
        "https://example.com\\@a",
    ),
    *(["https://example.com/", 1], ["com.example:" + "x" * 5000], ["http://[::1]:1/"], "None"),
]
CODES = {
    *("invalid_request", "invalid_client", "invalid_grant", "invalid_scope", "expired_token"),
    *("unauthorized_client", "unsupported_grant_type", "invalid_client_metadata"),
    *("invalid_redirect_uri", "authorization_pending", "slow_down"),
}
TEXTS = [it for it in URL_TEXTS if len(it) < 9000]
FORMS: dict[str, list[dict[str, str]]] = {
    "token": [
        {
            "grant_type": "authorization_code",
            "client_id": "x",
            "code": "x",
            "redirect_uri": "https://example.com/",
            "code_verifier": VERIFIER,
        },
        {"grant_type": "refresh_token", "client_id": "x", "refresh_token": "x", "scope": scope()},
        {"grant_type": DEVICE_CODE, "client_id": "x", "device_code": "x"},
    ],
    "revoke": [{"token": "x", "token_type_hint": "access_token", "client_id": "x"}],
    "device_authorization": [{"client_id": "x", "scope": scope()}],
}


@pytest.mark.parametrize("key", [*sorted(METADATA), "logo_uri", "tos_uri", "policy_uri"])
def test_odd_metadata_are_registered_or_refused(client: FlaskClient, key: str) -> None:
    for kind, value in itertools.product(("web", "native"), VALUES):
        body = {**METADATA, "application_type": kind, key: value}

        answer = client.post(f"{OAUTH}clients", json=body)

        assert answer.status_code in {201, 400}, value
        assert answer.status_code == 201 or answer.get_json()["error"] in CODES


@pytest.mark.parametrize("path", sorted(FORMS))
def test_odd_forms_are_refused(client: FlaskClient, path: str) -> None:
    client_id = App(client).client_id
    for good in FORMS[path]:
        for name, text in itertools.product(good, TEXTS):
            known = {"client_id": client_id} if "client_id" in good else {}

            answer = client.post(
                f"{OAUTH}{path}", data=f"{body(good | known, name, text)}", headers=FORM
            )

            assert answer.status_code in {200, 400, 401}, (good, name, text)
            assert answer.status_code == 200 or answer.get_json()["error"] in CODES


def test_odd_authorization_requests_lead_nowhere_else(app: Application, login: Login) -> None:
    login("alice")
    browser = app.test_client()
    log_in(browser, "alice")
    csrf, example = field(browser.get("/_homebody/account/")), App(app.test_client())
    good = {
        "client_id": example.client_id,
        "redirect_uri": example.redirect_uri,
        "response_type": "code",
        "response_mode": "query",
        "scope": "urn",
        "state": "x",
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
        "prompt": "create",
    }
    for name, text in itertools.product(good, TEXTS):
        query = body(good, name, text)
        for method, page in itertools.product(("GET", "POST"), ("authorize", "register")):
            data = {"csrf_token": csrf, "decision": "allow"} if method == "POST" else None

            answer = browser.open(f"{OAUTH}{page}?{query}", method=method, data=data)

            assert answer.status_code in {200, 303, 400}, (name, text)
            leads_to = answer.headers.get("Location", "/_homebody/")
            assert leads_to.startswith(
                ("/_homebody/", f"{example.redirect_uri}?", f"{example.redirect_uri}#")
            )


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def body(good: dict[str, str], name: str, text: str) -> str:
    """Return a form with one odd value, which is in URL encoding already."""
    return "&".join(f"{key}={text if key == name else it}" for key, it in good.items())
