"""The state of rooms: now, at any position, and who was here when.

State is kept as intervals on the server's clock; see models/state.py. This module alone writes the
table state_intervals, and the caches of current state and of who is joined where.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import orjson
from sqlalchemy import bindparam, delete, insert, select, text, update

from homebody.core.events import rows
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Event, StateKey
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx

MEMBER = "m.room.member"


class MemberSummary:
    """What a room is called by, where it has no name."""

    __slots__ = ("first", "invited", "joined")

    def __init__(self, joined: int, invited: int, first: list[tuple[str, bool]]) -> None:
        self.joined = joined
        self.invited = invited
        self.first = first
        """One more than an answer lists, as it leaves out its reader: (user_id, is there)."""


class StateEntry:
    """One entry of a room's current state; `event` is None where the room has none of that kind."""

    __slots__ = ("event", "position", "since", "size_bytes")

    def __init__(self, event: Event | None, position: int, since: int, size_bytes: int) -> None:
        self.event = event
        self.position = position
        """Of the event."""
        self.since = since
        """The position from which on it is the room's state."""
        self.size_bytes = size_bytes


STATE: CacheKind[tuple[str, StateKey], StateEntry] = declare(
    "state", 30, lambda entry: entry.size_bytes
)
"""Entries of current state by (room_id, (type, state_key))."""
JOINED: CacheKind[str, frozenset[str]] = declare("joined", 10, lambda users: 120 * len(users))
"""The joined users by room_id."""
JOINED_ROOMS: CacheKind[str, frozenset[str]] = declare(
    "joined_rooms", 6, lambda rooms: 120 * len(rooms)
)
"""The rooms in which a user is joined, by user_id."""
MEMBERS: CacheKind[str, MemberSummary] = declare("members", 2, lambda _: 1200)
"""How many are in a room and who was first, by room_id; read by sync/summaries.py."""

_CURRENT = (
    select(
        *rows.EVENT_COLUMNS,
        StateInterval.type,
        StateInterval.state_key,
        StateInterval.from_position,
    )
    .join(StoredEvent, StoredEvent.position == StateInterval.event_position)
    .where(StateInterval.to_position == NOW_AND_LATER)
)
_CURRENT_OF_ROOM = _CURRENT.where(StateInterval.room_number == rows.ROOM_NUMBER)
_HELD_AT_POSITION = (
    select(*rows.EVENT_COLUMNS)
    .join(StateInterval, StoredEvent.position == StateInterval.event_position)
    .where(
        StateInterval.room_number == rows.ROOM_NUMBER,
        StateInterval.from_position <= bindparam("position"),
        StateInterval.to_position > bindparam("position"),
    )
)
_ENTRIES_AT_POSITION = text(
    # By the last interval of each key, however often the key has changed. CROSS JOIN and the plus
    # keep SQLite from reading all of the room. json_each is its own; PostgreSQL will say LATERAL
    "SELECT events.position, events.event_id, events.room_id, events.pdu, held.type,"
    " held.state_key, held.from_position FROM rooms CROSS JOIN json_each(:keys) AS key"
    " CROSS JOIN state_intervals AS held CROSS JOIN events WHERE rooms.room_id = :room_id"
    " AND held.room_number = rooms.number AND held.type = json_extract(key.value, '$[0]')"
    " AND held.state_key = json_extract(key.value, '$[1]') AND held.from_position = ("
    "  SELECT max(from_position) FROM state_intervals AS begun"
    "  WHERE begun.room_number = rooms.number AND begun.type = json_extract(key.value, '$[0]')"
    "  AND begun.state_key = json_extract(key.value, '$[1]')"
    "  AND begun.from_position <= :position)"
    " AND +held.to_position > :position AND events.position = held.event_position"
)
_JOINED_USERS = select(StateInterval.state_key).where(
    StateInterval.room_number == rows.ROOM_NUMBER,
    StateInterval.to_position == NOW_AND_LATER,
    StateInterval.membership == "join",
)
_JOINED_ROOMS = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)
_END = (
    update(StateInterval)
    .where(
        StateInterval.room_number == rows.ROOM_NUMBER,
        StateInterval.type == bindparam("of_type"),
        StateInterval.state_key == bindparam("with_key"),
        StateInterval.from_position == bindparam("begun"),
    )
    .values(to_position=bindparam("end"))
)
_BEGIN = (
    insert(StateInterval)
    .inline()  # else it asks for the room's number back
    .values(
        room_number=rows.ROOM_NUMBER,
        type=bindparam("of_type"),
        state_key=bindparam("with_key"),
        from_position=bindparam("position"),
        to_position=NOW_AND_LATER,
        event_position=bindparam("position"),
        membership=bindparam("as_member"),
    )
)
_REMOVE_ROOM = (
    delete(StateInterval)
    .where(StateInterval.room_number == rows.ROOM_NUMBER)
    .returning(StateInterval.type, StateInterval.state_key)
)


def current(tx: Reader, room_id: str, event_type: str, state_key: str = "") -> Event | None:
    """The event that is this entry of the room's current state, or None."""
    return current_many(tx, room_id, [(event_type, state_key)]).get((event_type, state_key))


def current_many(tx: Reader, room_id: str, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
    """These entries of the room's current state, without those that the room has not."""
    found = entries(tx, room_id, keys)
    return {key: entry.event for key, entry in found.items() if entry.event is not None}


def entries(tx: Reader, room_id: str, keys: Iterable[StateKey]) -> dict[StateKey, StateEntry]:
    """These entries of the room's current state, each with since when it is that.

    Where the room has none of a key, the entry's event is None.
    """
    found: dict[StateKey, StateEntry] = {}
    missing: list[StateKey] = []
    for key in keys:
        entry = tx.cached(STATE, (room_id, key))
        if entry is None:
            missing.append(key)
        else:
            found[key] = entry
    if missing:
        found |= _read_entries(tx, room_id, missing)
    return found


def all_current(tx: Reader, room_id: str) -> dict[StateKey, Event]:
    """The whole current state of a room."""
    result = tx.sql.execute(_CURRENT_OF_ROOM, {"room_id": room_id})
    return {(row.type, row.state_key): rows.event(tx, row) for row in result}


def at_position(
    tx: Reader, room_id: str, position: int, keys: Collection[StateKey] | None = None
) -> dict[StateKey, Event]:
    """The state of a room as it was after `position`; of all keys, or of these."""
    if keys is None:
        held = tx.sql.execute(_HELD_AT_POSITION, {"room_id": room_id, "position": position})
        events = [rows.event(tx, row) for row in held]
        return {(event.type, event.state_key or ""): event for event in events}
    found = {
        (row.type, row.state_key): rows.event(tx, row)
        for row in _read(tx, room_id, position, list(keys))
    }
    return {key: found[key] for key in keys if key in found}


def membership_of(tx: Reader, room_id: str, user_id: str) -> str | None:
    """The user's membership now; None for who never had any to do with the room."""
    member = current(tx, room_id, MEMBER, user_id)
    return None if member is None else str(member.content["membership"])


def is_joined(tx: Reader, room_id: str, user_id: str) -> bool:
    """Whether the user is in the room now."""
    return membership_of(tx, room_id, user_id) == "join"


def joined_users(tx: Reader, room_id: str) -> frozenset[str]:
    """Who is in the room now."""
    cached = tx.cached(JOINED, room_id)
    if cached is None:
        cached = frozenset(tx.sql.execute(_JOINED_USERS, {"room_id": room_id}).scalars())
        tx.fill(JOINED, room_id, cached)
    return cached


def joined_rooms(tx: Reader, user_id: str) -> frozenset[str]:
    """The rooms that the user is in now."""
    cached = tx.cached(JOINED_ROOMS, user_id)
    if cached is None:
        cached = frozenset(tx.sql.execute(_JOINED_ROOMS, {"user_id": user_id}).scalars())
        tx.fill(JOINED_ROOMS, user_id, cached)
    return cached


def replace(tx: Tx, event: Event, position: int) -> int | None:
    """Make a state event the room's current state; the position of the event that it replaces.

    Called by timeline.store() alone, after the event was allowed.
    """
    key = (event.type, event.state_key or "")
    before = entries(tx, event.room_id, [key])[key]
    of_entry = {"room_id": event.room_id, "of_type": key[0], "with_key": key[1]}
    if before.event is not None:
        tx.sql.execute(_END, {**of_entry, "begun": before.since, "end": position})
    membership = str(event.content["membership"]) if event.type == MEMBER else None
    tx.sql.execute(_BEGIN, {**of_entry, "position": position, "as_member": membership})
    size = rows.memory_bytes(event)
    entry = StateEntry(event, position, position, size)
    tx.remember(STATE, (event.room_id, key), entry)
    if event.type == MEMBER:
        _keep_joined(tx, event, position, before.event)
    return before.position if before.event is not None else None


def remove_room(tx: Tx, room_id: str) -> None:
    """Let nothing of a room be left here; called by rooms/purge.py alone."""
    tx.forget(JOINED, room_id)
    tx.forget(MEMBERS, room_id)
    removed = tx.sql.execute(_REMOVE_ROOM, {"room_id": room_id})
    for event_type, state_key in {(row.type, row.state_key) for row in removed}:
        tx.forget(STATE, (room_id, (event_type, state_key)))
        if event_type == MEMBER:
            tx.forget(JOINED_ROOMS, state_key)


def _keep_joined(tx: Tx, event: Event, position: int, before: Event | None) -> None:
    """Carry a membership over into the caches of who is joined where."""
    tx.forget(MEMBERS, event.room_id)
    tx.caches.recent.memberships = position
    was_joined = before is not None and before.content.get("membership") == "join"
    is_now_joined = event.content["membership"] == "join"
    if was_joined == is_now_joined:
        return
    user_id = event.state_key or ""
    for cache, key, element in (
        (JOINED, event.room_id, user_id),
        (JOINED_ROOMS, user_id, event.room_id),
    ):
        known = tx.cached(cache, key)
        if known is not None:
            tx.remember(cache, key, known | {element} if is_now_joined else known - {element})
        else:  # mark the cache as changed: a reader with an older view may be about to fill it
            tx.forget(cache, key)


def _read_entries(tx: Reader, room_id: str, keys: list[StateKey]) -> dict[StateKey, StateEntry]:
    found = {key: StateEntry(None, 0, 0, 0) for key in keys}
    for row in _read(tx, room_id, NOW_AND_LATER - 1, keys):
        event = rows.event(tx, row)
        size = rows.memory_bytes(event)
        entry = StateEntry(event, row.position, row.from_position, size)
        found[row.type, row.state_key] = entry
    for key, entry in found.items():
        tx.fill(STATE, (room_id, key), entry)
    return found


def _read(tx: Reader, room_id: str, position: int, keys: list[StateKey]) -> list[rows.AnyRow]:
    """What these entries of the state were at a position: rows of _ENTRIES_AT_POSITION."""
    asked = {"room_id": room_id, "position": position, "keys": orjson.dumps(keys).decode()}
    return tx.sql.execute(_ENTRIES_AT_POSITION, asked).all()
