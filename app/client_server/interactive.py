"""User-interactive authentication, for the views that need it.

Spec: client-server-api#user-interactive-authentication-api
"""

from __future__ import annotations

from flask import request

from app import context
from app.client_server import http
from app.core.people import uia
from app.spec.events import Json


def require_password(body: Json) -> None:
    """Let the request with this body go on only when its sender proves to be the token's owner.

    Raises the 401 that asks for the password.
    """
    attempt = uia.Attempt(_endpoint(), body, http.requester().user_id)
    uia.require(context.db(), [[uia.PASSWORD]], attempt)


def require_any(body: Json, flows: uia.Flows) -> uia.Progress:
    """What was proved by somebody without an account. Raises the 401 that asks for it."""
    return uia.require(context.db(), flows, uia.Attempt(_endpoint(), body, may_change=True))


def _endpoint() -> str:
    return f"{request.method} {request.path}"
