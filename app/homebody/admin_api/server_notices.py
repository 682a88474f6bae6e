"""Messages of the server to its users."""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.rooms import server_notices
from homebody.core.rooms.server_notices import Notice
from homebody.spec.events import Json

bp = Blueprint("admin_server_notices", __name__)


class SendNotice(msgspec.Struct):
    """The body of a request to send a notice."""

    user_id: str
    content: Json
    type: str = "m.room.message"
    state_key: str | None = None


@bp.post("/v1/send_server_notice")
@bp.put("/v1/send_server_notice/<txn_id>")
@authenticated(admins_only=True)
def send_server_notice(txn_id: str | None = None) -> Json:
    """Send a notice to a user; with the same transaction ID, only once."""
    body = http.body_as(SendNotice)
    notice = Notice(body.content, body.type, body.state_key, txn_id)
    with homeserver.database.write() as tx:
        event_id = server_notices.send(tx, requester().user_id, body.user_id, notice)
    return {"event_id": event_id}
