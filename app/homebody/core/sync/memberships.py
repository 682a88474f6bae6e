"""The rooms of a /sync response: those the user is in, was in, or could join.

Spec: client-server-api#syncing (join, invite, knock, leave)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field

from sqlalchemy import bindparam, select

from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.rooms import membership
from homebody.core.user_data import account_data
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.spec import canonical_json, filters
from homebody.spec.events import Json
from homebody.spec.filters import RoomFilter
from homebody.storage.database import Reader
from homebody.storage.expressions import batches

_OWN = (
    select(
        Room.room_id,
        StateInterval.membership,
        StateInterval.from_position,
        StateInterval.to_position,
        StateInterval.event_number,
    )
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(StateInterval.state_key == bindparam("user_id"), StateInterval.membership.is_not(None))
)
_OWN_NOW = _OWN.where(StateInterval.to_position == NOW_AND_LATER)
_OWN_CHANGED = _OWN.where(StateInterval.to_position > bindparam("since")).order_by(
    StateInterval.from_position
)
_CHANGED_ROOMS = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.membership.is_not(None),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.from_position > bindparam("since"),
    )
)
_FORGOTTEN = select(ForgottenRoom.room_id).where(ForgottenRoom.user_id == bindparam("user_id"))
_BUSY_OF_ROOMS = select(Room.room_id).where(
    Room.room_id.in_(bindparam("room_ids", expanding=True)),
    Room.last_position > bindparam("since"),
)
_AT_ONCE = 500
_Step = tuple[str, int, EventNumber]
"""(membership, position at which it began, event)"""


@dataclass(frozen=True, slots=True)
class LeftRoom:
    """A room that the user has left, whose events up to the leave are still to be sent."""

    room_id: str
    since: int
    """What the client has seen of it; 0: nothing."""
    upto: int
    member_event: EventNumber
    """The leave."""
    was_joined: bool = False
    """Whether the user was in the room when the client last looked."""


@dataclass(slots=True)
class Memberships:
    """The rooms of a response by the user's membership."""

    joined: Set[str]
    """All rooms that the user is in, with or without new events."""
    newly_joined: set[str] = field(default_factory=set)
    """Those of them that are new to the client."""
    left: list[LeftRoom] = field(default_factory=list)
    invited: list[str] = field(default_factory=list)
    knocked: list[str] = field(default_factory=list)
    partial: Set[str] = frozenset()
    """Rooms that the user is in, but not all of whose members are known yet."""
    completed: Set[str] = frozenset()
    """Rooms that the user is in, whose members are known only since the client last looked."""
    interrupted: set[str] = field(default_factory=set)
    """Rooms that the user has left since, and is in again or is invited to."""


def since(tx: Reader, user_id: str, position: int, room_filter: RoomFilter) -> Memberships:
    """Return the rooms of a response to a client that has seen all up to `position`; 0: nothing."""
    if position == 0:
        mine = _initial(tx, user_id, room_filter)
    else:
        mine = Memberships(state.joined_rooms(tx, user_id))
        if changed := _changed(tx, user_id, position):
            changed = {it for it in changed if filters.admits_room(room_filter, it)}
            _sort_in(tx, user_id, position, changed, mine)
        if room_filter.rooms is not None or room_filter.not_rooms:
            mine.joined = {it for it in mine.joined if filters.admits_room(room_filter, it)}
    known = tx.cached(partial_rooms.KNOWN, partial_rooms.ONLY_ONE)
    if known is None or known.partial or known.last_full > position:
        mine.partial = partial_rooms.rooms(tx) & mine.joined
        mine.completed = partial_rooms.full_since(tx, position) & mine.joined if position else set()
    if mine.invited:
        mine.invited = _wanted_invites(tx, user_id, mine.invited)
    return mine


def leave_partial_out(mine: Memberships) -> None:
    """Leave out the rooms whose members are not known yet, for a client that wants all members.

    They are new to it when the members are known.
    """
    mine.joined = mine.joined - mine.partial
    mine.newly_joined = mine.newly_joined - mine.partial | mine.completed


def leave_without_event(tx: Reader, room_id: str, user_id: str, position: int) -> Json:
    """Return a member event where a user has left without one, as clients believe nothing else.

    The user has rejected an invite of another server, or state resolution has removed them, or the
    room is deleted.
    """
    digest = hashlib.sha256(f"{room_id} {user_id} {position}".encode()).digest()
    return {
        "type": state.MEMBER,
        "state_key": user_id,
        "sender": user_id,
        "content": {"membership": "leave"},
        "event_id": "$" + canonical_json.encode_base64(digest, is_url_safe=True),
        "origin_server_ts": tx.now_ms,
    }


def _changed(tx: Reader, user_id: str, position: int) -> set[str]:
    """Return the rooms in which the user's membership has changed."""
    recent = tx.caches.recent
    if recent.knows(position, tx.position) and recent.memberships <= position:
        return set()
    asked = {"user_id": user_id, "since": position}
    return set(tx.sql.execute(_CHANGED_ROOMS, asked).scalars())


def with_events_since(tx: Reader, room_ids: Collection[str], position: int, upto: int) -> list[str]:
    """Return those of the rooms that have events, or other changes of state, after `position`."""
    busy = set(state.resets(tx, room_ids, position))
    recent = tx.caches.recent
    if recent.knows(position, upto):
        busy.update(room_id for _, room_id, _ in recent.events(position, upto))
        return list(busy.intersection(room_ids))
    for some in batches(room_ids, _AT_ONCE):
        asked = {"room_ids": some, "since": position}
        busy.update(tx.sql.execute(_BUSY_OF_ROOMS, asked).scalars())
    return list(busy)


def _wanted_invites(tx: Reader, user_id: str, room_ids: list[str]) -> list[str]:
    """Return the rooms without invites that the user ignores or blocks, as far as known now.

    Spec: client-server-api#ignoring-users, client-server-api#invite-permission
    """
    if membership.has_blocked_invites(tx, user_id):
        return []
    settings = account_data.settings_of(tx, [user_id])[user_id]
    if not settings.ignored and not settings.invites:
        return room_ids
    own = {room_id: state.current(tx, room_id, state.MEMBER, user_id) for room_id in room_ids}
    return [
        room_id
        for room_id, invite in own.items()
        if invite and account_data.decide_on_invite(tx, user_id, invite.sender) == "allow"
    ]


def _initial(tx: Reader, user_id: str, room_filter: RoomFilter) -> Memberships:
    """Return all rooms, for a client that knows none."""
    own = [
        row
        for row in tx.sql.execute(_OWN_NOW, {"user_id": user_id})
        if filters.admits_room(room_filter, row.room_id)
    ]
    joined = {row.room_id for row in own if row.membership == "join"}
    mine = Memberships(joined, newly_joined=set(joined))
    mine.invited = [row.room_id for row in own if row.membership == "invite"]
    mine.knocked = [row.room_id for row in own if row.membership == "knock"]
    if room_filter.include_leave:
        forgotten = set(tx.sql.execute(_FORGOTTEN, {"user_id": user_id}).scalars())
        mine.left = [
            LeftRoom(row.room_id, 0, row.from_position, row.event_number)
            for row in own
            if row.membership in {"leave", "ban"} and row.room_id not in forgotten
        ]
    return mine


def _sort_in(tx: Reader, user_id: str, position: int, changed: set[str], mine: Memberships) -> None:
    """Sort the rooms in which the user's membership has changed into `mine`."""
    course: dict[str, list[_Step]] = {room_id: [] for room_id in changed}
    asked = {"user_id": user_id, "since": position}
    query = _OWN_CHANGED.where(Room.room_id.in_(changed))
    for row in tx.sql.execute(query, asked):
        course[row.room_id].append((row.membership, row.from_position, row.event_number))
    forgotten = set(tx.sql.execute(_FORGOTTEN, {"user_id": user_id}).scalars())
    for room_id, steps in course.items():
        now, began, event_number = steps[-1]
        was_joined = steps[0][0] == "join" and steps[0][1] <= position
        is_left = any(membership != "join" for membership, _, _ in steps)
        if was_joined and is_left and now in {"join", "invite", "knock"}:
            mine.interrupted.add(room_id)
        if now == "join":
            if not was_joined or is_left:
                mine.newly_joined.add(room_id)
        elif now == "invite":
            mine.invited.append(room_id)
        elif now == "knock":
            mine.knocked.append(room_id)
        elif not _was_outside(steps, position):
            seen = position if was_joined else 0
            mine.left.append(LeftRoom(room_id, seen, began, event_number, was_joined))
        elif room_id not in forgotten:
            mine.left.append(LeftRoom(room_id, began - 1, began, event_number))


def _was_outside(steps: Sequence[_Step], position: int) -> bool:
    """Return whether the user had left before `position` and has not been in the room since.

    The client has seen everything up to the leave. What is new is an unban, or a ban after the
    leave: only that event is sent.
    """
    first, began, _ = steps[0]
    had_left = first in {"leave", "ban"} and began <= position
    return had_left and all(membership != "join" for membership, _, _ in steps)
