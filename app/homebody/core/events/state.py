"""The state of rooms, now and at any position, and the head of each room's event graph.

State is kept as intervals on the server's clock; see models/state.py. This module reads them, and
core/events/state_changes.py alone writes them and changes the caches that are declared here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Row, and_, bindparam, func, select, true
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core import partial_rooms
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, in_effect, in_order, item, listed, unindexed

MEMBER = "m.room.member"


class RoomHead(NamedTuple):
    """A room's version, and the ends of its event graph that the next event has to cite."""

    version: str
    forward_extremities: list[str]
    depth: int


class KnownEvent(NamedTuple):
    """An event of any standing."""

    number: EventNumber
    position: int | None
    """None: it stands in no timeline."""
    standing: str
    event: Event


PAUSED_EVERY: Final = 2000
"""Members of a room that are counted at once: a millisecond."""


class Joined(NamedTuple):
    """The joined users of a room. Never modified: a reader may hold it during later writes."""

    local: frozenset[str]
    """Those with an account on this server."""
    servers: Mapping[str, int]
    """{server: number of its users}, this server included."""
    total: int
    """The number of all."""
    presumed: frozenset[str] = frozenset()
    """Servers of a partial room, which count as being there with no known user as well."""


class StateEntry:
    """One entry of a room's current state; `event` is None where the room has no such entry."""

    __slots__ = ("event", "number", "since", "size_bytes")

    def __init__(
        self, event: Event | None, number: EventNumber, since: int, size_bytes: int
    ) -> None:
        self.event = event
        self.number = number
        """The number of the event."""
        self.since = since
        """The position at which it became the room's state."""
        self.size_bytes = size_bytes

    @property
    def is_there(self) -> bool:
        """Whether there is an interval; without an event, it is of a user who was removed."""
        return self.event is not None or self.since > 0

    @property
    def membership(self) -> str | None:
        """The membership, if it is the entry of a member."""
        if self.event is None:
            return "leave" if self.since > 0 else None
        membership = self.event.content.get("membership")
        return None if membership is None else str(membership)


ROOMS: CacheKind[str, RoomHead] = declare("rooms", 5, lambda _: 200)
"""The head of each room by room_id; written by timeline/store.py."""

STATE: CacheKind[tuple[str, StateKey], StateEntry] = declare(
    "state", 27, lambda entry: entry.size_bytes
)
"""Entries of current state by (room_id, (type, state_key))."""
JOINED: CacheKind[str, Joined] = declare(
    "joined", 9, lambda it: 120 * len(it.local) + 100 * len(it.servers)
)
"""The joined users by room_id. A change of one membership costs the same in a room of ten members
as in one of ten thousand users of other servers."""
JOINED_ROOMS: CacheKind[str, frozenset[str]] = declare(
    "joined_rooms", 6, lambda rooms: 120 * len(rooms)
)
"""The rooms in which a user is joined, by user_id."""
LAST_RESET: CacheKind[str, int] = declare("state_resets", 1, lambda _: 0)
"""The last position at which the state of any room changed without an event in its timeline."""
ONLY_ONE: Final = "last"
"""The only key of LAST_RESET."""
NO_EVENT: Final = EventNumber(0)
"""Stands for the event of an interval by which a local user has left without an event."""

AnyRow = Row[*tuple[Any, ...]]
EVENT_COLUMNS = (
    StoredEvent.number,
    StoredEvent.event_id,
    StoredEvent.room_id,
    StoredEvent.pdu,
)
"""What `event_of` needs of a row."""

ROOM_NUMBER = select(Room.number).where(Room.room_id == bindparam("room_id")).scalar_subquery()
"""The number that stands for the room `room_id` in the table state_intervals."""

_HEAD = select(Room.version, Room.forward_extremities, Room.depth).where(
    Room.room_id == bindparam("room_id")
)
_PDUS = select(StoredEvent.number, StoredEvent.pdu).where(
    StoredEvent.number.in_(bindparam("numbers", expanding=True))
)
_EVENT_IDS = listed("event_ids")
_ANY_BY_IDS = select(*EVENT_COLUMNS, StoredEvent.position, StoredEvent.standing).where(
    StoredEvent.event_id.in_(select(_EVENT_IDS.c.value))
)
_ANY_BY_ID = select(*EVENT_COLUMNS, StoredEvent.position, StoredEvent.standing).where(
    StoredEvent.event_id == bindparam("event_id")
)
_BY_ID = select(*EVENT_COLUMNS).where(
    StoredEvent.event_id == bindparam("event_id"), StoredEvent.position.is_not(None)
)
_KEYS = listed("keys")
"""Entries of the state: (type, state_key)."""
Begun = aliased(StateInterval, name="begun")
LAST_BEGUN = (
    select(func.max(Begun.from_position))
    .where(
        Begun.room_number == Room.number,
        Begun.type == item(_KEYS, 0),
        Begun.state_key == item(_KEYS, 1),
    )
    .correlate(Room, _KEYS)
)
"""By which the last interval of each key is found, however often the key has changed."""
INTERVALS_OF_KEYS = in_order(
    in_order(Room, _KEYS, true()),
    StateInterval,
    and_(
        StateInterval.room_number == Room.number,
        StateInterval.type == item(_KEYS, 0),
        StateInterval.state_key == item(_KEYS, 1),
    ),
)
"""The intervals of a room that have one of the keys."""
_ENTRIES = (
    select(*EVENT_COLUMNS, StateInterval.type, StateInterval.state_key, StateInterval.from_position)
    .select_from(
        INTERVALS_OF_KEYS.outerjoin(StoredEvent, StoredEvent.number == StateInterval.event_number)
    )
    .where(
        Room.room_id == bindparam("room_id"),
        StateInterval.from_position == LAST_BEGUN.scalar_subquery(),
        unindexed(StateInterval.to_position) == NOW_AND_LATER,
    )
)
_JOINED_USERS = select(StateInterval.state_key).where(
    StateInterval.room_number == ROOM_NUMBER,
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
_NUMBERS_AT = (
    select(StateInterval.type, StateInterval.state_key, StateInterval.event_number)
    .select_from(INTERVALS_OF_KEYS)
    .where(
        Room.room_id == bindparam("room_id"),
        in_effect(StateInterval, bindparam("position"), is_end_indexed=False),
    )
)
_LAST_RESET = select(func.coalesce(func.max(Room.state_reset_position), 0)).where(
    Room.state_reset_position > 0
)
_RESET_ROOMS = listed("room_ids")
_RESETS = select(Room.room_id, Room.state_reset_position).where(
    Room.room_id.in_(select(_RESET_ROOMS.c.value)),
    Room.state_reset_position > bindparam("since"),
)
_ROOMS_AT_ONCE = 500


def event_of(tx: Reader, row: AnyRow) -> Event:
    """Return the event of a row that has EVENT_COLUMNS."""
    return Event(row.event_id, orjson.loads(row.pdu), version(tx, row.room_id))


def find_event(tx: Reader, event_id: str) -> tuple[EventNumber, Event] | None:
    """Return (number, event) for the id of an event in the timeline of its room, or None."""
    row = tx.sql.execute(_BY_ID, {"event_id": event_id}).first()
    return None if row is None else (row.number, event_of(tx, row))


def find_any(tx: Reader, event_id: str) -> KnownEvent | None:
    """Return an event of any standing, for other servers and for what is derived from it."""
    row = tx.sql.execute(_ANY_BY_ID, {"event_id": event_id}).first()
    if row is None:
        return None
    return KnownEvent(row.number, row.position, row.standing, event_of(tx, row))


def find_many(tx: Reader, event_ids: Collection[str]) -> dict[str, KnownEvent]:
    """Return events of any standing by id, as far as they are stored."""
    rows = tx.sql.execute(_ANY_BY_IDS, {"event_ids": event_ids}) if event_ids else ()
    return {
        row.event_id: KnownEvent(row.number, row.position, row.standing, event_of(tx, row))
        for row in rows
    }


def head(tx: Reader, room_id: str) -> RoomHead:
    """Return the head of a room. Raises M_NOT_FOUND for an unknown room."""
    cached = tx.cached(ROOMS, room_id)
    if cached is None:
        row = tx.sql.execute(_HEAD, {"room_id": room_id}).first()
        if row is None:
            raise errors.not_found("This server does not know the room")
        cached = RoomHead(row.version, row.forward_extremities, row.depth)
        tx.fill(ROOMS, room_id, cached)
    return cached


def version(tx: Reader, room_id: str) -> RoomVersion:
    """Return the version of a room. Raises M_NOT_FOUND for an unknown room."""
    return VERSIONS[head(tx, room_id).version]


def memory_bytes(event: Event) -> int:
    """Estimate the memory that an event takes, for the bounds of caches."""
    return 1500 + 4 * len(str(event.content))


def pdus(tx: Reader, numbers: list[EventNumber]) -> list[Json]:
    """Return the events with these numbers in the federation format, in their order."""
    result = tx.sql.execute(_PDUS, {"numbers": numbers})
    found = {number: pdu for number, pdu in result}  # noqa: C416 - to mypy a row is not a pair
    return [orjson.loads(found[number]) for number in numbers if number in found]


def current(tx: Reader, room_id: str, event_type: str, state_key: str = "") -> Event | None:
    """Return the event of an entry of the room's current state, or None."""
    return current_many(tx, room_id, [(event_type, state_key)]).get((event_type, state_key))


def current_many(tx: Reader, room_id: str, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
    """Return entries of the room's current state, as far as the room has them."""
    found = entries(tx, room_id, keys)
    return {key: entry.event for key, entry in found.items() if entry.event is not None}


def entries(tx: Reader, room_id: str, keys: Iterable[StateKey]) -> dict[StateKey, StateEntry]:
    """Return entries of the room's current state, with the positions at which they became that.

    Where the room has no such state, the entry's event is None.
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


def numbers_at(
    tx: Reader, room_id: str, keys: Iterable[StateKey], position: int
) -> dict[StateKey, EventNumber]:
    """Return {key: number of the event} of entries of a room's state after a position."""
    asked = {"room_id": room_id, "keys": keys, "position": position}
    found = tx.sql.execute(_NUMBERS_AT, asked)
    return {(row.type, row.state_key): row.event_number for row in found}


def resets(tx: Reader, room_ids: Iterable[str], since: int) -> dict[str, int]:
    """Return {room_id: last position at which state changed without an event in the timeline}.

    Only of rooms where that was after `since`: hardly ever any.
    """
    last = tx.cached(LAST_RESET, ONLY_ONE)
    if last is None:
        last = int(tx.sql.execute(_LAST_RESET).scalar_one())
        tx.fill(LAST_RESET, ONLY_ONE, last)
    if last <= since:
        return {}
    found: dict[str, int] = {}
    for some in batches(room_ids, _ROOMS_AT_ONCE):
        rows = tx.sql.execute(_RESETS, {"room_ids": some, "since": since})
        found |= {row.room_id: row.state_reset_position for row in rows}
    return found


def membership_of(tx: Reader, room_id: str, user_id: str) -> str | None:
    """Return the user's current membership; None for users who never were in the room."""
    key = (MEMBER, user_id)
    return entries(tx, room_id, [key])[key].membership


def is_joined(tx: Reader, room_id: str, user_id: str) -> bool:
    """Return whether the user is joined to the room."""
    return membership_of(tx, room_id, user_id) == "join"


def check_joined(tx: Reader, room_id: str, user_id: str) -> None:
    """Raise M_FORBIDDEN unless the user is in the room."""
    if not is_joined(tx, room_id, user_id):
        raise errors.forbidden("You are not in this room")


def joined(tx: Reader, room_id: str) -> Joined:
    """Return who has joined the room: the local users, and how many of each server.

    Of a partial room, the users that are known.
    """
    cached = tx.cached(JOINED, room_id)
    if cached is None:
        cached = _of_joined(tx, room_id, joined_users(tx, room_id))
        tx.fill(JOINED, room_id, cached)
    return cached


def find_joined(tx: Reader, room_id: str) -> None:
    """Have the next call of `joined` find the members cached. Other requests go on meanwhile.

    For what changes rooms of which it is not known how many members they have, before its write.
    """
    if tx.cached(JOINED, room_id) is None:
        rows = tx.sql.execute_long(_JOINED_USERS, {"room_id": room_id})
        users = [row[0] for row in tx.pausing(rows, PAUSED_EVERY)]
        tx.fill(JOINED, room_id, _of_joined(tx, room_id, users))


def _of_joined(tx: Reader, room_id: str, users: list[str]) -> Joined:
    servers: Counter[str] = Counter()
    local: list[str] = []
    for user_id in tx.pausing(users, PAUSED_EVERY):
        server = user_id.partition(":")[2]
        servers[server] += 1
        if server == tx.server.name:
            local.append(user_id)
    presumed = partial_rooms.servers_in_room(tx, room_id)
    by_server = {**dict.fromkeys(presumed, 0), **servers}
    return Joined(frozenset(local), by_server, len(users), presumed)


def joined_users(tx: Reader, room_id: str) -> list[str]:
    """Return all joined users, read from the database, as a room may have thousands of them."""
    return list(tx.sql.execute(_JOINED_USERS, {"room_id": room_id}).scalars())


def joined_rooms(tx: Reader, user_id: str) -> frozenset[str]:
    """Return the rooms to which the user is joined."""
    cached = tx.cached(JOINED_ROOMS, user_id)
    if cached is None:
        cached = frozenset(tx.sql.execute(_JOINED_ROOMS, {"user_id": user_id}).scalars())
        tx.fill(JOINED_ROOMS, user_id, cached)
    return cached


def _read_entries(tx: Reader, room_id: str, keys: list[StateKey]) -> dict[StateKey, StateEntry]:
    found = {key: StateEntry(None, EventNumber(0), 0, 0) for key in keys}
    for row in tx.sql.execute(_ENTRIES, {"room_id": room_id, "keys": keys}):
        if row.event_id is None:
            found[row.type, row.state_key] = StateEntry(None, NO_EVENT, row.from_position, 0)
            continue
        event = event_of(tx, row)
        size = memory_bytes(event)
        entry = StateEntry(event, row.number, row.from_position, size)
        found[row.type, row.state_key] = entry
    for key, entry in found.items():
        tx.fill(STATE, (room_id, key), entry)
    return found
