"""Aliases: setting, resolving and removing them.

Spec: client-server-api#room-aliases
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    limit_strangers,
    requester,
    unauthenticated,
)
from homebody.core.rooms import aliases, appservice_queries
from homebody.core.sessions import appservice_users
from homebody.spec.events import Json

bp = Blueprint("room_aliases", __name__)


class Target(msgspec.Struct):
    """The body of a new alias."""

    room_id: str


@bp.put("/directory/room/<room_alias>")
@authenticated()
def set_room_alias(room_alias: str) -> Json:
    """Let an alias name a room."""
    context.rate_limits().check("rc_message", requester().user_id)
    body = http.body_as(Target)
    appservice_users.check_alias(context.server(), room_alias, requester().service)
    with context.db().write() as tx:
        aliases.create(tx, room_alias, body.room_id, requester().user_id)
    return {}


@bp.get("/directory/room/<room_alias>")
@unauthenticated
def get_room_id_by_alias(room_alias: str) -> Json:
    """The room that an alias names; anybody may ask.

    But not let a bridge make one room after the other. Raises M_LIMIT_EXCEEDED.
    """

    def check_limit() -> None:
        context.rate_limits().check("rc_lookups", address_key())

    limit_strangers()
    appservice_queries.ensure_alias(context.db(), room_alias, check_limit)
    with context.db().read() as tx:
        return {"room_id": aliases.room_of(tx, room_alias), "servers": [tx.server.name]}


@bp.delete("/directory/room/<room_alias>")
@authenticated()
def delete_room_alias(room_alias: str) -> Json:
    """Take an alias away."""
    appservice_users.check_alias(context.server(), room_alias, requester().service)
    with context.db().write() as tx:
        aliases.remove(tx, room_alias, requester())
    return {}


@bp.get("/rooms/<room_id>/aliases")
@authenticated()
def get_local_aliases(room_id: str) -> Json:
    """The aliases of a room."""
    with context.db().read() as tx:
        return {"aliases": aliases.of_room(tx, room_id, requester().user_id)}
