"""The user's rooms, those first in which something has happened last; kept with a connection.

It is read once. After that only what has happened between two positions of the clock is asked for,
and only the rooms concerned are sorted anew: one that has an event comes to the top.

Who was kicked or banned sees the room as it was then; who has left by themselves knows that, and
sees it no more.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

import orjson
from sqlalchemy import text

from homebody.core.events import state, visibility
from homebody.core.rooms import membership
from homebody.core.sync import memberships
from homebody.core.sync.memberships import Memberships
from homebody.core.user_data import account_data
from homebody.models.base import NOW_AND_LATER
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.storage.database import Reader

_DECIDE_ON_INVITES: Final = {account_data.IGNORED_USERS, membership.INVITE_PERMISSION_CONFIG}
_SHORT_RANGE: Final = 1000
"""Positions that are cheaper to walk through than to ask each room for its last one."""

_OWN = text(
    "SELECT rooms.room_id, own.membership, own.from_position, rooms.last_position"
    " FROM state_intervals AS own JOIN rooms ON rooms.number = own.room_number"
    " JOIN events ON events.position = own.event_position"
    " WHERE own.state_key = :user_id AND own.to_position = :now AND own.membership IS NOT NULL"
    " AND (own.membership IN ('join', 'invite', 'knock') OR (events.sender <> :user_id"
    "  AND EXISTS (SELECT 1 FROM state_intervals AS earlier"
    "   WHERE earlier.room_number = own.room_number AND earlier.type = 'm.room.member'"
    "   AND earlier.state_key = :user_id AND earlier.membership = 'join')"
    "  AND NOT EXISTS (SELECT 1 FROM forgotten_rooms AS forgotten"
    "   WHERE forgotten.user_id = :user_id AND forgotten.room_id = rooms.room_id)))"
)
# the plus signs keep SQLite from indexes by which it would read all events or receipts of old
_BUSY_IN_RANGE = text(
    "SELECT room_id, max(position) AS position FROM events"
    " WHERE position > :since AND position <= :upto GROUP BY +room_id"
)
_BUSY_OF_ROOMS = text(
    "SELECT rooms.room_id, rooms.last_position AS position FROM json_each(:rooms) AS one"
    " JOIN rooms ON rooms.room_id = one.value AND rooms.last_position > :since"
)
_READ = text(
    "SELECT DISTINCT +room_id FROM receipts"
    " WHERE +user_id = :user_id AND position > :since AND position <= :upto"
)


@dataclass(frozen=True, slots=True)
class OwnRoom:
    """A room and what the user is in it."""

    membership: str
    since: int
    """The position of that membership."""


@dataclass(frozen=True, slots=True)
class Order:
    """The rooms at some position."""

    rooms: Mapping[str, OwnRoom]
    ids: list[str]
    """The most active first."""
    joined: Set[str]


NO_ROOMS: Final = Order({}, [], frozenset())
"""They have not been read: a connection may be about messages alone."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has happened to the user's rooms after a position."""

    order: Order
    """As it is now."""
    busy: Set[str] = frozenset()
    """Joined rooms with events."""
    anew: Set[str] = frozenset()
    """Rooms that the user has joined, perhaps after having left them."""
    moved: Set[str] = frozenset()
    """Rooms in which the user's membership is another, or that are not to be told of any more."""
    read: Set[str] = frozenset()
    """Rooms in which the user has read on."""
    data: Mapping[str, list[Json]] = field(default_factory=dict)
    """{room_id: account data}, "" for global."""

    @property
    def is_something(self) -> bool:
        """Whether any of it may be news."""
        return bool(self.busy or self.anew or self.moved or self.read or self.data)


def since(
    tx: Reader, user_id: str, before: Order, position: int, *, are_rooms_wanted: bool
) -> Changes:
    """What has happened after `position`, when the order was `before`; 0: all there is."""
    is_to_read = are_rooms_wanted and before is NO_ROOMS
    if position and tx.position <= position and not is_to_read:
        return Changes(before)
    data = account_data.since(tx, user_id, position, tx.position)
    if is_to_read or not are_rooms_wanted:
        return Changes(_all(tx, user_id) if is_to_read else NO_ROOMS, data=data)
    asked = {"user_id": user_id, "since": position, "upto": tx.position}
    read = set(tx.sql.execute(_READ, asked).scalars())
    mine = memberships.since(tx, user_id, position, filters.EVERYTHING.room)
    last = _last_positions(tx, mine.joined, position)
    anew = mine.newly_joined | (mine.joined - before.joined)
    if any(event["type"] in _DECIDE_ON_INVITES for event in data.get("", ())):
        order = _all(tx, user_id)
        moved = order.rooms.keys() ^ before.rooms.keys()
    else:
        changed = _changed(tx, user_id, before, mine, last.keys() | anew)
        moved = changed.keys() - last.keys()
        order = _sorted_anew(before, changed, last, mine.joined)
    return Changes(order, last.keys(), anew, set(moved), read, data)


def _all(tx: Reader, user_id: str) -> Order:
    """Every room; of invites those that are welcome."""
    welcome = set(memberships.since(tx, user_id, 0, filters.EVERYTHING.room).invited)
    rows = [
        row
        for row in tx.sql.execute(_OWN, {"user_id": user_id, "now": NOW_AND_LATER})
        if row.membership != "invite" or row.room_id in welcome
    ]

    def activity(row: tuple[str, str, int, int]) -> int:
        _, own, since_position, last_position = row
        return last_position if own == "join" else since_position

    rows.sort(key=activity, reverse=True)
    rooms = {row.room_id: OwnRoom(row.membership, row.from_position) for row in rows}
    return Order(rooms, [*rooms], state.joined_rooms(tx, user_id))


def _last_positions(tx: Reader, joined: Set[str], position: int) -> dict[str, int]:
    """{room_id: position of its newest event} of the rooms that have new ones."""
    if tx.position - position <= _SHORT_RANGE:
        found = tx.sql.execute(_BUSY_IN_RANGE, {"since": position, "upto": tx.position})
    else:
        rooms = orjson.dumps(list(joined)).decode()
        found = tx.sql.execute(_BUSY_OF_ROOMS, {"since": position, "rooms": rooms})
    return {room_id: last for room_id, last in found if room_id in joined}


def _changed(
    tx: Reader, user_id: str, before: Order, mine: Memberships, joined: Iterable[str]
) -> dict[str, OwnRoom | None]:
    """{room_id: how it is now} of rooms with events or with another membership; None: not shown."""
    own = (state.MEMBER, user_id)
    found: dict[str, OwnRoom | None] = {}
    for room_id in before.joined - mine.joined:
        found[room_id] = None
    for room in mine.left:
        entry = state.entries(tx, room.room_id, [own])[own]
        found[room.room_id] = None
        if entry.event is not None and entry.event.sender != user_id:  # kicked or banned
            now = str(entry.event.content["membership"])
            if visibility.history(tx, user_id, room.room_id).joined_until:
                found[room.room_id] = OwnRoom(now, room.upto)
    for name, ids in (("invite", mine.invited), ("knock", mine.knocked), ("join", joined)):
        for room_id in ids:
            found[room_id] = OwnRoom(name, state.entries(tx, room_id, [own])[own].since)
    return found


def _sorted_anew(
    before: Order, changed: dict[str, OwnRoom | None], last: dict[str, int], joined: Set[str]
) -> Order:
    """The order with these rooms on top: whatever changed is newer than all that did not."""
    if not changed:
        return before
    rooms = {room_id: room for room_id, room in before.rooms.items() if room_id not in changed}
    kept = [room_id for room_id in before.ids if room_id not in changed]
    there = {room_id: room for room_id, room in changed.items() if room is not None}
    newest = sorted(there, key=lambda room_id: -last.get(room_id, there[room_id].since))
    return Order(rooms | there, newest + kept, joined)
