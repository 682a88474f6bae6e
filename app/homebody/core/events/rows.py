"""Rows of the table events as the law's `Event`, and where a room stands."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Row, bindparam, select

from homebody import errors
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader


class RoomHead:
    """Where a room stands: its version, and what the next event has to name as its predecessors."""

    __slots__ = ("depth", "forward_extremities", "version")

    def __init__(self, version: str, forward_extremities: list[str], depth: int) -> None:
        self.version = version
        self.forward_extremities = forward_extremities
        self.depth = depth


ROOMS: CacheKind[str, RoomHead] = declare("rooms", 5, lambda _: 200)
"""Where each room stands, by room_id; written by timeline.py."""

AnyRow = Row[*tuple[Any, ...]]
EVENT_COLUMNS = (
    StoredEvent.position,
    StoredEvent.event_id,
    StoredEvent.room_id,
    StoredEvent.pdu,
)
"""What `event` needs of a row."""

ROOM_NUMBER = select(Room.number).where(Room.room_id == bindparam("room_id")).scalar_subquery()
"""By which the table state_intervals names the room `room_id`."""

_HEAD = select(Room.version, Room.forward_extremities, Room.depth).where(
    Room.room_id == bindparam("room_id")
)
_PDUS = select(StoredEvent.position, StoredEvent.pdu).where(
    StoredEvent.position.in_(bindparam("positions", expanding=True))
)
_BY_ID = select(*EVENT_COLUMNS).where(StoredEvent.event_id == bindparam("event_id"))


def event(tx: Reader, row: AnyRow) -> Event:
    """The event of a row that has EVENT_COLUMNS."""
    return Event(row.event_id, orjson.loads(row.pdu), version(tx, row.room_id))


def find(tx: Reader, event_id: str) -> tuple[int, Event] | None:
    """(position, event) of this id, or None."""
    row = tx.sql.execute(_BY_ID, {"event_id": event_id}).first()
    return None if row is None else (row.position, event(tx, row))


def head(tx: Reader, room_id: str) -> RoomHead:
    """Where the room stands. Raises M_NOT_FOUND for a room that the server does not know."""
    cached = tx.cached(ROOMS, room_id)
    if cached is None:
        row = tx.sql.execute(_HEAD, {"room_id": room_id}).first()
        if row is None:
            raise errors.not_found("This server does not know the room")
        cached = RoomHead(row.version, row.forward_extremities, row.depth)
        tx.fill(ROOMS, room_id, cached)
    return cached


def version(tx: Reader, room_id: str) -> RoomVersion:
    """The rules of the room. Raises M_NOT_FOUND for a room that the server does not know."""
    return VERSIONS[head(tx, room_id).version]


def memory_bytes(event: Event) -> int:
    """About what an event takes in memory, for the bounds of caches."""
    return 1500 + 4 * len(str(event.content))


def pdus(tx: Reader, positions: list[int]) -> list[Json]:
    """The events at these positions as servers exchange them, in their order."""
    result = tx.sql.execute(_PDUS, {"positions": positions})
    found = {position: pdu for position, pdu in result}  # noqa: C416 - a Row is no pair to mypy
    return [orjson.loads(found[position]) for position in positions if position in found]
