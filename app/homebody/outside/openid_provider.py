"""Calls to OpenID Connect providers.

The issuer is from the configuration, so it may have any address. What its metadata names is called
under the rules of all other URLs, unless it is on the same host.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from homebody.outside import RemoteError
from homebody.outside.client import Client, Response

T = TypeVar("T")

WELL_KNOWN: Final = "/.well-known/openid-configuration"
TIMEOUT_S: Final = 10.0
MAX_BYTES: Final = 262_144
ERROR_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""What may be logged of the errors of a provider."""
_BASIC: Final = "client_secret_basic"
_POST: Final = "client_secret_post"


class Metadata(msgspec.Struct, frozen=True):
    """What a provider says of itself, as far as it is used here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = (_BASIC,)
    authorization_response_iss_parameter_supported: bool = False


class Tokens(msgspec.Struct, frozen=True):
    """The response of a token endpoint."""

    id_token: str
    access_token: str | None = None

    def __repr__(self) -> str:
        """Return a text without the tokens."""
        return "Tokens()"


class _Refusal(msgspec.Struct):
    error: str


def discover(client: Client, issuer: str) -> Metadata:
    """Return the metadata of a provider. Raises RemoteError, also if it is another issuer's."""
    url = issuer.rstrip("/") + WELL_KNOWN
    answer = client.request("GET", url, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES, is_trusted=True)
    found = _parsed(answer, Metadata, "metadata")
    if found.issuer != issuer:
        raise RemoteError("bad_response", f"The metadata at {url} is for another issuer")
    endpoints = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri)
    optional = (found.userinfo_endpoint, found.end_session_endpoint)
    for endpoint in (*endpoints, *(it for it in optional if it is not None)):
        _check_endpoint(issuer, endpoint)
    return found


def keys(client: Client, metadata: Metadata) -> list[dict[str, Any]]:
    """Return the public keys of a provider, as JSON Web Keys. Raises RemoteError."""
    answer = _request(client, metadata, "GET", metadata.jwks_uri)
    found = _parsed(answer, dict[str, Any], "keys").get("keys")
    if not isinstance(found, list):
        raise RemoteError("bad_response", "The keys of the provider are not a key set")
    return [it for it in found if isinstance(it, dict)]


def exchange(
    client: Client, metadata: Metadata, credentials: tuple[str, str | None], form: Mapping[str, str]
) -> Tokens:
    """Exchange an authorization code for tokens; `credentials` are the client's ID and secret.

    Raises RemoteError.
    """
    client_id, secret = credentials
    fields, headers = dict(form), {"Content-Type": "application/x-www-form-urlencoded"}
    methods = metadata.token_endpoint_auth_methods_supported
    if secret is None:
        fields["client_id"] = client_id
    elif _POST in methods and _BASIC not in methods:
        fields |= {"client_id": client_id, "client_secret": secret}
    else:
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    body = urlencode(fields).encode()
    answer = _request(client, metadata, "POST", metadata.token_endpoint, body, headers)
    return _parsed(answer, Tokens, "tokens")


def user_info(client: Client, metadata: Metadata, access_token: str) -> dict[str, Any]:
    """Return the claims of the userinfo endpoint; {} if there is none. Raises RemoteError."""
    if metadata.userinfo_endpoint is None:
        return {}
    headers = {"Authorization": f"Bearer {access_token}"}
    answer = _request(client, metadata, "GET", metadata.userinfo_endpoint, None, headers)
    return _parsed(answer, dict[str, Any], "user info")


def _request(
    client: Client,
    metadata: Metadata,
    method: str,
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return client.request(
        method,
        url,
        body=body,
        headers={"Accept": "application/json", **(headers or {})},
        timeout_s=TIMEOUT_S,
        max_bytes=MAX_BYTES,
        is_trusted=urlsplit(url)[:2] == urlsplit(metadata.issuer)[:2],
    )


def _parsed(answer: Response, kind: type[T], what: str) -> T:
    """Return the JSON of a response. Raises RemoteError, with the provider's error code if any."""
    if answer.status != 200:
        try:
            code = msgspec.json.decode(answer.body, type=_Refusal).error
        except (msgspec.DecodeError, ValueError):
            code = ""
        reason = f" ({code})" if ERROR_CODE.fullmatch(code) else ""
        sentence = f"The provider responds to a request for {what} with {answer.status}{reason}"
        raise RemoteError("bad_response", sentence, status=answer.status)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, ValueError) as problem:
        sentence = f"The response to a request for {what} is not what OpenID Connect requires"
        raise RemoteError("bad_response", f"{sentence}: {problem}") from problem


def _check_endpoint(issuer: str, url: str) -> None:
    """Raise RemoteError unless this is a URL, and as well encrypted as the issuer's."""
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and url.isprintable()
    except ValueError:
        is_url = False
    if not is_url or parts.scheme not in {"https", urlsplit(issuer).scheme}:
        raise RemoteError("bad_response", "An endpoint in the provider's metadata has no https://")
