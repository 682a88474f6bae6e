"""Sending message events, and redactions.

Spec: client-server-api#sending-events-to-a-room, client-server-api#redactions
"""

from __future__ import annotations

from typing import Final

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, delayed_events, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.ephemeral import presence
from homebody.core.timeline import leaving_threads, sending, store
from homebody.errors import MatrixError
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("room_send", __name__)

_DELAY: Final = "org.matrix.msc4140.delay"
_OTHER_DELAYS: Final = frozenset({"delay", "parent_delay_id", "delay_parent_id"})
_UNSTABLE_DELAYS: Final = "org.matrix.msc4140."


class Redaction(msgspec.Struct):
    """The body of /redact."""

    reason: str | None = None


@bp.put("/rooms/<room_id>/send/<event_type>/<txn_id>")
@authenticated(guests=True, suspended="partly")
def send_message(room_id: str, event_type: str, txn_id: str) -> Json:
    """Send a message event, or schedule it."""
    if (delay_ms := requested_delay_ms()) is not None:
        return delayed_events.schedule(room_id, event_type, None, txn_id, delay_ms)
    return _send(room_id, event_type, txn_id, "rc_message")


@bp.post("/rooms/<room_id>/send/<event_type>")
@authenticated(suspended="partly")
def send_message_without_transaction_id(room_id: str, event_type: str) -> Json:
    """Send a message event as clients did in 2016."""
    _refuse_delay()
    return _send(room_id, event_type, None, "rc_message")


@bp.put("/rooms/<room_id>/redact/<event_id>/<txn_id>")
@bp.post("/rooms/<room_id>/redact/<event_id>")
@authenticated(suspended="partly")
def redact_event(room_id: str, event_id: str, txn_id: str | None = None) -> Json:
    """Redact an event."""
    _refuse_delay()
    # not rc_message: a moderator who cleans up after a spammer sends hundreds at once
    return _send(room_id, store.REDACTION, txn_id, "rc_admin_redaction", redacts=event_id)


def event_content(*, may_be_empty: bool = False) -> Json:
    """Return a body that becomes an event or a part of one. To be called before any write.

    Raises M_TOO_LARGE for a body larger than an event, and what http.json_object raises.
    """
    content = http.json_object(may_be_empty=may_be_empty, max_bytes=http.MAX_EVENT_BYTES)
    sending.check_size(content)
    return content


def requested_delay_ms() -> int | None:
    """Return by how much (ms) the event is to be delayed, None if it is to be sent now (MSC4140).

    Parameters of older drafts are refused: without them the event would be sent at once, and a call
    that schedules its own end would end as it begins.
    Raises M_UNRECOGNIZED (400), M_INVALID_PARAM.
    """
    if not request.query_string:
        return None
    names = request.args.keys() - {_DELAY}
    if any(name in _OTHER_DELAYS or name.startswith(_UNSTABLE_DELAYS) for name in names):
        raise errors.unrecognized("This server does not support delayed events of that kind", 400)
    return http.query_integer(_DELAY, 0, least=1) if _DELAY in request.args else None


def _refuse_delay() -> None:
    """Raise M_UNRECOGNIZED (400) for a delay where there is none."""
    if requested_delay_ms() is not None:
        raise errors.unrecognized("This can't be delayed: schedule a redaction by /send", 400)


def sent_before_or_limited(limit: str, draft: sending.Draft) -> str | None:
    """Return None if the limit allows the request, else the id of the event that it sent before.

    A client that repeats a request has not received the response, and must not wait longer for it.
    Raises M_LIMIT_EXCEEDED for a request that is not a repetition.
    """
    try:
        authentication.rate_limits().check(limit, draft.sender)
    except MatrixError:
        if draft.txn_id is None:
            raise
        with homeserver.database.read() as tx:
            known = sending.sent_before(tx, requester(), draft)
        if known is None:
            raise
        return known
    return None


def _send(
    room_id: str, event_type: str, txn_id: str | None, limit: str, *, redacts: str | None = None
) -> Json:
    """Send the event of the body; `redacts` is the event ID in the path of /redact."""
    me, database = requester(), homeserver.database
    draft = sending.Draft(room_id, me.user_id, event_type, {}, redacts=redacts, txn_id=txn_id)
    known = sent_before_or_limited(limit, draft)
    if known is not None:
        return {"event_id": known}
    content = event_content(may_be_empty=redacts is not None)  # only the reason can be lost with it
    if redacts is not None:
        http.convert(content, Redaction)
        content["redacts"] = redacts
    if txn_id is not None and len(txn_id.encode()) > identifiers.MAX_BYTES:
        raise errors.invalid_param("The transaction ID is longer than 255 bytes")
    ts = None if me.service is None else http.timestamp()
    sticky_ms = http.sticky_ms() if request.query_string else None
    is_redaction = event_type == store.REDACTION and not me.is_shadow_banned
    is_of_thread = is_redaction and _is_of_thread(str(content.get("redacts")))
    with database.write() as tx:
        event_id = sending.send_message(
            tx, me, room_id, event_type, content, txn_id, ts, sticky_ms=sticky_ms
        )
    if is_of_thread:
        leaving_threads.follow(database, content["redacts"])
    presence.note_activity(homeserver.ephemeral, me.user_id, me.device_id)
    return {"event_id": event_id}


def _is_of_thread(event_id: str) -> bool:
    with homeserver.database.read() as tx:
        return leaving_threads.thread_of(tx, event_id) is not None
