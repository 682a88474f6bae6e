"""Sending message events, and redacting.

Spec: client-server-api#sending-events-to-a-room, client-server-api#redactions
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from app import context, errors
from app.client_server import http
from app.client_server.http import authenticated, requester
from app.core.rooms import sending, timeline
from app.spec import identifiers
from app.spec.events import Json

bp = Blueprint("room_send", __name__)


class Redaction(msgspec.Struct):
    """The body of /redact."""

    reason: str | None = None


@bp.put("/rooms/<room_id>/send/<event_type>/<txn_id>")
@bp.post("/rooms/<room_id>/send/<event_type>")
@authenticated
def send_message(room_id: str, event_type: str, txn_id: str | None = None) -> Json:
    """Send a message event; POST without a transaction id is how it was done in 2016."""
    context.rate_limits().check("rc_message", requester().user_id)
    return _send(room_id, event_type, http.json_object(), txn_id)


@bp.put("/rooms/<room_id>/redact/<event_id>/<txn_id>")
@bp.post("/rooms/<room_id>/redact/<event_id>")
@authenticated
def redact_event(room_id: str, event_id: str, txn_id: str | None = None) -> Json:
    """Take everything out of an event that its room can do without."""
    # not rc_message: who cleans up after a spammer sends hundreds at once
    context.rate_limits().check("rc_admin_redaction", requester().user_id)
    body = http.json_object()
    http.convert(body, Redaction)
    return _send(room_id, timeline.REDACTION, {**body, "redacts": event_id}, txn_id)


def _send(room_id: str, event_type: str, content: Json, txn_id: str | None) -> Json:
    if txn_id is not None and not identifiers.has_at_most_255_bytes(txn_id):
        raise errors.invalid_param("The transaction id is longer than 255 bytes")
    with context.db().write() as tx:
        event_id = sending.send(tx, requester(), room_id, event_type, content, txn_id)
    return {"event_id": event_id}
