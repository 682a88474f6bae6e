"""The user's rooms, sorted by their last event; part of the connection state.

The order is read once. After that only changes between two positions of the clock are queried, and
only rooms with changes are moved, to the top.

Rooms from which the user was kicked or banned are included; rooms that they left themselves aren't.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Text, and_, bindparam, or_, select
from sqlalchemy.orm import aliased

from homebody.core.events import state, visibility
from homebody.core.rooms import membership
from homebody.core.sync import memberships
from homebody.core.sync.memberships import Memberships
from homebody.core.user_data import account_data
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.receipts import Receipt
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import unindexed

_Own, _Earlier = aliased(StateInterval), aliased(StateInterval)
_USER_ID = bindparam("user_id", type_=Text())
_WAS_JOINED = (
    select(_Earlier.room_number)
    .where(
        _Earlier.room_number == _Own.room_number,
        _Earlier.type == state.MEMBER,
        _Earlier.state_key == _USER_ID,
        _Earlier.membership == "join",
    )
    .exists()
)
_IS_FORGOTTEN = (
    select(ForgottenRoom.room_id)
    .where(ForgottenRoom.user_id == _USER_ID, ForgottenRoom.room_id == Room.room_id)
    .exists()
)
_OWN = (
    select(Room.room_id, _Own.membership, _Own.from_position, Room.last_position)
    .select_from(_Own)
    .join(Room, Room.number == _Own.room_number)
    .join(StoredEvent, StoredEvent.number == _Own.event_number)
    .where(
        _Own.state_key == _USER_ID,
        _Own.to_position == NOW_AND_LATER,
        _Own.membership.is_not(None),
        or_(
            _Own.membership.in_(("join", "invite", "knock")),
            and_(StoredEvent.sender != _USER_ID, _WAS_JOINED, ~_IS_FORGOTTEN),
        ),
    )
)
_LEFT = (
    select(Room.room_id, _Own.membership, _Own.from_position)
    .select_from(_Own)
    .join(Room, Room.number == _Own.room_number)
    .where(
        Room.room_id.in_(bindparam("rooms", expanding=True)),
        _Own.state_key == _USER_ID,
        _Own.to_position == NOW_AND_LATER,
        _Own.membership.in_(("leave", "ban")),
        _WAS_JOINED,
        ~_IS_FORGOTTEN,
    )
)
_BUSY_OF_ROOMS = select(Room.room_id, Room.last_position.label("position")).where(
    Room.room_id.in_(bindparam("rooms", expanding=True)),
    Room.last_position > bindparam("since"),
)
# `unindexed` keeps SQLite from an index by which it would read all old receipts
_READ = (
    select(unindexed(Receipt.room_id))
    .where(
        unindexed(Receipt.user_id) == _USER_ID,
        Receipt.position > bindparam("since"),
        Receipt.position <= bindparam("upto"),
    )
    .distinct()
)


@dataclass(frozen=True, slots=True)
class OwnMembership:
    """The user's membership in a room."""

    membership: str
    since: int
    """The position of the membership event; of a joined room, perhaps of an earlier one."""


@dataclass(frozen=True, slots=True)
class RoomOrder:
    """The user's rooms at a position."""

    rooms: Mapping[str, OwnMembership]
    ids: list[str]
    """The most recently active room first."""
    joined: Set[str]


NO_ROOMS: Final = RoomOrder({}, [], frozenset())
"""Not read yet, as a connection may be used for extensions only."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes to the user's rooms after a position."""

    order: RoomOrder
    """The current order."""
    with_new_events: Set[str] = frozenset()
    """Joined rooms with new events, or other changes of state."""
    newly_joined: Set[str] = frozenset()
    """Rooms that the user has joined, possibly not for the first time."""
    membership_changed: Set[str] = frozenset()
    """Rooms whose membership has changed, or that must not be sent any longer."""
    read: Set[str] = frozenset()
    """Rooms with new receipts of the user."""
    account_data: Mapping[str, list[Json]] = field(default_factory=dict)
    """{room_id or "" for global: events}"""
    direct: Set[str] = frozenset()
    """Rooms that have become, or are no longer, direct chats; set by the response."""
    completed: Set[str] = frozenset()
    """Joined rooms whose members are known only since then."""

    @property
    def has_any(self) -> bool:
        """Whether there may be anything to send."""
        rooms = self.with_new_events or self.newly_joined or self.membership_changed
        return bool(rooms or self.read or self.account_data)


def since(
    tx: Reader, user_id: str, before: RoomOrder, position: int, *, with_rooms: bool
) -> Changes:
    """Return the changes after `position`, at which the order was `before`. 0: everything."""
    is_to_read = with_rooms and before is NO_ROOMS
    if position and tx.position <= position and not is_to_read:
        return Changes(before)
    data = account_data.since(tx, user_id, position, tx.position)
    if is_to_read or not with_rooms:
        return Changes(_all(tx, user_id) if is_to_read else NO_ROOMS, account_data=data)
    mine = memberships.since(tx, user_id, position, filters.EVERYTHING.room)
    last = _last_positions(tx, mine.joined, position)
    newly_joined = mine.newly_joined | (mine.joined - before.joined)
    if any(event["type"] in membership.DECIDE_ON_INVITES for event in data.get("", ())):
        order = _all(tx, user_id)
        moved = order.rooms.keys() ^ before.rooms.keys()
    else:
        changed = _changed(tx, user_id, before, mine, last.keys() | newly_joined)
        moved = changed.keys() - last.keys()
        order = _reordered(before, changed, last, mine.joined)
    busy = last.keys() | state.resets(tx, mine.joined, position).keys()
    read = _read(tx, user_id, position)
    return Changes(order, busy, newly_joined, set(moved), read, data, completed=mine.completed)


def left(tx: Reader, user_id: str, room_ids: Collection[str]) -> dict[str, OwnMembership]:
    """Return {room_id: membership} of those that the user was in and has not forgotten."""
    if not room_ids:
        return {}
    rows = tx.sql.execute(_LEFT, {"user_id": user_id, "rooms": room_ids})
    return {room_id: OwnMembership(membership, since) for room_id, membership, since in rows}


def _all(tx: Reader, user_id: str) -> RoomOrder:
    """Return all rooms, without unwelcome invites."""
    welcome = set(memberships.since(tx, user_id, 0, filters.EVERYTHING.room).invited)
    rows = [
        row
        for row in tx.sql.execute(_OWN, {"user_id": user_id})
        if row.membership != "invite" or row.room_id in welcome
    ]
    rows.sort(
        key=lambda row: row.last_position if row.membership == "join" else row.from_position,
        reverse=True,
    )
    rooms = {row.room_id: OwnMembership(row.membership, row.from_position) for row in rows}
    return RoomOrder(rooms, [*rooms], state.joined_rooms(tx, user_id))


def _read(tx: Reader, user_id: str, position: int) -> set[str]:
    """Return the rooms with receipts of the user after a position."""
    recent = tx.caches.recent
    if recent.knows(position, tx.position) and recent.receipts <= position:
        return set()
    values = {"user_id": user_id, "since": position, "upto": tx.position}
    return set(tx.sql.execute(_READ, values).scalars())


def _last_positions(tx: Reader, joined: Set[str], position: int) -> dict[str, int]:
    """Return {room_id: position of its newest event} of rooms with new events."""
    recent = tx.caches.recent
    if recent.knows(position, tx.position):
        events = recent.events(position, tx.position)
        return {room_id: last for last, room_id, _ in events if room_id in joined}
    found = tx.sql.execute(_BUSY_OF_ROOMS, {"since": position, "rooms": joined})
    return {room_id: last for room_id, last in found}  # noqa: C416 - to mypy a row is not a pair


def _changed(
    tx: Reader, user_id: str, before: RoomOrder, mine: Memberships, joined: Iterable[str]
) -> dict[str, OwnMembership | None]:
    """Return {room_id: membership} of changed rooms; None for rooms to leave out."""
    own = (state.MEMBER, user_id)
    found: dict[str, OwnMembership | None] = {}
    for room_id in before.joined - mine.joined:
        found[room_id] = None
    for room in mine.left:
        entry = state.entries(tx, room.room_id, [own])[own]
        found[room.room_id] = None
        if entry.event is not None and entry.event.sender != user_id:  # kicked or banned
            now = str(entry.event.content["membership"])
            if visibility.history(tx, user_id, room.room_id).joined_until:
                found[room.room_id] = OwnMembership(now, room.upto)
    for name, ids in (("invite", mine.invited), ("knock", mine.knocked), ("join", joined)):
        for room_id in ids:
            known = before.rooms.get(room_id)
            if known is not None and known.membership == name == "join":
                found[room_id] = known
                continue
            found[room_id] = OwnMembership(name, state.entries(tx, room_id, [own])[own].since)
    return found


def _reordered(
    before: RoomOrder,
    changed: dict[str, OwnMembership | None],
    last: dict[str, int],
    joined: Set[str],
) -> RoomOrder:
    """Return the order with changed rooms on top, as their changes are newer than all others."""
    if not changed:
        return before
    rooms = {room_id: room for room_id, room in before.rooms.items() if room_id not in changed}
    kept = [room_id for room_id in before.ids if room_id not in changed]
    top = {room_id: room for room_id, room in changed.items() if room is not None}
    newest = sorted(top, key=lambda room_id: -last.get(room_id, top[room_id].since))
    return RoomOrder(rooms | top, newest + kept, joined)
