"""What a room is like, for somebody who thinks about joining it.

Spec: client-server-api#room-summaries
"""

from __future__ import annotations

from flask import Blueprint

from app import context
from app.client_server.http import maybe_requester, optionally_authenticated
from app.core.rooms import aliases, summary
from app.spec.events import Json

bp = Blueprint("room_summary", __name__, url_prefix="/_matrix/client/v1")


@bp.get("/room_summary/<room_id_or_alias>")
@optionally_authenticated
def get_room_summary(room_id_or_alias: str) -> Json:
    """A summary of a room; anybody may ask about rooms that anybody may enter."""
    who = maybe_requester()
    with context.db().read() as tx:
        room_id = aliases.resolve(tx, room_id_or_alias)
        return summary.preview(tx, room_id, who.user_id if who else None)
