"""Rooms: the list, details, members, state, blocks, administrators, joins, forward extremities."""

from __future__ import annotations

from typing import Final

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import http, membership
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.events import client_events, state, unrestricted
from homebody.core.federation.joins import JoinRequest
from homebody.core.rooms import (
    aliases,
    blocked,
    extremities,
    listing,
    ordered_joins,
    room_admins,
)
from homebody.core.rooms import membership as memberships
from homebody.core.timeline import joined_rooms, outside_rooms
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("admin_rooms", __name__)

DEFAULT_LIMIT: Final = 100


class Block(msgspec.Struct):
    """The body of a request to block a room or to end that."""

    block: bool


class MakeAdmin(msgspec.Struct):
    """The body of make_room_admin."""

    user_id: str | None = None


class Join(msgspec.Struct):
    """The body of a request that joins a user to a room."""

    user_id: str


@bp.get("/v1/rooms")
@authenticated(admins_only=True)
def list_rooms() -> Json:
    """Return a part of the list of all rooms."""
    search_term = request.args.get("search_term")
    if search_term == "":
        raise errors.invalid_param("search_term must not be empty")
    query = listing.Query(
        start=http.query_integer("from", 0),
        limit=http.query_integer("limit", DEFAULT_LIMIT),
        order_by=http.query_choice("order_by", listing.ORDERS, listing.ORDERS[0]),
        is_backwards=http.query_choice("dir", {"b", "f"}, "f") == "b",
        search_term=search_term,
        is_published=_flag("public_rooms"),
        is_empty=_flag("empty_rooms"),
    )
    with homeserver.database.read() as tx:
        rooms, total = listing.page(tx, query)
    page: Json = {"rooms": rooms, "offset": query.start, "total_rooms": total}
    if query.start + query.limit < total:
        page["next_batch"] = query.start + query.limit
    if query.start > 0:
        page["prev_batch"] = max(query.start - query.limit, 0)
    return page


@bp.get("/v1/rooms/<room_id>")
@authenticated(admins_only=True)
def get_room(room_id: str) -> Json:
    """Return the details of a room."""
    with homeserver.database.read() as tx:
        return listing.details(tx, room_id)


@bp.get("/v1/rooms/<room_id>/members")
@authenticated(admins_only=True)
def get_members(room_id: str) -> Json:
    """Return the joined users of a room."""
    with homeserver.database.read() as tx:
        state.head(tx, room_id)
        members = sorted(state.joined_users(tx, room_id))
    return {"members": members, "total": len(members)}


@bp.get("/v1/rooms/<room_id>/state")
@authenticated(admins_only=True)
def get_state(room_id: str) -> Json:
    """Return a room's current state, or one type of it."""
    with homeserver.database.read() as tx:
        events = unrestricted.current_state(tx, room_id, request.args.get("type") or None)
        return {"state": client_events.encode_all(tx, None, events)}


@bp.get("/v1/rooms/<room_id>/block")
@authenticated(admins_only=True)
def get_block(room_id: str) -> Json:
    """Return whether a room is blocked, and by whom."""
    check_room_id(room_id)
    with homeserver.database.read() as tx:
        user_id = blocked.blocked_by(tx, room_id)
    return {"block": False} if user_id is None else {"block": True, "user_id": user_id}


@bp.put("/v1/rooms/<room_id>/block")
@authenticated(admins_only=True)
def set_block(room_id: str) -> Json:
    """Block a room, which need not be known, or end that."""
    body = http.body_as(Block)
    check_room_id(room_id)
    change = blocked.block if body.block else blocked.unblock
    with homeserver.database.write() as tx:
        change(tx, requester().user_id, room_id)
    return {"block": body.block}


@bp.post("/v1/rooms/<room_id_or_alias>/make_room_admin")
@authenticated(admins_only=True)
def make_room_admin(room_id_or_alias: str) -> Json:
    """Give a user, or the administrator, the power of the strongest local user of a room."""
    body = http.body_as(MakeAdmin, may_be_empty=True)
    user_id = body.user_id or requester().user_id
    with homeserver.database.write() as tx:
        room_id = aliases.resolve(tx, room_id_or_alias)
        inviter = room_admins.make_admin(tx, requester().user_id, room_id, user_id)
    if inviter is not None and membership.is_elsewhere(user_id):
        membership.invite_elsewhere(room_id, user_id, {}, inviter)
    return {}


@bp.post("/v1/join/<room_id_or_alias>")
@authenticated(admins_only=True)
def join_room(room_id_or_alias: str) -> Json:
    """Join a user of this server to a room, also of other servers."""
    user_id = http.body_as(Join).user_id
    with homeserver.database.read() as tx:
        ordered_joins.check_user(tx, user_id)
    room_id, named = membership.find_room(room_id_or_alias)
    actor = requester().user_id
    with homeserver.database.read() as tx:
        is_here = joined_rooms.may_join_here(tx, room_id, user_id)
        servers = outside_rooms.servers_for(tx, room_id, user_id, named)
    if is_here or not servers:
        with homeserver.database.write() as tx:
            ordered_joins.join(tx, actor, room_id, user_id)
        return {"room_id": room_id}
    with homeserver.database.read() as tx:
        content = memberships.with_profile(tx, user_id, {})
    homeserver.joins.join(JoinRequest(room_id, user_id, content, servers, named))
    with homeserver.database.write() as tx:
        ordered_joins.note(tx, actor, room_id, user_id)
    return {"room_id": room_id}


@bp.get("/v1/rooms/<room_id_or_alias>/forward_extremities")
@authenticated(admins_only=True)
def get_forward_extremities(room_id_or_alias: str) -> Json:
    """Return the forward extremities of a room."""
    with homeserver.database.read() as tx:
        found = extremities.describe(tx, aliases.resolve(tx, room_id_or_alias))
    return {"count": len(found), "results": found}


@bp.delete("/v1/rooms/<room_id_or_alias>/forward_extremities")
@authenticated(admins_only=True)
def delete_forward_extremities(room_id_or_alias: str) -> Json:
    """Remove all forward extremities of a room but the newest."""
    with homeserver.database.write() as tx:
        room_id = aliases.resolve(tx, room_id_or_alias)
        deleted = extremities.remove_all_but_one(tx, requester().user_id, room_id)
    return {"deleted": deleted}


def check_room_id(room_id: str) -> None:
    """Raise M_INVALID_PARAM unless this is a room ID."""
    if not identifiers.is_room_id(room_id):
        raise errors.invalid_param(f"{room_id!r} is not a room ID")


def _flag(name: str) -> bool | None:
    """Return a boolean from the query, None where it is not there. Raises M_INVALID_PARAM."""
    return http.query_boolean(name) if name in request.args else None
