"""GET /events: the events of all rooms of a user in one chronological stream.

Spec: client-server-api#get_matrixclientv3events
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from homebody.core.events import client_events, history, paging, state
from homebody.core.events.paging import Page, PageRequest
from homebody.core.sync import memberships
from homebody.core.sync.memberships import Memberships
from homebody.models.base import EventNumber
from homebody.runtime import event_loop
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

MAX_EVENTS = 5000
"""Events of all rooms together in `rooms`; each room has an equal share, or LEAST_EVENTS."""
LEAST_EVENTS = 10


class Chunk(NamedTuple):
    """The next events of the stream, oldest first."""

    events: list[ClientEvent]
    end: int
    """Position from which to continue."""


@dataclass(frozen=True, slots=True)
class StreamRange:
    """A range of the stream, and the direction in which it is read."""

    start: int
    stop: int
    limit: int
    """Events per room."""
    is_reversed: bool = False
    """Read from the newest events, but returned in chronological order."""

    @property
    def is_backwards(self) -> bool:
        """Whether the newest events come first."""
        return self.start > self.stop


class RoomInfo(NamedTuple):
    """A room that the user has joined, is invited to or has knocked on."""

    room_id: str
    membership: str
    inviter: str | None
    page: Page | None
    """None where the user is not in it."""


def since(tx: Reader, user_id: str, position: int, limit: int, wanted: RoomEventFilter) -> Chunk:
    """Return up to `limit` events after a position: of joined rooms, and the user's own changes."""
    upto = tx.position
    mine = memberships.since(tx, user_id, position, filters.EVERYTHING.room)
    busy = memberships.with_events_since(tx, mine.joined, position, upto)
    reach = dict.fromkeys(busy, (position, upto))
    reach |= {left.room_id: (max(position, left.since), left.upto) for left in mine.left}
    requests = (
        PageRequest(room_id, user_id, start, end, is_backwards=False, limit=limit, wanted=wanted)
        for room_id, (start, end) in reach.items()
    )
    pages = [paging.page(tx, request) for request in requests]
    found = {event.number: event for page in pages for event in page.events}
    for event in client_events.load(tx, _own_changes(tx, user_id, mine)):
        if event.position > position and paging.matches(event, wanted):
            found[event.number] = event
    # where a page ends early, later events of other rooms are left for the next request
    end = min((page.end for page in pages if page.end is not None), default=upto)
    events = sorted((it for it in found.values() if it.position <= end), key=_position)
    if len(events) > limit:
        return Chunk(events[:limit], events[limit - 1].position)
    return Chunk(events, end)


def peek(tx: Reader, user_id: str, room_id: str, position: int, limit: int) -> Chunk:
    """Return up to `limit` events of one room after a position, for users who may read it.

    Raises M_FORBIDDEN as visibility.may_read does.
    """
    page = history.messages(
        tx, user_id, room_id, start=position, stop=None, is_backwards=False, limit=limit
    )
    return Chunk(page.events, tx.position if page.end is None else page.end)


def read(
    tx: Reader, user_id: str, room_id: str, part: StreamRange, wanted: RoomEventFilter
) -> Page:
    """Return a page of one room, whose `end` is never None.

    Raises M_FORBIDDEN as visibility.may_read does.
    """
    page = history.messages(
        tx,
        user_id,
        room_id,
        start=part.start,
        stop=part.stop,
        is_backwards=part.is_backwards,
        limit=part.limit,
        wanted=wanted,
    )
    end = part.stop if page.end is None else page.end
    if part.is_reversed:
        return Page(page.events[::-1], end, page.start)
    return Page(page.events, page.start, end)


def rooms(tx: Reader, user_id: str, part: StreamRange, wanted: RoomEventFilter) -> list[RoomInfo]:
    """Return all rooms that the user has joined, is invited to or has knocked on.

    Joined ones have a page of events, which is shorter with many rooms.
    """
    mine = memberships.since(tx, user_id, 0, filters.EVERYTHING.room)
    share = max(LEAST_EVENTS, MAX_EVENTS // max(1, len(mine.joined)))
    part = StreamRange(part.start, part.stop, min(part.limit, share), part.is_reversed)
    known: list[RoomInfo] = []
    for room_id in sorted(mine.joined):
        event_loop.pause()
        page = read(tx, user_id, room_id, part, wanted)
        known.append(RoomInfo(room_id, "join", None, page))
    for room_id in sorted(mine.invited):
        member = state.current(tx, room_id, state.MEMBER, user_id)
        known.append(RoomInfo(room_id, "invite", member.sender if member else None, None))
    known += [RoomInfo(room_id, "knock", None, None) for room_id in sorted(mine.knocked)]
    return known


def _own_changes(tx: Reader, user_id: str, mine: Memberships) -> list[EventNumber]:
    """Return the numbers of the user's member events in rooms that they can't read now."""
    own = (state.MEMBER, user_id)
    outside = (*mine.invited, *mine.knocked)
    entries = (state.entries(tx, room_id, [own])[own] for room_id in outside)
    return [left.member_event for left in mine.left] + [it.number for it in entries]


def _position(event: ClientEvent) -> int:
    return event.position
