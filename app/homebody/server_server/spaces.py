"""The rooms of spaces, for other servers.

Spec: server-server-api#spaces
"""

from __future__ import annotations

from flask import Blueprint

from homebody.client_server import http
from homebody.context import homeserver
from homebody.core.federation import shared_spaces
from homebody.server_server.authentication import from_server, origin
from homebody.spec.events import Json

bp = Blueprint("server_spaces", __name__)


@bp.get("/v1/hierarchy/<room_id>")
@from_server
def get_space_hierarchy(room_id: str) -> Json:
    """Return a room and, of a space, the rooms in it that the server's users could join or read.

    Raises M_NOT_FOUND.
    """
    is_suggested_only = http.query_boolean("suggested_only")
    with homeserver.database.read() as tx:
        return shared_spaces.hierarchy(tx, origin(), room_id, is_suggested_only=is_suggested_only)
