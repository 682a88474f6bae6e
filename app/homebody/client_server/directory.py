"""The room directory, and room aliases.

Spec: client-server-api#published-room-directory, client-server-api#room-aliases
"""

from __future__ import annotations

from typing import Literal

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import (
    authenticated,
    limit_lookups,
    limit_strangers,
    requester,
    unauthenticated,
)
from homebody.context import homeserver
from homebody.core.federation import rooms as federated_rooms
from homebody.core.rooms import aliases, appservice_queries, directory
from homebody.core.rooms.directory import MAX_LIMIT
from homebody.core.sessions import appservice_users
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("directory", __name__)


class Visibility(msgspec.Struct):
    """The body of a request to publish a room."""

    visibility: Literal["public", "private"] = "public"


class Filter(msgspec.Struct):
    """The filter of a search in the directory."""

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
    """Return whether a room is in the directory. Needs no account."""
    limit_strangers()
    with homeserver.database.read() as tx:
        return {"visibility": directory.visibility(tx, room_id)}


@bp.put("/directory/list/room/<room_id>")
@authenticated()
def set_room_visibility_on_directory(room_id: str) -> Json:
    """Publish a room in the directory, or remove it from there."""
    is_published = http.body_as(Visibility).visibility == "public"
    is_published = is_published and not requester().is_shadow_banned
    with homeserver.database.write() as tx:
        directory.set_visibility(tx, room_id, requester(), is_published=is_published)
    return {}


@bp.get("/publicRooms")
@unauthenticated
def get_public_rooms() -> Json:
    """Return a page of the directory. Needs no account."""
    limit_strangers()
    return _page(query_from_parameters())


@bp.post("/publicRooms")
@authenticated(guests=True, suspended=True, only_reads=True)
def query_public_rooms() -> Json:
    """Return a page of the rooms in the directory that match a filter."""
    return _page(query_of(http.body_as(PublicRooms)))


def query_from_parameters() -> directory.Query:
    """Return what a GET asks for. Raises M_INVALID_PARAM."""
    limit = http.query_integer("limit", MAX_LIMIT)
    return directory.Query(_at_most(limit), request.args.get("since"))


def query_of(body: PublicRooms) -> directory.Query:
    """Return what a POST asks for. Raises M_INVALID_PARAM."""
    wanted = body.filter or Filter()
    if body.limit is not None and body.limit < 0:
        raise errors.invalid_param("limit can't be negative")
    if body.include_all_networks and body.third_party_instance_id is not None:
        raise errors.invalid_param(
            "include_all_networks and third_party_instance_id exclude each other"
        )
    return directory.Query(
        limit=_at_most(body.limit),
        since=body.since,
        search_term=wanted.generic_search_term or "",
        room_types=wanted.room_types,
        network=body.third_party_instance_id,
        has_all_networks=body.include_all_networks,
    )


def _page(query: directory.Query) -> Json:
    server = request.args.get("server")
    if server is not None and server != homeserver.server.name:
        limit_lookups()
        return homeserver.remote_queries.public_rooms(server, query)
    with homeserver.database.read() as tx:
        return directory.public_rooms(tx, query)


def _at_most(limit: int | None) -> int:
    """Return the limit in force; older clients send 0 when they want no limit."""
    return min(limit or MAX_LIMIT, MAX_LIMIT)


class Target(msgspec.Struct):
    """The body of a request to create an alias."""

    room_id: str


@bp.put("/directory/room/<room_alias>")
@authenticated()
def set_room_alias(room_alias: str) -> Json:
    """Create an alias of a room."""
    authentication.rate_limits().check("rc_message", requester().user_id)
    body = http.body_as(Target)
    appservice_users.check_alias(homeserver.server, room_alias, requester().service)
    with homeserver.database.write() as tx:
        aliases.create(tx, room_alias, body.room_id, requester().user_id)
    return {}


@bp.get("/directory/room/<room_alias>")
@unauthenticated
def get_room_id_by_alias(room_alias: str) -> Json:
    """Return the room of an alias, and servers that are in it. Needs no account.

    Raises M_LIMIT_EXCEEDED, also for too many requests by which bridges would create rooms.
    """
    limit_strangers()
    aliases.check(room_alias)
    server = homeserver.server
    if server.config.federation and identifiers.server_name(room_alias) != server.name:
        limit_lookups()
        found = homeserver.remote_queries.alias(room_alias)
        return {"room_id": found.room_id, "servers": found.servers}
    appservice_queries.ensure_alias(homeserver.database, room_alias, limit_lookups)
    with homeserver.database.read() as tx:
        room_id = aliases.room_of(tx, room_alias)
        return {"room_id": room_id, "servers": federated_rooms.servers(tx, room_id)}


@bp.delete("/directory/room/<room_alias>")
@authenticated()
def delete_room_alias(room_alias: str) -> Json:
    """Remove an alias."""
    appservice_users.check_alias(homeserver.server, room_alias, requester().service)
    with homeserver.database.write() as tx:
        aliases.remove(tx, room_alias, requester())
    return {}


@bp.get("/rooms/<room_id>/aliases")
@authenticated()
def get_local_aliases(room_id: str) -> Json:
    """Return the aliases of a room."""
    with homeserver.database.read() as tx:
        return {"aliases": aliases.of_room(tx, room_id, requester())}
