"""The directory of published rooms, for users of other servers.

Spec: server-server-api#published-room-directory
"""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint

from homebody.client_server.directory import PublicRooms, query_from_parameters, query_of
from homebody.context import homeserver
from homebody.core.rooms import directory
from homebody.server_server import authentication
from homebody.server_server.authentication import from_server
from homebody.spec.events import Json

bp = Blueprint("server_public_rooms", __name__)


@bp.get("/v1/publicRooms")
@from_server
def get_public_rooms() -> Json:
    """Return a page of the directory."""
    return _page(query_from_parameters())


@bp.post("/v1/publicRooms")
@from_server
def query_public_rooms() -> Json:
    """Return a page of the rooms in the directory that match a filter."""
    return _page(query_of(authentication.content_as(PublicRooms)))


def _page(query: directory.Query) -> Json:
    with homeserver.database.read() as tx:
        return directory.public_rooms(tx, replace(query, only_federated=True))
