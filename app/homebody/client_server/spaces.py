"""The rooms of a space.

Spec: client-server-api#spaces
"""

from __future__ import annotations

from flask import Blueprint, request

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.rooms import spaces
from homebody.spec.events import Json

bp = Blueprint("spaces", __name__, url_prefix="/_matrix/client/v1")


@bp.get("/rooms/<room_id>/hierarchy")
@authenticated()
def get_space_hierarchy(room_id: str) -> Json:
    """The rooms of a space, of the spaces in it, and so on.

    Spec: client-server-api#get_matrixclientv1roomsroomidhierarchy
    """
    query = spaces.Query(
        limit=http.query_integer("limit", spaces.DEFAULT_LIMIT, least=1, cap=spaces.MAX_LIMIT),
        max_depth=http.query_integer("max_depth", spaces.MAX_DEPTH, cap=spaces.MAX_DEPTH),
        is_suggested_only=http.query_boolean("suggested_only"),
        since=request.args.get("from") or None,
    )
    context.rate_limits().check("rc_lookups", requester().user_id)
    with context.db().read() as tx:
        return spaces.hierarchy(tx, requester().user_id, room_id, query)
