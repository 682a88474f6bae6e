"""An OpenID Connect provider on loopback, scripted by the test: it vouches, and lies on demand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from werkzeug.test import TestResponse

from tests.helpers.scripted_server import Request, Response, ScriptedServer

Json = dict[str, Any]

CLIENT_ID = "homebody"
CLIENT_SECRET = "known to both: + and %"
CALLBACK = "/_homebody/sign-on/callback/"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
OTHER_KEY = ECKey.generate_key("P-256", {"kid": "second", "use": "sig", "alg": "ES256"})


@dataclass
class Grant:
    """A code that was given to a browser."""

    query: dict[str, str]
    claims: Json
    is_used: bool = False


@dataclass
class Provider:
    """A provider; its users are whatever claims the test names."""

    server: ScriptedServer = field(init=False)
    keys: list[RSAKey | ECKey] = field(default_factory=lambda: [KEY])
    key: RSAKey | ECKey = field(default_factory=lambda: KEY)
    grants: dict[str, Grant] = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    """What differs in its metadata."""
    lies: Json = field(default_factory=dict)
    """Claims of the ID token that differ; None leaves one out."""
    user_info: Json = field(default_factory=dict)
    sign: Callable[[Json], str] | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def settings(self, **more: Any) -> str:
        """Return the setting oidc_providers with this provider."""
        table = {
            "id": "test",
            "name": "The test",
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "registration": "open",
            **more,
        }
        return f"[{inline(table)}]"

    def log_in(self, url: str, **claims: Any) -> str:
        """Return where the provider sends the browser of this user, from its login page."""
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.grants[code] = Grant(query, {"sub": "1234", **claims})
        back = urlsplit(query["redirect_uri"])
        return f"{back.path}?{urlencode({'code': code, 'state': query['state']})}"

    def id_token(self, claims: Json) -> str:
        """Return a signed token."""
        now = int(time.time())
        all_claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, **claims}
        told = {name: it for name, it in (all_claims | self.lies).items() if it is not None}
        return self.sign(told) if self.sign is not None else signed(told, self.key)

    def logout_token(self, **claims: Any) -> str:
        """Return a token that says that a session has ended here."""
        given = {"jti": secrets.token_hex(8), "events": {LOGOUT_EVENT: {}}, **claims}
        return self.id_token(given)

    def respond(self, request: Request) -> Response:
        """Respond to a request of the server."""
        if request.path == "/.well-known/openid-configuration":
            return Response(body=self._metadata())
        if request.path == "/keys":
            return Response(body={"keys": [it.as_dict(private=False) for it in self.keys]})
        if request.path == "/token":
            return self._exchange(request)
        if request.path == "/userinfo":
            return Response(body=self.user_info)
        return Response(404)

    def _metadata(self) -> Json:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            **self.metadata,
        }

    def _exchange(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        grant = self.grants.get(form.get("code", ""))
        if grant is None or grant.is_used:
            return Response(400, {"error": "invalid_grant"})
        grant.is_used = True
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != grant.query["code_challenge"] or not _is_client(request, form):
            return Response(401, {"error": "invalid_client"})
        assert form["redirect_uri"] == grant.query["redirect_uri"]
        token = self.id_token({"nonce": grant.query["nonce"], **grant.claims})
        return Response(body={"id_token": token, "access_token": "a", "token_type": "Bearer"})


def _is_client(request: Request, form: dict[str, str]) -> bool:
    scheme, _, pair = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
    name, _, secret = base64.b64decode(pair).decode().partition(":")
    return (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)


@contextmanager
def running() -> Iterator[Provider]:
    """Run a provider."""
    provider = Provider()
    provider.server = server = ScriptedServer(provider.respond, None)
    try:
        yield provider
    finally:
        server.close()
    assert server.errors == []


def inline(table: Json) -> str:
    """Write a table as TOML, on one line."""
    return f"{{ {', '.join(f'{key} = {json.dumps(it)}' for key, it in table.items())} }}"


def signed(claims: Json, key: RSAKey | ECKey, **header: Any) -> str:
    """Sign claims."""
    algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key, [algorithm])


def unsigned(claims: Json) -> str:
    """Write claims with the algorithm none."""
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join([*map(_encoded, parts), ""])


def signed_with_public_key(claims: Json) -> str:
    """Sign claims by HS256, with the public key that everybody knows as the secret."""
    header = {"alg": "HS256", "typ": "JWT", "kid": KEY.kid}
    text = f"{_encoded(header)}.{_encoded(claims)}"
    mac = hmac.digest(KEY.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _encoded(value: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def visit(
    browser: FlaskClient,
    provider: Provider,
    start: str = "/_homebody/sign-on/start/test",
    **claims: Any,
) -> TestResponse:
    """Log in at the provider, from this link, and return what comes of it."""
    leaving = browser.get(start)
    assert leaving.status_code == 302, leaving.get_data(as_text=True)
    back = browser.get(provider.log_in(leaving.headers["Location"], **claims))
    assert back.status_code == 303, back.get_data(as_text=True)
    return browser.get(back.headers["Location"])
