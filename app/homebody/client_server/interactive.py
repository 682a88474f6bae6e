"""User-interactive authentication, for the views that need it.

Spec: client-server-api#user-interactive-authentication-api
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flask import g, request

from homebody import context, errors
from homebody.client_server import authentication
from homebody.client_server.authentication import requester
from homebody.core.accounts import validation
from homebody.core.sessions import login, registration, uia
from homebody.spec.events import Json

_REFUSED: Final = frozenset({"M_FORBIDDEN", "M_USER_DEACTIVATED", "M_LIMIT_EXCEEDED"})


@contextmanager
def logging_refusals(name: str | None) -> Iterator[None]:
    """Have each failed proof of identity logged, with the address that it came from."""
    try:
        yield
    except errors.MatrixError as error:
        if error.errcode in _REFUSED:
            g.refused_login = name  # web/ writes the log
        raise


def require_password(body: Json) -> None:
    """Let the request with this body go on only when its sender proves to be the token's owner.

    Raises the 401 that asks for the password, M_LIMIT_EXCEEDED after many wrong ones: whoever has
    found an unlocked telephone shall not guess faster than others.

    Application services prove it by their token.
    Spec: application-service-api#device-management, application-service-api#cross-signing
    """
    if requester().service is not None:
        return
    user_id = requester().user_id
    attempt = uia.Attempt(_endpoint(), body, user_id)
    account = login.account_key(context.server().name, user_id)
    limits = context.rate_limits()
    with logging_refusals(user_id):
        if attempt.auth:  # the right password costs as much time to check as a wrong one
            limits.check("rc_login.account", account)
        with limits.check_failures("rc_login.failed_attempts", account):
            proof = uia.require(context.db(), [[uia.PASSWORD]], attempt)
    if proof.account is not None:
        authentication.rely_on(proof.account)


def require_any(body: Json, flows: uia.Flows) -> uia.Progress:
    """What was proved by somebody without an account. Raises the 401 that asks for it."""
    attempt = uia.Attempt(_endpoint(), body, may_change=True, purpose="register")
    return uia.require(context.db(), flows, attempt)


def require_email(body: Json) -> validation.Validated:
    """The address of somebody who has forgotten the password. Raises the 401 that asks for it."""
    attempt = uia.Attempt(_endpoint(), body, purpose="reset")
    proof = uia.require(context.db(), [[registration.EMAIL]], attempt)
    if proof.email is None:
        raise errors.threepid_auth_failed("No address was proved")
    return proof.email


def _endpoint() -> str:
    return f"{request.method} {request.path}"
