"""Everything that a user has, in one answer: how clients began before /sync.

Spec: client-server-api#get_matrixclientv3initialsync
"""

from __future__ import annotations

from typing import NamedTuple

from homebody.core.events import client_events, state
from homebody.core.rooms import previews
from homebody.core.rooms.previews import Preview
from homebody.core.sync import memberships
from homebody.errors import MatrixError
from homebody.runtime import event_loop
from homebody.spec import filters
from homebody.spec.filters import RoomFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader


class KnownRoom(NamedTuple):
    """A room that the user is in, was in, or could come into."""

    room_id: str
    membership: str
    invite: ClientEvent | None
    """Where the user is invited."""
    preview: Preview | None
    """Where the user is or was in it."""


def rooms(tx: Reader, user_id: str, limit: int, *, with_left: bool) -> list[KnownRoom]:
    """The user's rooms, each with its state and its last `limit` events.

    Rooms at which the user has knocked have no place in this answer.
    """
    wanted = RoomFilter(include_leave=True) if with_left else filters.EVERYTHING.room
    mine = memberships.since(tx, user_id, 0, wanted)
    known: list[KnownRoom] = []
    for room_id in sorted(mine.joined):
        event_loop.breathe()
        preview = previews.preview(tx, user_id, room_id, limit)
        known.append(KnownRoom(room_id, "join", None, preview))
    known += [_invited(tx, user_id, room_id) for room_id in sorted(mine.invited)]
    for left in mine.left:
        event_loop.breathe()
        known.append(_left(tx, user_id, left.room_id, limit))
    return known


def _invited(tx: Reader, user_id: str, room_id: str) -> KnownRoom:
    own = (state.MEMBER, user_id)
    entry = state.entries(tx, room_id, [own])[own]
    (invite,) = client_events.load(tx, [entry.position])
    return KnownRoom(room_id, "invite", invite, None)


def _left(tx: Reader, user_id: str, room_id: str, limit: int) -> KnownRoom:
    membership = state.membership_of(tx, room_id, user_id) or "leave"
    try:
        preview = previews.preview(tx, user_id, room_id, limit)
    except MatrixError as refusal:
        if refusal.errcode != "M_FORBIDDEN":
            raise
        preview = None  # was only invited, and declined
    return KnownRoom(room_id, membership, None, preview)
