"""Typing notifications.

Spec: client-server-api#typing-notifications
"""

from __future__ import annotations

import time

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, must_be_me, requester
from homebody.core.ephemeral import presence, typing
from homebody.core.events import state
from homebody.spec.events import Json

bp = Blueprint("typing", __name__)


class Body(msgspec.Struct):
    """What a client says of its user."""

    is_typing: bool = msgspec.field(name="typing")
    timeout_ms: int = msgspec.field(default=typing.DEFAULT_MS, name="timeout")


@bp.put("/rooms/<room_id>/typing/<user_id>")
@authenticated()
def set_typing(room_id: str, user_id: str) -> Json:
    """Tell the room that the user types for a while, or has stopped."""
    must_be_me(user_id)
    context.rate_limits().check("rc_typing", user_id)
    body = http.body_as(Body)
    with context.db().read() as tx:
        typing.may_type(tx, room_id, user_id)
    if not body.is_typing:
        typing.stop(context.ephemeral(), room_id, user_id)
        return {}
    device_id = requester().device_id
    timeout_ms = min(body.timeout_ms, _session_left_ms())
    typing.start(context.ephemeral(), room_id, user_id, timeout_ms, device_id)
    with context.db().read() as tx:  # looked at again: a leave in between has ended nothing yet
        is_gone = not state.is_joined(tx, room_id, user_id)
    if is_gone:
        typing.stop(context.ephemeral(), room_id, user_id)
    presence.note_activity(context.ephemeral(), user_id, device_id)
    return {}


def _session_left_ms() -> int:
    """How long the access token is still good: nobody types longer than that."""
    expires_ts = requester().expires_ts
    return typing.MAX_MS if expires_ts is None else expires_ts - time.time_ns() // 1_000_000
