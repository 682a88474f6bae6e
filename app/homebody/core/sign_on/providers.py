"""The providers at which users may log in, and what is asked of them.

What a provider says of itself, and its keys, are kept for an hour. Functions here wait for the
network, so they are never called inside a transaction.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from homebody import errors
from homebody.config import login_providers, values
from homebody.config.login_providers import OidcProvider
from homebody.config.settings import Config, ConfigError
from homebody.outside import RemoteError, openid_provider
from homebody.outside.client import Client
from homebody.outside.expiring import Expiring
from homebody.outside.openid_provider import Metadata

LOG = logging.getLogger(__name__)

KEPT_S: Final = 3600.0
FAILED_FOR_S: Final = 5.0
"""How long a provider that has failed is not asked again: else all who wait for it would wait for
its timeout, one after another."""
RENEWED_AFTER_S: Final = 30.0
"""How old the kept keys are at least when a token with an unknown key has them fetched again."""
RECENT_S: Final = 600.0
MAX_TOKEN_IDS: Final = 10_000

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Login:
    """The secrets of a login that is under way, and where the provider sends the browser back."""

    redirect_uri: str
    state: str
    nonce: str
    code_verifier: str
    is_again: bool = False
    """Whether a user who is logged in at the provider has to log in there once more."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a provider vouches for."""

    provider: str
    subject: str
    sid: str | None
    """The session at the provider, if it says so."""
    localpart: str | None
    """What the user would be called here; nothing is checked yet."""
    display_name: str | None
    email: str | None
    """Only if the provider has verified it."""


class Providers:
    """The providers of the settings, with what is known of them."""

    def __init__(self, config: Config, client: Client) -> None:
        """Read the files with secrets. Raises ConfigError for one that can't be read."""
        self._client = client
        self._by_id = {it.id: it for it in config.oidc_providers}
        self._secrets = {it.id: _secret_of(it) for it in config.oidc_providers}
        self._metadata = Expiring[str, Metadata](100)
        self._keys = Expiring[str, tuple[float, list[Json]]](100)
        self._failures = Expiring[str, RemoteError](200)
        self._used = Expiring[str, bool](MAX_TOKEN_IDS)
        self._locks = defaultdict[str, threading.Lock](threading.Lock)

    @property
    def all(self) -> list[OidcProvider]:
        """All providers, in the order of the settings."""
        return list(self._by_id.values())

    def find(self, provider_id: str) -> OidcProvider:
        """Return a provider. Raises M_NOT_FOUND."""
        provider = self._by_id.get(provider_id)
        if provider is None:
            raise errors.not_found("This server does not know this login provider")
        return provider

    def authorization_url(self, provider: OidcProvider, login: Login) -> str:
        """Return where the user logs in. Raises RemoteError if the provider can't be reached."""
        endpoint = self._metadata_of(provider).authorization_endpoint
        digest = hashlib.sha256(login.code_verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": login.redirect_uri,
            "scope": " ".join(provider.scopes),
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if login.is_again:  # not prompt=login, which Google does not know
            query["max_age"] = "0"
        return _with_query(endpoint, query)

    def identify(
        self, provider: OidcProvider, login: Login, *, code: str, issuer: str | None
    ) -> Identity:
        """Return for whom the provider vouches with this code, by an ID token that is checked.

        `issuer` is what came back with the code, so that one provider can't pass on the code of
        another one (RFC 9207). Raises RemoteError.
        """
        metadata = self._metadata_of(provider)
        if issuer is None and metadata.authorization_response_iss_parameter_supported:
            raise RemoteError("bad_response", "The provider has not named itself")
        if issuer not in {None, metadata.issuer}:
            raise RemoteError("bad_response", "The response is from another provider")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": login.redirect_uri,
            "code_verifier": login.code_verifier,
        }
        credentials = (provider.client_id, self._secrets[provider.id])
        tokens = openid_provider.exchange(self._client, metadata, credentials, form)
        claims = self._checked(provider, metadata, tokens.id_token, login.nonce)
        if login.is_again:
            _check_recent(claims)
        if provider.claims - claims.keys() and tokens.access_token is not None:
            more = openid_provider.user_info(self._client, metadata, tokens.access_token)
            # "the sub Claim in the UserInfo Response MUST be verified to exactly match"
            if more and more.get("sub") != claims["sub"]:
                raise RemoteError("bad_response", "The user info is about another user")
            claims = {**more, **claims}
        return _identity(provider, claims)

    def logout_claims(self, provider: OidcProvider, token: str) -> Json:
        """Return sub, sid or both of a logout token, which can be used once. Raises RemoteError."""
        metadata = self._metadata_of(provider)
        claims = self._checked(provider, metadata, token, None)
        used = f"{provider.id} {claims['jti']}"
        if self._used.get(used):
            raise RemoteError("bad_response", "The logout token was used before")
        self._used.put(used, value=True, seconds=KEPT_S)
        return claims

    def logout_url(self, provider: OidcProvider) -> str | None:
        """Return where the user can log out of the provider, too; None if it has no such page."""
        try:
            endpoint = self._metadata_of(provider).end_session_endpoint
        except RemoteError as problem:
            LOG.warning("login provider %s: %s", provider.id, problem)
            return None
        if endpoint is None:
            return None
        return _with_query(endpoint, {"client_id": provider.client_id})

    def _checked(
        self, provider: OidcProvider, metadata: Metadata, token: str, nonce: str | None
    ) -> Json:
        """Return the claims of an ID token, or without a nonce of a logout token.

        If its key is not known, the provider may have new ones. Raises RemoteError.
        """
        from homebody.core.sign_on import id_tokens  # noqa: PLC0415 - see its docstring

        expected: Json = {
            "issuer": metadata.issuer,
            "client_id": provider.client_id,
            "now_s": time.time_ns() // 10**9,
        }
        for older_than_s in (KEPT_S, RENEWED_AFTER_S):
            keys = self._keys_of(provider, metadata, older_than_s)
            try:
                if nonce is None:
                    return id_tokens.check_logout_token(token, keys, **expected)
                return id_tokens.check_id_token(token, keys, **expected, nonce=nonce)
            except id_tokens.UnknownKeyError as problem:
                last = problem
            except id_tokens.TokenError as problem:
                raise _refused(problem) from problem
        raise _refused(last) from last

    def _metadata_of(self, provider: OidcProvider) -> Metadata:
        with self._locks[provider.id]:
            found = self._metadata.get(provider.id)
            if found is None:
                found = self._fetched(
                    f"metadata {provider.id}",
                    lambda: openid_provider.discover(self._client, provider.issuer),
                )
                self._metadata.put(provider.id, found, KEPT_S)
            return found

    def _keys_of(
        self, provider: OidcProvider, metadata: Metadata, older_than_s: float
    ) -> list[Json]:
        """Return the keys of a provider, fetched again if those that are kept are older."""
        with self._locks[provider.id]:
            kept = self._keys.get(provider.id)
            if kept is None or time.monotonic() - kept[0] > older_than_s:
                fetched = self._fetched(
                    f"keys {provider.id}", lambda: openid_provider.keys(self._client, metadata)
                )
                kept = (time.monotonic(), fetched)
                self._keys.put(provider.id, kept, KEPT_S)
            return kept[1]

    def _fetched(self, what: str, fetch: Callable[[], T]) -> T:
        """Return what is fetched, unless that has just failed. Raises RemoteError."""
        failure = self._failures.get(what)
        if failure is not None:
            raise RemoteError(failure.kind, str(failure))
        try:
            return fetch()
        except RemoteError as problem:
            self._failures.put(what, problem, FAILED_FOR_S)
            raise


def _with_query(endpoint: str, query: dict[str, str]) -> str:
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def _check_recent(claims: Json) -> None:
    """Raise RemoteError if the provider says that the user has logged in there long ago."""
    auth_time = claims.get("auth_time")
    is_recent = isinstance(auth_time, int | float) and time.time() - auth_time <= RECENT_S
    if auth_time is not None and not is_recent:
        raise RemoteError("bad_response", "The provider has not asked the user to log in again")


def _identity(provider: OidcProvider, claims: Json) -> Identity:
    """Return what the claims say, by the templates of the settings."""
    sid = claims.get("sid")
    is_verified = claims.get("email_verified") in (True, "true")  # some send it as a text
    localpart = login_providers.filled(provider.localpart_template, claims)
    return Identity(
        provider.id,
        claims["sub"],
        sid if isinstance(sid, str) else None,
        localpart if localpart is not None else _suggestion(claims),
        login_providers.filled(provider.display_name_template, claims),
        login_providers.filled(provider.email_template, claims) if is_verified else None,
    )


def _suggestion(claims: Json) -> str | None:
    """Return a user name to suggest where no template says which one it is."""
    for name in ("preferred_username", "nickname", "email"):
        value = claims.get(name)
        if isinstance(value, str) and value:
            return value.partition("@")[0]
    return None


def _refused(problem: Exception) -> RemoteError:
    return RemoteError("bad_response", f"The token of the provider is not accepted: {problem}")


def _secret_of(provider: OidcProvider) -> str | None:
    path = provider.client_secret_file
    if path is None:
        return provider.client_secret
    try:
        secret = values.PATH.parse(path).read_text("utf-8").strip()
    except (OSError, ValueError) as problem:
        raise ConfigError(f"oidc_providers: {path} cannot be read: {problem}") from problem
    if not secret:
        raise ConfigError(f"oidc_providers: {path} is empty")
    return secret
