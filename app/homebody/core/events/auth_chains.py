"""Auth chains: the events that an event cites to show that it is allowed, and those that they cite.

The edges are kept apart from the events and by number, because state resolution compares whole
chains: reading them from PDUs would parse tens of thousands. An event is stored after its auth
events, so it has a higher number than those (see spec/auth_chains.py).

This module alone writes the table event_auth.
Spec: rooms/v2#definitions
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.core.events import state
from homebody.models.event_graph import EventAuth
from homebody.models.events import StoredEvent
from homebody.spec.events import Event
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches, listed

CITES: CacheKind[int, tuple[int, ...]] = declare(
    "auth_events", 1, lambda cites: 60 + 40 * len(cites)
)
"""The numbers of the auth events by the number of the event. They never change."""

AT_ONCE: Final = 500
"""Events between two pauses."""

_NUMBERS = listed("numbers")
_IDS = listed("event_ids")
_NUMBERS_OF = select(StoredEvent.event_id, StoredEvent.number).where(
    StoredEvent.event_id.in_(select(_IDS.c.value))
)
_INSERT = (
    insert(EventAuth)
    .inline()
    .values(room_number=state.ROOM_NUMBER, number=bindparam("of_number"), cites=bindparam("cited"))
    .on_conflict_do_nothing()  # of an outlier that is stored again, in a timeline
)
_CITES = select(EventAuth.number, EventAuth.cites).where(
    EventAuth.room_number == state.ROOM_NUMBER, EventAuth.number.in_(select(_NUMBERS.c.value))
)
_DESCENDING = (
    select(EventAuth.number, EventAuth.cites)
    .where(EventAuth.room_number == state.ROOM_NUMBER, EventAuth.number >= bindparam("lowest"))
    .order_by(EventAuth.number.desc())
)
_REMOVE = delete(EventAuth).where(
    EventAuth.room_number == state.ROOM_NUMBER, EventAuth.number.in_(select(_NUMBERS.c.value))
)
_SOME = (
    select(EventAuth.number)
    .where(EventAuth.room_number == bindparam("room_number"))
    .order_by(EventAuth.number)
    .limit(bindparam("count"))
)
_REMOVE_UPTO = delete(EventAuth).where(
    EventAuth.room_number == bindparam("of_room"), EventAuth.number <= bindparam("last")
)


def numbers_of(tx: Reader, event_ids: Collection[str]) -> dict[str, int]:
    """Return {event ID: number} of those events that are stored, whatever their standing."""
    found = tx.sql.execute(_NUMBERS_OF, {"event_ids": event_ids})
    return {row.event_id: row.number for row in found}


def add(tx: Tx, event: Event, number: int) -> None:
    """Store what a state event cites. Its auth events must be stored already."""
    known = numbers_of(tx, event.auth_event_ids)
    cited = tuple(known[event_id] for event_id in event.auth_event_ids)
    of_event = {"room_id": event.room_id, "of_number": number, "cited": pack(cited)}
    tx.sql.execute(_INSERT, of_event)
    tx.remember(CITES, number, cited)


def add_many(
    tx: Tx,
    room_id: str,
    cited_ids: Mapping[int, Sequence[str]],
    known: Mapping[str, int],
) -> None:
    """Store what many state events cite, by their numbers; `known` may lack cited events."""
    missing = {it for ids in cited_ids.values() for it in ids if it not in known}
    numbers = {**known, **numbers_of(tx, missing)}
    rows = [
        {"room_id": room_id, "of_number": number, "cited": pack([numbers[it] for it in ids])}
        for number, ids in cited_ids.items()
    ]
    tx.sql.execute(_INSERT, rows)


def remove(tx: Tx, room_id: str, numbers: Collection[int]) -> None:
    """Delete what some events cite, as they are deleted."""
    tx.sql.execute(_REMOVE, {"room_id": room_id, "numbers": numbers})
    for number in numbers:
        tx.forget(CITES, number)


def remove_some(tx: Tx, room_number: int, count: int) -> int:
    """Delete at most `count` edges of a room that is gone; return how many there were.

    Called by rooms/purge.py alone.
    """
    found = tx.sql.execute(_SOME, {"room_number": room_number, "count": count}).scalars().all()
    if found:
        tx.sql.execute(_REMOVE_UPTO, {"of_room": room_number, "last": found[-1]})
    return len(found)


def cites(tx: Reader, room_id: str, numbers: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return what these state events cite, by number."""
    found, missing = tx.cached_many(CITES, numbers)
    if missing:
        asked = {"room_id": room_id, "numbers": missing}
        for row in tx.sql.execute(_CITES, asked):
            found[row.number] = unpack(row.cites)
            tx.fill(CITES, row.number, found[row.number])
    return found


def chain(tx: Reader, room_id: str, numbers: Collection[int]) -> set[int]:
    """Return the numbers of the full auth chain of these events, without the events themselves.

    An event that another one of them cites is part of the chain.
    """
    reached: set[int] = set()
    level = set(numbers)
    while level:
        cited: set[int] = set()
        for some in tx.pausing(batches(level, AT_ONCE), every=1):
            cited.update(*cites(tx, room_id, some).values())
        level = cited - reached
        reached |= level
    return reached


def descending(tx: Reader, room_id: str, lowest: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (number, what it cites) of the room's state events, from the newest to `lowest`."""
    for row in tx.sql.execute(_DESCENDING, {"room_id": room_id, "lowest": lowest}):
        yield row.number, unpack(row.cites)


def pack(numbers: Collection[int]) -> bytes:
    """Return numbers as they are stored."""
    return struct.pack(f"<{len(numbers)}q", *numbers)


def unpack(data: bytes) -> tuple[int, ...]:
    """Return the numbers of `pack`."""
    return struct.unpack(f"<{len(data) // 8}q", data)
