"""What another server lacks: the events of the log that it may have, or the newest of each room.

A server may have the events of a room while it has members there. After a short failure it gets all
that it missed, in order. After a long one that would take longer than to ask for what it wants to
know: it gets the newest event of each room, and finds the others by those.

Spec: server-server-api#transactions
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import and_, bindparam, select

from homebody.core import outgoing, partial_rooms
from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.outgoing import FederationLogRow
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.storage.database import Database, Reader

MAX_EVENTS: Final = 500
"""The number of events that a server gets one by one."""
PAGE: Final = 500
"""Rows of the log per transaction."""


class Missing(NamedTuple):
    """An event that a server lacks."""

    position: int
    number: int


class _Logged(NamedTuple):
    position: int
    number: int
    also: list[str] | None
    room_id: str
    sender: str


Times = dict[str, list[tuple[int, int]]]
"""{server: (from, to) of each time in which one of its users was in a room}."""

_LOGGED = (
    select(
        FederationLogRow.position,
        FederationLogRow.number,
        FederationLogRow.also,
        StoredEvent.room_id,
        StoredEvent.sender,
    )
    .join(StoredEvent, StoredEvent.number == FederationLogRow.number)
    .where(
        FederationLogRow.position > bindparam("after"),
        FederationLogRow.position <= bindparam("upto"),
    )
    .order_by(FederationLogRow.position)
    .limit(bindparam("count"))
)
_JOINED = (
    select(
        Room.room_id,
        StateInterval.state_key,
        StateInterval.from_position,
        StateInterval.to_position,
    )
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("rooms", expanding=True)),
        StateInterval.type == state.MEMBER,
        StateInterval.membership == "join",
        StateInterval.to_position > bindparam("after"),
        StateInterval.state_key.endswith(bindparam("domain")),
    )
)
_NEWEST_OF_ROOMS = (
    select(StoredEvent.position, StoredEvent.number)
    .join(
        Room, and_(StoredEvent.room_id == Room.room_id, StoredEvent.position == Room.last_position)
    )
    .where(
        Room.number.in_(
            select(StateInterval.room_number).where(
                StateInterval.to_position == NOW_AND_LATER,
                StateInterval.membership == "join",
                StateInterval.state_key.endswith(bindparam("domain")),
            )
        )
    )
    .order_by(StoredEvent.position)
)
_PDUS = select(StoredEvent.number, StoredEvent.pdu).where(
    StoredEvent.number.in_(bindparam("numbers", expanding=True))
)


def missing(db: Database, server: str, after: int, upto: int) -> list[Missing]:
    """Return the events that a server lacks which has everything up to `after`, in their order.

    If they are more than MAX_EVENTS, only the newest of each room.
    """
    if after == outgoing.NOT_LOGGED:
        with db.read() as tx:
            found = tx.sql.execute_long(_NEWEST_OF_ROOMS, {"domain": f":{server}"})
        return [Missing(*row) for row in found]
    first: list[Missing] = []
    newest: dict[str, Missing] = {}
    for row, servers in _logged(db, after, upto, server):
        if server in servers:
            one = newest[row.room_id] = Missing(row.position, row.number)
            if len(first) <= MAX_EVENTS:
                first.append(one)
    return first if len(first) <= MAX_EVENTS else sorted(newest.values())


def counts(db: Database, places: Mapping[str, int], upto: int) -> Counter[str]:
    """Return {server: number of events that it lacks}; `places` has up to where it has everything.

    For servers whose place is NOT_LOGGED, the number of rooms.
    """
    found: Counter[str] = Counter()
    logged = {server: after for server, after in places.items() if after != outgoing.NOT_LOGGED}
    for server in places.keys() - logged.keys():
        found[server] = len(missing(db, server, outgoing.NOT_LOGGED, upto))
    for row, servers in _logged(db, min(logged.values(), default=upto), upto):
        found.update(it for it in servers if row.position > logged.get(it, upto))
    return found


def servers(db: Database, after: int, upto: int) -> set[str]:
    """Return all servers that are to get an event which was logged between two positions."""
    return {it for _, servers in _logged(db, after, upto) for it in servers} - {db.server.name}


def pdus(tx: Reader, numbers: Sequence[int]) -> dict[int, bytes]:
    """Return {number: PDU in canonical JSON} of events; purged ones are left out."""
    found = tx.sql.execute(_PDUS, {"numbers": numbers})
    return {row.number: row.pdu.encode() for row in found}


def _logged(
    db: Database, after: int, upto: int, server: str = ""
) -> Iterator[tuple[_Logged, set[str]]]:
    """Yield the rows of a part of the log, and the servers that may have their events.

    With `server`, the others may be left out.
    """
    times: dict[str, Times] = {}
    at = after
    while at < upto:
        with db.read() as tx:
            asked = {"after": at, "upto": upto, "count": PAGE}
            rows = [_Logged(*row) for row in tx.sql.execute(_LOGGED, asked)]
            _read_times(tx, times, {row.room_id for row in rows} - times.keys(), after, server)
        for row in rows:
            yield row, _recipients(row, times[row.room_id])
        at = rows[-1].position if len(rows) == PAGE else upto
        event_loop.pause()


def _read_times(
    tx: Reader, times: dict[str, Times], rooms: set[str], after: int, server: str
) -> None:
    """Add to `times` when servers were in these rooms."""
    asked = {"rooms": rooms, "after": after, "domain": f":{server}" if server else ""}
    times.update({room_id: {} for room_id in rooms})
    for room_id, user_id, since, until in tx.sql.execute(_JOINED, asked):
        times[room_id].setdefault(user_id.partition(":")[2], []).append((since, until))
    for room_id in rooms:
        for name in partial_rooms.servers_in_room(tx, room_id):
            times[room_id].setdefault(name, []).append((0, NOW_AND_LATER))


def _recipients(row: _Logged, times: Times) -> set[str]:
    """Return the servers that were in the room after the event, or lost their last member by it.

    The sender's server has the event.
    """
    at = row.position
    there = {
        server for server, spans in times.items() if any(since <= at < to for since, to in spans)
    }
    return {*there, *(row.also or ())} - {row.sender.partition(":")[2]}
