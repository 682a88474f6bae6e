"""Redacting what a user has sent."""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core import tasks
from homebody.core.rooms import user_redaction
from homebody.core.rooms.user_redaction import Redaction
from homebody.spec.events import Json

bp = Blueprint("admin_redactions", __name__)


class RedactUser(msgspec.Struct):
    """The body of a request to redact a user's events."""

    rooms: list[str]
    reason: str | None = None
    limit: http.Integer = user_redaction.DEFAULT_LIMIT
    use_admin: bool = False
    before_ts: http.Integer | None = None
    after_ts: http.Integer | None = None


@bp.post("/v1/user/<user_id>/redact")
@authenticated(admins_only=True)
def redact_user(user_id: str) -> Json:
    """Order that a user's events are redacted, in some rooms or in all."""
    body = http.body_as(RedactUser)
    actor = requester().user_id
    wanted = Redaction(
        actor=actor,
        user_id=user_id,
        rooms=body.rooms,
        reason=body.reason,
        limit=body.limit,
        by=actor if body.use_admin else None,
        before_ts=body.before_ts,
        after_ts=body.after_ts,
    )
    return {"redact_id": user_redaction.order(homeserver.database, wanted)}


@bp.get("/v1/user/redact_status/<redact_id>")
@authenticated(admins_only=True)
def get_redact_status(redact_id: str) -> Json:
    """Return how far the redaction of a user's events has got."""
    with homeserver.database.read() as tx:
        task = tasks.find(tx, redact_id, user_redaction.ACTION)
    status: Json = {"status": task.status}
    if task.status == tasks.COMPLETE:
        status["failed_redactions"] = (task.result or {}).get("failed_redactions", {})
    return status | ({} if task.error is None else {"error": task.error})
