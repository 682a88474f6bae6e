"""Presence: who is online.

Spec: client-server-api#presence
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, must_be_me, requester
from homebody.core.ephemeral import presence
from homebody.spec.events import Json

bp = Blueprint("presence", __name__)


class Status(msgspec.Struct):
    """The body of PUT."""

    presence: str
    status_msg: str | None = None


@bp.put("/presence/<user_id>/status")
@authenticated()
def set_presence(user_id: str) -> Json:
    """Say how the user is."""
    must_be_me(user_id)
    context.rate_limits().check("rc_presence.per_user", user_id)
    status = http.body_as(Status)
    presence.set_status(
        context.ephemeral(), user_id, requester().device_id, status.presence, status.status_msg
    )
    return {}


@bp.get("/presence/<user_id>/status")
@authenticated()
def get_presence(user_id: str) -> Json:
    """How a user is."""
    with context.db().read() as tx:
        return presence.get(tx, context.ephemeral(), requester().user_id, user_id)
