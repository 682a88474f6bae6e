"""GET /initialSync: the state that clients loaded when they started, before /sync existed.

Spec: client-server-api#get_matrixclientv3initialsync, client-server-api#room-previews
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from homebody.core.events import client_events, history, state, visibility
from homebody.core.rooms import directory
from homebody.core.sync import memberships
from homebody.core.user_data import account_data
from homebody.errors import MatrixError
from homebody.runtime import event_loop
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.spec.filters import RoomFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader


@dataclass(frozen=True, slots=True)
class Preview:
    """A room as the user sees it: as it is, or was when they left."""

    membership: str | None
    events: list[ClientEvent]
    """The most recent ones, in chronological order."""
    start: int
    """Position from which to page backwards."""
    end: int
    """Position from which to page forwards."""
    state: list[ClientEvent]
    directory: str
    """Its visibility in the room directory: "public" or "private"."""
    account_data: list[Json]


class RoomInfo(NamedTuple):
    """A room that the user has joined, has left or is invited to."""

    room_id: str
    membership: str
    invite: ClientEvent | None
    """The member event of an invite."""
    preview: Preview | None
    """None where the user was never in the room."""


def rooms(tx: Reader, user_id: str, limit: int, *, with_left: bool) -> list[RoomInfo]:
    """Return the user's rooms, each with its state and its last `limit` events.

    Rooms on which the user has knocked are not part of this response.
    """
    wanted = RoomFilter(include_leave=True) if with_left else filters.EVERYTHING.room
    mine = memberships.since(tx, user_id, 0, wanted)
    known: list[RoomInfo] = []
    for room_id in sorted(mine.joined):
        event_loop.pause()
        known.append(RoomInfo(room_id, "join", None, preview(tx, user_id, room_id, limit)))
    known += [_invited(tx, user_id, room_id) for room_id in sorted(mine.invited)]
    for left in mine.left:
        event_loop.pause()
        known.append(_left(tx, user_id, left.room_id, limit))
    return known


def _invited(tx: Reader, user_id: str, room_id: str) -> RoomInfo:
    own = (state.MEMBER, user_id)
    entry = state.entries(tx, room_id, [own])[own]
    (invite,) = client_events.load(tx, [entry.number])
    return RoomInfo(room_id, "invite", invite, None)


def _left(tx: Reader, user_id: str, room_id: str, limit: int) -> RoomInfo:
    membership = state.membership_of(tx, room_id, user_id) or "leave"
    try:
        shown: Preview | None = preview(tx, user_id, room_id, limit)
    except MatrixError as error:
        if error.errcode != "M_FORBIDDEN":
            raise
        shown = None  # the user was only invited, and rejected the invite
    return RoomInfo(room_id, membership, None, shown)


def preview(tx: Reader, user_id: str, room_id: str, limit: int) -> Preview:
    """Return a room with its last `limit` events. Raises M_FORBIDDEN as visibility.may_read()."""
    end = visibility.upto(tx, user_id, room_id)
    page = history.messages(
        tx, user_id, room_id, start=end, stop=None, is_backwards=True, limit=limit
    )
    return Preview(
        membership=state.membership_of(tx, room_id, user_id),
        events=page.events[::-1],
        start=page.end or 0,
        end=end,
        state=history.state_at(tx, user_id, room_id, end, filters.EVERY_ROOM_EVENT, ()),
        directory=directory.visibility(tx, room_id),
        account_data=account_data.of_rooms(tx, user_id, [room_id]).get(room_id, []),
    )
