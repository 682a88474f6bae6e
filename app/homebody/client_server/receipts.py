"""Receipts and the read marker.

Spec: client-server-api#receipts, client-server-api#read-and-unread-markers
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.ephemeral import presence, receipts
from homebody.spec.events import Json

bp = Blueprint("receipts", __name__)


class Markers(msgspec.Struct):
    """The body of /read_markers: ids of events."""

    fully_read: str | None = msgspec.field(default=None, name="m.fully_read")
    read: str | None = msgspec.field(default=None, name="m.read")
    private: str | None = msgspec.field(default=None, name="m.read.private")


@bp.post("/rooms/<room_id>/receipt/<receipt_type>/<event_id>")
@authenticated(suspended=True)
def post_receipt(room_id: str, receipt_type: str, event_id: str) -> Json:
    """Move a receipt forward."""
    body = http.json_object(may_be_empty=True)
    thread_id = body.get("thread_id")
    if "thread_id" in body and not isinstance(thread_id, str):
        raise errors.invalid_param("thread_id must be a string")
    with context.db().write() as tx:
        receipts.send(tx, requester().user_id, room_id, receipt_type, event_id, thread_id)
    _note_activity()
    return {}


@bp.post("/rooms/<room_id>/read_markers")
@authenticated(suspended=True)
def set_read_marker(room_id: str) -> Json:
    """Move the read marker, and receipts, forward."""
    markers = http.body_as(Markers)
    events = zip(receipts.TYPES, (markers.read, markers.private, markers.fully_read), strict=True)
    with context.db().write() as tx:
        for receipt_type, event_id in events:
            if event_id is not None:
                receipts.send(tx, requester().user_id, room_id, receipt_type, event_id)
    _note_activity()
    return {}


def _note_activity() -> None:
    presence.note_activity(context.ephemeral(), requester().user_id, requester().device_id)
