"""Authorization requests: what a client asks a user for, and where the answer goes.

Nothing is sent to a redirect URI before it is known to be one of the client's: until then, a
refusal is a page. This module only reads.

Spec: client-server-api#authorisation-code-flow, client-server-api#authorisation-code-grant
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from homebody.core.accounts import oauth_sessions
from homebody.core.oauth import client_metadata, clients, metadata, refusals, scopes
from homebody.core.oauth.clients import Client
from homebody.core.oauth.refusals import OAuthError
from homebody.core.oauth.scopes import Scope
from homebody.core.sessions import devices
from homebody.storage.database import Reader

ONCE: Final = (
    *("client_id", "redirect_uri", "response_type", "response_mode", "scope", "state"),
    *("code_challenge", "code_challenge_method", "prompt"),
)
"""The parameters that count; none may come twice."""
ASKING: Final = {"login", "consent", "select_account"}
"""The values of prompt with which a client wants its user to be asked. Others are not known."""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 hash as base64url, without padding."""

Parameters = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the response of an authorization request goes."""

    client: Client
    redirect_uri: str
    issuer: str
    mode: str
    state: str | None

    def url(self, **fields: str) -> str:
        """Return the redirect URI with the response in it, which names this server (RFC 9207)."""
        fields["iss"] = self.issuer
        if self.state is not None:
            fields["state"] = self.state
        mark = metadata.RESPONSE_MODES[self.mode]
        if mark in self.redirect_uri:
            mark = "" if self.redirect_uri.endswith(("?", "&")) else "&"
        return f"{self.redirect_uri}{mark}{urlencode(fields)}"

    def refusal(self, error: OAuthError) -> str:
        """Return the redirect URI with an error in it."""
        return self.url(error=error.code, error_description=error.description)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a client asks for, once all of it is valid."""

    scope: Scope
    code_challenge: str
    prompts: frozenset[str]

    @property
    def is_silent(self) -> bool:
        """Whether the user must not be shown a page: "none" stands alone, or is refused."""
        return "none" in self.prompts


def target_of(tx: Reader, parameters: Parameters) -> Target:
    """Return where the response goes.

    Raises invalid_client, and invalid_request for a redirect URI that the client hasn't registered.
    """
    client = clients.find(tx, _only(parameters, "client_id"))
    redirect_uri = _only(parameters, "redirect_uri")
    if redirect_uri is None:
        raise refusals.invalid_request("redirect_uri is missing")
    if not client_metadata.may_redirect_to(client.registration, redirect_uri):
        raise refusals.invalid_request("The client has not registered this redirect_uri")
    first = {name: values[0] for name, values in parameters.items() if values}
    mode, state = first.get("response_mode", ""), first.get("state") or None
    mode = mode if mode in metadata.RESPONSE_MODES else "query"
    return Target(client, redirect_uri, metadata.issuer(tx.server.config), mode, state)


def request_of(target: Target, parameters: Parameters) -> AuthorizationRequest:
    """Return what the client asks for.

    Raises invalid_request, unsupported_response_type, unauthorized_client, invalid_scope.
    """
    given = {name: _only(parameters, name) for name in ONCE}
    if given["response_type"] is None:
        raise refusals.invalid_request("response_type is missing")
    if given["response_type"] not in client_metadata.RESPONSE_TYPES:
        raise OAuthError("unsupported_response_type", "response_type must be code")
    target.client.check_grant("authorization_code")
    if given["response_mode"] not in {None, *metadata.RESPONSE_MODES}:
        raise refusals.invalid_request("response_mode must be query or fragment")
    if given["code_challenge"] is None:
        raise refusals.invalid_request("code_challenge is missing: PKCE is required")
    if given["code_challenge_method"] != "S256":  # without it "plain" would be meant
        raise refusals.invalid_request("code_challenge_method must be S256")
    if _CHALLENGE.fullmatch(given["code_challenge"]) is None:
        raise refusals.invalid_request("code_challenge is not a SHA-256 hash")
    scope = scopes.parse(given["scope"] or "")
    prompts = frozenset((given["prompt"] or "").split())
    if "none" in prompts and len(prompts) > 1:
        raise refusals.invalid_request("The prompt none excludes all others")
    return AuthorizationRequest(scope, given["code_challenge"], prompts)


def question(
    tx: Reader, user_id: str, target: Target, request: AuthorizationRequest
) -> OAuthError | None:
    """Return why the user must be asked before the client gets a code, None if it gets one at once.

    It does if its redirect URI proves which client it is, and the user has let it in before. The
    reason is what a client is sent whose user must not be asked.
    """
    if devices.exists(tx, user_id, request.scope.device_id):
        return OAuthError("interaction_required", "Another session on this device would end")
    may_go_on = client_metadata.is_verified(target.redirect_uri) and not request.prompts & ASKING
    if not may_go_on or not oauth_sessions.has_consented(tx, user_id, target.client.client_id):
        return OAuthError("consent_required", "The user must be asked whether to let it in")
    return None


def _only(parameters: Parameters, name: str) -> str | None:
    """Return a parameter; "request and response parameters MUST NOT be included more than once"."""
    values = parameters.get(name, ())
    if len(values) > 1:
        raise refusals.invalid_request(f"{name} is there more than once")
    # "Parameters sent without a value MUST be treated as if they were omitted"
    return values[0] if values and values[0] else None
