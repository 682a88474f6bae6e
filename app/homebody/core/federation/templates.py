"""Templates of membership events, for users of servers that are not in the room.

Their server completes the template, signs it, and sends it back (membership_events.py).

Spec: server-server-api#joining-rooms, server-server-api#restricted-rooms,
server-server-api#knocking-rooms, server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from homebody import errors
from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.federation import rooms, server_acls
from homebody.core.rooms import membership
from homebody.core.timeline import sending
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader

NEEDS_VERSION: Final = frozenset({"join", "knock"})
"""Memberships that a server can only have in rooms whose version it supports."""


def make(
    tx: Reader,
    origin: str,
    room_id: str,
    user_id: str,
    kind: str,
    versions: Collection[str] = (),
) -> Json:
    """Return the response with a template of a user's join, leave or knock.

    `versions` are the room versions that the server supports.
    Raises M_FORBIDDEN, M_NOT_FOUND for a room in which this server is not,
    M_INCOMPATIBLE_ROOM_VERSION, and what `membership.authorisation` raises.
    """
    if not identifiers.is_user_id(user_id) or identifiers.server_name(user_id) != origin:
        raise errors.forbidden(f"{user_id} is not a user of your server")
    check_may_take_part(tx, origin, room_id)
    check_knows_member(tx, room_id, user_id, kind)
    version = state.head(tx, room_id).version
    if kind in NEEDS_VERSION and version not in versions:
        raise errors.incompatible_room_version(version)
    content: Json = {"membership": kind}
    if kind == "join":
        content |= membership.authorisation(tx, room_id, user_id)
    draft = sending.Draft(room_id, user_id, state.MEMBER, content, user_id)
    return {"event": sending.template(tx, draft), "room_version": version}


def check_knows_member(tx: Reader, room_id: str, user_id: str, kind: str) -> None:
    """Raise M_NOT_FOUND where this server does not know enough of a room that it has just joined.

    Then it can't authorise a user, nor send the state. Other servers in the room can.
    """
    is_known = kind == "leave" and state.membership_of(tx, room_id, user_id) is not None
    if partial_rooms.is_partial(tx, room_id) and not is_known:
        raise errors.not_found("This server does not know the members of the room yet")


def check_may_take_part(tx: Reader, origin: str, room_id: str) -> None:
    """Raise M_NOT_FOUND unless this server is in a room, M_FORBIDDEN if that excludes the other."""
    if not rooms.is_in_room(tx, room_id, tx.server.name):
        raise errors.not_found("This server is not in the room")
    server_acls.check(tx, room_id, origin)
