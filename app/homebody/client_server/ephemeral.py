"""Typing notifications, receipts and the read marker, presence.

Spec: client-server-api#typing-notifications, client-server-api#receipts,
client-server-api#read-and-unread-markers, client-server-api#presence
"""

from __future__ import annotations

import time

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, must_be_me, requester
from homebody.context import homeserver
from homebody.core.ephemeral import presence, receipts, typing
from homebody.core.events import state
from homebody.spec.events import Json

bp = Blueprint("ephemeral", __name__)


class Typing(msgspec.Struct):
    """The body of PUT /typing."""

    is_typing: bool = msgspec.field(name="typing")
    timeout_ms: int = msgspec.field(default=typing.DEFAULT_MS, name="timeout")


@bp.put("/rooms/<room_id>/typing/<user_id>")
@authenticated()
def set_typing(room_id: str, user_id: str) -> Json:
    """Show the room that the user is typing for a while, or has stopped."""
    must_be_me(user_id)
    authentication.rate_limits().check("rc_typing", user_id)
    body = http.body_as(Typing)
    with homeserver.database.read() as tx:
        state.check_joined(tx, room_id, user_id)
    if not body.is_typing or requester().is_shadow_banned:
        typing.stop(homeserver.ephemeral, room_id, user_id)
        return {}
    device_id = requester().device_id
    session_left_ms = requester().expires_ts - time.time() * 1000  # typing ends with the session
    timeout_ms = int(min(body.timeout_ms, session_left_ms))
    typing.start(homeserver.ephemeral, room_id, user_id, timeout_ms, device_id)
    with homeserver.database.read() as tx:  # again: a leave in between had nothing to end yet
        is_gone = not state.is_joined(tx, room_id, user_id)
    if is_gone:
        typing.stop(homeserver.ephemeral, room_id, user_id)
    presence.note_activity(homeserver.ephemeral, user_id, device_id)
    return {}


class Markers(msgspec.Struct):
    """The body of POST /read_markers: event IDs."""

    fully_read: str | None = msgspec.field(default=None, name="m.fully_read")
    read: str | None = msgspec.field(default=None, name="m.read")
    private: str | None = msgspec.field(default=None, name="m.read.private")


@bp.post("/rooms/<room_id>/receipt/<receipt_type>/<event_id>")
@authenticated(suspended=True)
def post_receipt(room_id: str, receipt_type: str, event_id: str) -> Json:
    """Move a receipt forward to an event."""
    body = http.json_object(may_be_empty=True)
    thread_id = body.get("thread_id")
    if "thread_id" in body and not isinstance(thread_id, str):
        raise errors.invalid_param("thread_id must be a string")
    with homeserver.database.write() as tx:
        sent = receipts.send(tx, requester().user_id, room_id, receipt_type, event_id, thread_id)
    if sent is not None:
        homeserver.sent_receipts.add(sent)
    _note_activity()
    return {}


@bp.post("/rooms/<room_id>/read_markers")
@authenticated(suspended=True)
def set_read_marker(room_id: str) -> Json:
    """Move the read marker and receipts forward."""
    markers = http.body_as(Markers)
    events = zip(receipts.TYPES, (markers.read, markers.private, markers.fully_read), strict=True)
    with homeserver.database.write() as tx:
        moved = [
            receipts.send(tx, requester().user_id, room_id, receipt_type, event_id)
            for receipt_type, event_id in events
            if event_id is not None
        ]
    for sent in moved:
        if sent is not None:
            homeserver.sent_receipts.add(sent)
    _note_activity()
    return {}


def _note_activity() -> None:
    presence.note_activity(homeserver.ephemeral, requester().user_id, requester().device_id)


class Status(msgspec.Struct):
    """The body of PUT /presence/{userId}/status."""

    presence: str
    status_msg: str | None = None


@bp.put("/presence/<user_id>/status")
@authenticated()
def set_presence(user_id: str) -> Json:
    """Set the presence of the user."""
    must_be_me(user_id)
    authentication.rate_limits().check("rc_presence.per_user", user_id)
    status = http.body_as(Status)
    presence.set_status(
        homeserver.ephemeral,
        user_id,
        requester().device_id,
        status.presence,
        status.status_msg,
    )
    return {}


@bp.get("/presence/<user_id>/status")
@authenticated()
def get_presence(user_id: str) -> Json:
    """Return the presence of a user."""
    with homeserver.database.read() as tx:
        return presence.get(tx, homeserver.ephemeral, requester().user_id, user_id)
