"""What a client of the OAuth 2.0 API does, and its user with a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.oauth.client_metadata import DEVICE_CODE
from tests.conftest import V3, Person
from tests.helpers.pages import field

OAUTH = "/_homebody/oauth/"
AUTHORIZE = f"{OAUTH}authorize"
WEB = "https://app.example.com/callback"
VERIFIER = "v" * 43
METADATA: dict[str, Any] = {
    "client_name": "Example",
    "client_uri": "https://example.com/",
    "redirect_uris": [WEB],
    "grant_types": ["authorization_code", "refresh_token", DEVICE_CODE],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "application_type": "web",
}


def challenge(verifier: str = VERIFIER) -> str:
    """Return what the authorization request says of the secret."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def scope(device_id: str = "DEVICE1234") -> str:
    """Return the scope of a session on this device."""
    return f"urn:matrix:client:api:* urn:matrix:client:device:{device_id}"


def register(client: FlaskClient, **changes: Any) -> TestResponse:
    """Register a client; a value of None leaves a key out."""
    body = {key: it for key, it in {**METADATA, **changes}.items() if it is not None}
    return client.post(f"{OAUTH}clients", json=body)


class App:
    """A client that is registered."""

    def __init__(self, client: FlaskClient, **changes: Any) -> None:
        answer = register(client, **changes)
        assert answer.status_code == 201, answer.get_json()
        self.client = client
        self.client_id: str = answer.get_json()["client_id"]
        self.redirect_uri: str = (answer.get_json()["redirect_uris"] or [""])[0]

    def url(self, **changes: str | None) -> str:
        """Return the address to which the client sends its user; None leaves a parameter out."""
        parameters: dict[str, str | None] = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "response_mode": "query",
            "scope": scope(),
            "state": "xyz",
            "code_challenge": challenge(),
            "code_challenge_method": "S256",
            **changes,
        }
        given = {key: value for key, value in parameters.items() if value is not None}
        return f"{AUTHORIZE}?{urlencode(given)}"

    def code(self, browser: FlaskClient, **changes: str | None) -> str:
        """Return the code that the client gets when the user lets it in."""
        answer = decide(browser, self.url(**changes), "allow")
        return returned(answer)["code"]

    def token(self, **form: str | None) -> TestResponse:
        """Send a request to the token endpoint."""
        form = {"client_id": self.client_id, **form}
        given = {key: value for key, value in form.items() if value is not None}
        return self.client.post(f"{OAUTH}token", data=given)

    def exchange(self, code: str, /, **changes: str | None) -> TestResponse:
        """Exchange a code."""
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": VERIFIER,
            **changes,
        }
        return self.token(**form)

    def refresh(self, refresh_token: str, /, **changes: str | None) -> TestResponse:
        """Exchange a refresh token."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **changes}
        return self.token(**form)

    def log_in(self, browser: FlaskClient, device_id: str = "DEVICE1234") -> dict[str, Any]:
        """Return the tokens of a new session of the user of this browser."""
        answer = self.exchange(self.code(browser, scope=scope(device_id)))
        assert answer.status_code == 200, answer.get_json()
        tokens: dict[str, Any] = answer.get_json()
        return tokens

    def session(self, browser: FlaskClient, device_id: str = "DEVICE1234") -> Person:
        """Log in, and return the user of the session."""
        token = self.log_in(browser, device_id)["access_token"]
        found = whoami(self.client, token).get_json()
        return Person(self.client, found["user_id"], token, found["device_id"])


def decide(browser: FlaskClient, url: str, decision: str) -> TestResponse:
    """Load the page that asks the user, and press one of its buttons."""
    page = browser.get(url)
    assert page.status_code == 200, page.text
    return browser.post(url, data={"csrf_token": field(page), "decision": decision})


def returned(answer: TestResponse) -> dict[str, str]:
    """Return the parameters that a client gets back, from the query or the fragment."""
    assert answer.status_code == 303, answer.text
    parts = urlsplit(answer.headers["Location"])
    return {key: value for key, (value,) in parse_qs(parts.query or parts.fragment).items()}


def refused(answer: TestResponse) -> tuple[int, str]:
    """Return the status and the error of a response to a client."""
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.get_json()["error_description"]
    return answer.status_code, answer.get_json()["error"]


def whoami(client: FlaskClient, token: str) -> TestResponse:
    """Ask whose token this is."""
    return client.get(f"{V3}account/whoami", headers={"Authorization": f"Bearer {token}"})


def forwarded(answer: TestResponse) -> dict[str, str]:
    """Return the parameters that a client gets back from a page that goes on by itself."""
    assert answer.status_code == 200, answer.text
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert found, answer.text
    parts = urlsplit(found.group(1).replace("&amp;", "&"))
    return {key: value for key, (value,) in parse_qs(parts.query or parts.fragment).items()}
