"""The directory of published rooms.

Spec: client-server-api#published-room-directory
"""

from __future__ import annotations

from typing import Literal

import msgspec
from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import (
    authenticated,
    limit_strangers,
    requester,
    unauthenticated,
)
from homebody.core.rooms import directory
from homebody.core.rooms.directory import MAX_LIMIT
from homebody.spec.events import Json

bp = Blueprint("directory", __name__)


class Visibility(msgspec.Struct):
    """Whether a room is in the directory."""

    visibility: Literal["public", "private"] = "public"


class Filter(msgspec.Struct):
    """Which rooms to list."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class PublicRooms(msgspec.Struct):
    """The body of a search in the directory."""

    limit: int | None = None
    since: str | None = None
    filter: Filter | None = None
    third_party_instance_id: str | None = None
    include_all_networks: bool = False


@bp.get("/directory/list/room/<room_id>")
@unauthenticated
def get_room_visibility_on_directory(room_id: str) -> Json:
    """Whether a room is in the directory; anybody may ask."""
    limit_strangers()
    with context.db().read() as tx:
        return {"visibility": directory.visibility(tx, room_id)}


@bp.put("/directory/list/room/<room_id>")
@authenticated()
def set_room_visibility_on_directory(room_id: str) -> Json:
    """Put a room into the directory, or take it out."""
    is_published = http.body_as(Visibility).visibility == "public"
    with context.db().write() as tx:
        directory.set_visibility(tx, room_id, requester(), is_published=is_published)
    return {}


@bp.get("/publicRooms")
@unauthenticated
def get_public_rooms() -> Json:
    """A page of the directory; anybody may read it."""
    limit_strangers()
    limit = http.query_integer("limit", MAX_LIMIT)
    return _page(directory.Query(_at_most(limit), request.args.get("since")))


@bp.post("/publicRooms")
@authenticated(guests=True, suspended=True, only_reads=True)
def query_public_rooms() -> Json:
    """The same for some of the rooms."""
    body = http.body_as(PublicRooms)
    wanted = body.filter or Filter()
    if body.limit is not None and body.limit < 0:
        raise errors.invalid_param("limit can't be negative")
    if body.include_all_networks and body.third_party_instance_id is not None:
        raise errors.invalid_param("All networks and one network can't be asked for at once")
    return _page(
        directory.Query(
            limit=_at_most(body.limit),
            since=body.since,
            search_term=wanted.generic_search_term or "",
            room_types=wanted.room_types,
            network=body.third_party_instance_id,
            has_all_networks=body.include_all_networks,
        )
    )


def _page(query: directory.Query) -> Json:
    server = request.args.get("server")
    if server is not None and server != context.server().name:
        raise errors.forbidden("This server does not talk to other servers")
    with context.db().read() as tx:
        return directory.public_rooms(tx, query)


def _at_most(limit: int | None) -> int:
    """The limit in force; 0 is how older clients say that they want no limit."""
    return min(limit or MAX_LIMIT, MAX_LIMIT)
