"""What a room is like, for somebody who thinks about joining it.

Spec: client-server-api#room-summaries
"""

from __future__ import annotations

from flask import Blueprint

from homebody import context
from homebody.client_server.authentication import authenticated, limit_strangers, maybe_requester
from homebody.core.rooms import aliases, summary
from homebody.spec.events import Json

bp = Blueprint("room_summary", __name__, url_prefix="/_matrix/client/v1")
bp_unstable = Blueprint(  # below /unstable, which web/middleware.py reads as /v3
    "room_summary_unstable", __name__, url_prefix="/_matrix/client/v3/im.nheko.summary"
)
UNSTABLE_KEYS = {
    "room_version": "im.nheko.summary.room_version",
    "encryption": "im.nheko.summary.encryption",
}


@bp.get("/room_summary/<room_id_or_alias>")
@authenticated(optional=True, guests=True)
def get_room_summary(room_id_or_alias: str) -> Json:
    """Return a summary of a room; anybody may ask about rooms that anybody may enter."""
    return _summary(room_id_or_alias)


@bp_unstable.get("/summary/<room_id_or_alias>")
@bp_unstable.get("/rooms/<room_id_or_alias>/summary")
@authenticated(optional=True, guests=True)
def get_room_summary_before_it_was_specified(room_id_or_alias: str) -> Json:
    """Return a summary with the names of MSC3266, on both paths that it has had.

    Never with both names of a key: clients in Rust take that for a key that is there twice, and
    refuse the answer.
    """
    found = _summary(room_id_or_alias)
    return {UNSTABLE_KEYS.get(key, key): value for key, value in found.items()}


def _summary(room_id_or_alias: str) -> Json:
    limit_strangers()
    who = maybe_requester()
    with context.db().read() as tx:
        room_id = aliases.resolve(tx, room_id_or_alias)
        return summary.preview(tx, room_id, who.user_id if who else None)
