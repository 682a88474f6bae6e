"""Who is in a room.

Spec: client-server-api#get_matrixclientv3roomsroomidmembers
"""

from __future__ import annotations

from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server.authentication import authenticated, requester
from homebody.core.events import encoding, members
from homebody.core.sync import tokens
from homebody.spec.events import Json

bp = Blueprint("members", __name__)

MEMBERSHIPS = ("ban", "invite", "join", "knock", "leave")


@bp.get("/rooms/<room_id>/members")
@authenticated(guests=True)
def get_members_by_room(room_id: str) -> Json:
    """The member events of a room, now or at the time of a token."""
    me = requester()
    at = request.args.get("at")
    membership, not_membership = _membership("membership"), _membership("not_membership")
    with context.db().read() as tx:
        found = members.members(
            tx,
            me.user_id,
            room_id,
            at=tokens.parse(at, tx.position).position if at else None,
            membership=membership,
            not_membership=not_membership,
        )
        return {"chunk": encoding.encode_state(tx, me, found)}


@bp.get("/rooms/<room_id>/joined_members")
@authenticated()
def get_joined_members_by_room(room_id: str) -> Json:
    """Names and avatars of who is in the room now."""
    with context.db().read() as tx:
        return {"joined": members.joined(tx, requester().user_id, room_id)}


def _membership(name: str) -> str | None:
    value = request.args.get(name)
    if value is not None and value not in MEMBERSHIPS:
        raise errors.invalid_param(f"{name} must be one of {', '.join(MEMBERSHIPS)}")
    return value
