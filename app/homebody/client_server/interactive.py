"""User-interactive authentication, for the views that need it.

Spec: client-server-api#user-interactive-authentication-api
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from flask import g, request

from homebody import errors
from homebody.client_server import authentication
from homebody.client_server.authentication import requester
from homebody.context import homeserver
from homebody.core.accounts import accounts, external_ids, oauth_sessions, validation
from homebody.core.oauth import metadata
from homebody.core.sessions import login, registration, uia
from homebody.spec.events import Json

OAUTH: Final = ("m.oauth", "org.matrix.cross_signing_reset")
"""The stage that is completed on a page of the account, and its name before MSC4312."""
_REFUSED: Final = frozenset({"M_FORBIDDEN", "M_USER_DEACTIVATED", "M_LIMIT_EXCEEDED"})


@contextmanager
def logging_refusals(name: str | None) -> Iterator[None]:
    """Have each failed authentication logged with the address that it came from."""
    try:
        yield
    except errors.MatrixError as error:
        if error.errcode in _REFUSED:
            g.refused_login = name  # web/middleware.py logs it
        raise


def require_password(body: Json) -> None:
    """Require the password of the requester, in `auth` of the body, or a login elsewhere.

    Raises the 401 that asks for it, and M_LIMIT_EXCEEDED after many wrong ones: somebody who has
    found an unlocked telephone must not guess faster than others.

    Application services authenticate with their token alone.
    Spec: application-service-api#device-management, application-service-api#cross-signing

    Raises M_FORBIDDEN for clients of the OAuth 2.0 API: theirs is the page of the account, as "the
    User-Interactive Authentication API is not compatible with the OAuth 2.0 API".
    Spec: client-server-api#oauth-20-api
    """
    if requester().service is not None:
        return
    user_id = requester().user_id
    if is_by_oauth():
        page = metadata.account_uri(homeserver.server.config)
        raise errors.forbidden(f"Apps that log in with a browser can't do this: use {page}")
    attempt = uia.Attempt(_endpoint(), body, user_id)
    account = login.account_key(homeserver.server.name, user_id)
    limits = authentication.rate_limits()
    with logging_refusals(user_id):
        if attempt.auth:  # the right password costs as much time to check as a wrong one
            limits.check("rc_login.account", account)
        with limits.check_failures("rc_login.failed_attempts", account):
            proof = uia.require(homeserver.database, _flows_of(user_id), attempt)
    if proof.account is not None:
        authentication.rely_on(proof.account)


def require_page(body: Json) -> NoReturn:
    """Raise the 401 that sends the user to the page on which other cross-signing keys are allowed.

    Spec: client-server-api#oauth-authentication
    """
    session = uia.Attempt(_endpoint(), body).auth.get("session")
    url = {"url": metadata.cross_signing_reset_uri(homeserver.server.config)}
    raise errors.UiaRequiredError(
        {
            "session": session if isinstance(session, str) else secrets.token_urlsafe(24),
            "flows": [{"stages": [stage]} for stage in OAUTH],
            "params": dict.fromkeys(OAUTH, url),
            "completed": [],
        }
    )


def is_by_oauth() -> bool:
    """Return whether the requester's device was logged in by the OAuth 2.0 API."""
    me = requester()
    with homeserver.database.read() as tx:
        return oauth_sessions.find(tx, me.user_id, me.device_id) is not None


def _flows_of(user_id: str) -> uia.Flows:
    """Return how a user confirms a request: by password, or by a login at a linked provider."""
    providers = {it.id for it in homeserver.login_providers.all}
    if not providers:
        return [[uia.PASSWORD]]
    with homeserver.database.read() as tx:
        account = accounts.find(tx, user_id)
        is_linked = any(it in providers for it, _ in external_ids.of_user(tx, user_id))
    has_password = account is not None and account.password_hash is not None
    by_password = [[uia.PASSWORD]] if has_password or not is_linked else []
    return [*by_password, [uia.SSO]] if is_linked else by_password


def require_any(body: Json, flows: uia.Flows) -> uia.Progress:
    """Require one of the flows for a registration. Raises the 401 that asks for its stages."""
    attempt = uia.Attempt(_endpoint(), body, may_change=True, purpose="register")
    return uia.require(homeserver.database, flows, attempt)


def require_email(body: Json) -> validation.Validated:
    """Require a validated e-mail address for a password reset. Raises the 401 that asks for it."""
    attempt = uia.Attempt(_endpoint(), body, purpose="reset")
    proof = uia.require(homeserver.database, [[registration.EMAIL]], attempt)
    if proof.email is None:
        raise errors.threepid_auth_failed("No e-mail address was validated")
    return proof.email


def _endpoint() -> str:
    return f"{request.method} {request.path}"
