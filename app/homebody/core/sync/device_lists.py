"""The users whose keys a client should query, and those whose keys it should forget.

A client is notified of users who share a room and whose keys have changed
(encryption/device_list_changes.py), of those with whom it has begun to share a room, as it may have
old keys of theirs, and of those with whom it shares no room any more. The latter two are computed
from the memberships; usually all joins and leaves are in the timelines of the response.

Spec: client-server-api#tracking-the-device-list-for-a-user,
client-server-api#e2e-extensions-to-sync
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, bindparam, select

from homebody.core.encryption import device_list_changes
from homebody.core.events import state
from homebody.core.sync import memberships
from homebody.core.sync.memberships import Memberships
from homebody.core.sync.spans import Span
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, in_effect, item, listed

Moves = set[tuple[str, str]]
"""(room_id, user_id) of changed memberships."""

# all memberships are listed, as the index has the position behind them
_MOVED = (
    select(Room.room_id, StateInterval.state_key)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.in_(("join", "leave", "ban", "invite", "knock")),
        StateInterval.from_position > bindparam("since"),
    )
)
# of a member whom state resolution has removed there may be nothing later
_ENDED = (
    select(Room.room_id, StateInterval.state_key)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.to_position > bindparam("since"),
        StateInterval.to_position < NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)
_MOVES = listed("moves")
_JOINED_AT = (
    select(Room.room_id, StateInterval.state_key)
    .select_from(_MOVES)
    .join(Room, Room.room_id == item(_MOVES, 0))
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.type == state.MEMBER,
            StateInterval.state_key == item(_MOVES, 1),
            in_effect(StateInterval, bindparam("position")),
            StateInterval.membership == "join",
        ),
    )
)
_USERS = listed("users")
_JOINED = select(StateInterval.room_number).where(
    StateInterval.to_position == NOW_AND_LATER, StateInterval.membership == "join"
)
_SHARING = select(_USERS.c.value).where(
    _JOINED.where(
        StateInterval.state_key == _USERS.c.value,
        StateInterval.room_number.in_(
            _JOINED.where(StateInterval.state_key == bindparam("user_id"))
        ),
    ).exists()
)
_JOINED_THEN = select(StateInterval.state_key).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.type == state.MEMBER,
    in_effect(StateInterval, bindparam("since")),
    StateInterval.membership == "join",
)
_ROOMS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class DeviceLists:
    """The users whose keys a client should query again, and those to forget."""

    changed: list[str]
    left: list[str]
    came: frozenset[str] = frozenset()
    """Users who have joined a room of the user since, or are in one that the user has joined."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.left)


NOTHING: Final = DeviceLists([], [])


def since(tx: Reader, user_id: str, position: int) -> DeviceLists:
    """Return the changes for a client that knows all up to `position`."""
    mine = memberships.since(tx, user_id, position, filters.EVERYTHING.room)
    known = mine.joined - mine.newly_joined
    busy = memberships.with_events_since(tx, known, position, tx.position)
    return _compare(tx, user_id, position, mine, _moved(tx, busy, position))


def in_response(
    tx: Reader, user_id: str, position: int, mine: Memberships, spans: Collection[Span]
) -> DeviceLists:
    """Return the same for a response of /sync about all rooms, whose timelines have been read."""
    moves: Moves = set()
    gaps: list[str] = []
    for span in spans:
        if span.is_new:
            continue
        if span.is_limited or span.is_filtered or span.reset_at:
            gaps.append(span.room_id)
        else:
            moves |= {
                (span.room_id, event.state_key)
                for event in span.timeline
                if event.type == state.MEMBER and event.state_key is not None
            }
    if gaps:
        moves |= _moved(tx, gaps, position)
    return _compare(tx, user_id, position, mine, moves)


def _compare(
    tx: Reader, user_id: str, position: int, mine: Memberships, moves: Moves
) -> DeviceLists:
    last = tx.cached(device_list_changes.LAST_CHANGE, device_list_changes.LAST)
    is_quiet = last is not None and last <= position
    changed = set[str]() if is_quiet else device_list_changes.since(tx, user_id, position)
    new = mine.newly_joined | mine.completed
    if not (changed or moves or new or mine.left or mine.interrupted):
        return NOTHING
    came, went = _came_and_went(tx, position, moves)
    for room_id in new:
        came.update(state.joined_users(tx, room_id))
    left = {room.room_id for room in mine.left if room.was_joined}
    for room_id in left | mine.interrupted:
        asked = {"room_id": room_id, "since": position}
        went.update(tx.sql.execute(_JOINED_THEN, asked).scalars())
    if went:
        asked = {"users": went, "user_id": user_id}
        went.difference_update(tx.sql.execute(_SHARING, asked).scalars())
    me = {user_id}
    # a user who joins is listed too: the room's other members may have new keys of theirs
    return DeviceLists(sorted(changed | came), sorted(went - me), frozenset(came - me))


def _came_and_went(tx: Reader, position: int, moves: Moves) -> tuple[set[str], set[str]]:
    """Return (users who are in a room where they were not, users who are not where they were).

    Most changes are neither: they are new names and avatars.
    """
    if not moves:
        return set(), set()
    joined_then, joined_now = _joined_at(tx, moves, position), _joined_at(tx, moves, tx.position)
    came = {user_id for _, user_id in joined_now - joined_then}
    went = {user_id for _, user_id in joined_then - joined_now}
    return came, went


def _joined_at(tx: Reader, moves: Moves, position: int) -> Moves:
    """Return those who were joined at a position."""
    rows = tx.sql.execute(_JOINED_AT, {"moves": moves, "position": position})
    return {(row.room_id, row.state_key) for row in rows}


def _moved(tx: Reader, room_ids: Collection[str], position: int) -> Moves:
    """Return the memberships of these rooms that have changed since."""
    found: Moves = set()
    for some in batches(room_ids, _ROOMS_AT_ONCE):
        asked = {"room_ids": some, "since": position}
        found |= {(row.room_id, row.state_key) for row in tx.sql.execute(_MOVED, asked)}
    for some in batches(state.resets(tx, room_ids, position), _ROOMS_AT_ONCE):
        asked = {"room_ids": some, "since": position}
        found |= {(row.room_id, row.state_key) for row in tx.sql.execute(_ENDED, asked)}
    return found
