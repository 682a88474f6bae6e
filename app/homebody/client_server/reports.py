"""Telling the owner about rooms, events and users that one finds inappropriate.

Spec: client-server-api#reporting-content
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.rooms import reports
from homebody.spec.events import Json

bp = Blueprint("reports", __name__)


class Reason(msgspec.Struct):
    """The body of a report about a room or a user; the reason may be empty."""

    reason: str


class EventReason(msgspec.Struct):
    """The body of a report about an event; older clients send a `score` as well."""

    reason: str | None = None


@bp.post("/rooms/<room_id>/report")
@authenticated(suspended=True)
def report_room(room_id: str) -> Json:
    """Report a room."""
    body = http.body_as(Reason)
    context.rate_limits().check("rc_reports", requester().user_id)
    with context.db().write() as tx:
        reports.report_room(tx, requester().user_id, room_id, body.reason)
    return {}


@bp.post("/rooms/<room_id>/report/<event_id>")
@authenticated(suspended=True)
def report_event(room_id: str, event_id: str) -> Json:
    """Report an event."""
    body = http.body_as(EventReason)
    context.rate_limits().check("rc_reports", requester().user_id)
    with context.db().write() as tx:
        reports.report_event(tx, requester().user_id, room_id, event_id, body.reason or "")
    return {}


@bp.post("/users/<user_id>/report")
@authenticated(suspended=True)
def report_user(user_id: str) -> Json:
    """Report a user."""
    body = http.body_as(Reason)
    context.rate_limits().check("rc_reports", requester().user_id)
    with context.db().write() as tx:
        reports.report_user(tx, requester().user_id, user_id, body.reason)
    return {}
