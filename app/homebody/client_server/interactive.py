"""User-interactive authentication, for the views that need it.

Spec: client-server-api#user-interactive-authentication-api
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flask import g, request

from homebody import errors
from homebody.client_server import authentication
from homebody.client_server.authentication import requester
from homebody.context import homeserver
from homebody.core.accounts import validation
from homebody.core.sessions import login, registration, uia
from homebody.spec.events import Json

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
    """Require the password of the requester, in `auth` of the body.

    Raises the 401 that asks for it, and M_LIMIT_EXCEEDED after many wrong ones: somebody who has
    found an unlocked telephone must not guess faster than others.

    Application services authenticate with their token alone.
    Spec: application-service-api#device-management, application-service-api#cross-signing
    """
    if requester().service is not None:
        return
    user_id = requester().user_id
    attempt = uia.Attempt(_endpoint(), body, user_id)
    account = login.account_key(homeserver.server.name, user_id)
    limits = authentication.rate_limits()
    with logging_refusals(user_id):
        if attempt.auth:  # the right password costs as much time to check as a wrong one
            limits.check("rc_login.account", account)
        with limits.check_failures("rc_login.failed_attempts", account):
            proof = uia.require(homeserver.database, [[uia.PASSWORD]], attempt)
    if proof.account is not None:
        authentication.rely_on(proof.account)


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
