"""Typing notifications.

Spec: client-server-api#typing-notifications
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from app import context
from app.client_server import http
from app.client_server.http import authenticated, must_be_me, requester
from app.core.sync import presence, typing
from app.spec.events import Json

bp = Blueprint("typing", __name__)


class Body(msgspec.Struct):
    """What a client says of its user."""

    is_typing: bool = msgspec.field(name="typing")
    timeout_ms: int = msgspec.field(default=typing.DEFAULT_MS, name="timeout")


@bp.put("/rooms/<room_id>/typing/<user_id>")
@authenticated
def set_typing(room_id: str, user_id: str) -> Json:
    """Tell the room that the user types for a while, or has stopped."""
    must_be_me(user_id)
    context.rate_limits().check("rc_typing", user_id)
    body = http.body_as(Body)
    with context.db().read() as tx:
        typing.may_type(tx, room_id, user_id)
    if body.is_typing:
        typing.start(context.ephemeral(), room_id, user_id, body.timeout_ms)
        presence.note_activity(context.ephemeral(), user_id, requester().device_id)
    else:
        typing.stop(context.ephemeral(), room_id, user_id)
    return {}
