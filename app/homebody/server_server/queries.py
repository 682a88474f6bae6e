"""Queries for profiles and aliases of this server.

Spec: server-server-api#querying-for-information
"""

from __future__ import annotations

from typing import NoReturn

from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.context import homeserver
from homebody.core.federation import rooms
from homebody.core.profiles import profiles
from homebody.core.rooms import aliases, appservice_queries
from homebody.server_server.authentication import from_server, origin
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("server_queries", __name__)


@bp.get("/v1/query/profile")
@from_server
def query_profile() -> Json:
    """Return the profile of a user of this server, or one field of it."""
    user_id, field = http.query_required("user_id"), request.args.get("field")
    if not identifiers.is_user_id(user_id):
        raise errors.invalid_param(f"{user_id!r:.300} is not a user ID")
    if not homeserver.server.is_local(user_id):
        raise errors.not_found(f"{user_id} is not a user of this server")
    with homeserver.database.read() as tx:
        if field is None:
            return profiles.get(tx, user_id)
        found = profiles.get(tx, user_id)
        return {field: found[field]} if field in found else {}


@bp.get("/v1/query/directory")
@from_server
def query_room_directory() -> Json:
    """Return the room of an alias of this server, and the servers in it.

    Raises M_LIMIT_EXCEEDED for too many requests by which bridges would create rooms.
    """
    alias = http.query_required("room_alias")
    aliases.check(alias)
    if identifiers.server_name(alias) != homeserver.server.name:
        raise errors.not_found(f"{alias} is not an alias of this server")

    def check_limit() -> None:
        authentication.rate_limits().check("rc_lookups", origin())

    appservice_queries.ensure_alias(homeserver.database, alias, check_limit)
    with homeserver.database.read() as tx:
        room_id = aliases.room_of(tx, alias)
        return {"room_id": room_id, "servers": rooms.servers(tx, room_id)}


@bp.get("/v1/query/<query_type>")
@from_server
def query_info(query_type: str) -> NoReturn:
    """Raise M_UNRECOGNIZED: the queries that there are have views of their own."""
    raise errors.unrecognized(f"There is no query for {query_type}")
