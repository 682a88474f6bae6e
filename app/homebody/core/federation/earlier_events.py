"""Events before others, for servers that lack them: walks through `prev_events`.

Rejected events end a walk, as nobody may follow them; soft-failed ones belong to the graph.
Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import orjson
from sqlalchemy import select

from homebody.core.events import state
from homebody.core.events.state import AnyRow
from homebody.core.federation import rooms
from homebody.models.events import OUTLIER, REJECTED, StoredEvent
from homebody.spec.events import Event
from homebody.storage.database import Reader
from homebody.storage.expressions import listed

MAX_EVENTS: Final = 100
"""Of a response to /backfill."""
MAX_MISSING: Final = 20
"""Of a response to /get_missing_events."""
BETWEEN_PAUSES: Final = 20
MAX_STARTS: Final = 100
"""Events from which one walk begins, or goes on after an event; more are ignored."""

_ids = listed("event_ids")
_EVENTS = (
    select(*rooms.COLUMNS)
    .join_from(_ids, StoredEvent, StoredEvent.event_id == _ids.c.value)
    .where(StoredEvent.standing.not_in((REJECTED, OUTLIER)))
)


def backfill(
    tx: Reader, server_name: str, room_id: str, event_ids: Iterable[str], limit: int
) -> list[orjson.Fragment]:
    """Return these events and those before them, the newest first, as the server may know them.

    Raises M_FORBIDDEN for a server that is not in the room.
    """
    rooms.check_may_read(tx, room_id, server_name)
    rows = _walk(tx, room_id, event_ids, min(limit, MAX_EVENTS), frozenset())
    return [rooms.shown(tx, server_name, row) for row in tx.pausing(rows, BETWEEN_PAUSES)]


def missing(
    tx: Reader,
    server_name: str,
    room_id: str,
    latest: Collection[str],
    earliest: Collection[str],
    limit: int,
    min_depth: int = 0,
) -> list[orjson.Fragment]:
    """Return the events between those that a server has (`earliest`) and newer ones (`latest`).

    The oldest come first. Raises M_FORBIDDEN for a server that is not in the room.
    """
    rooms.check_may_read(tx, room_id, server_name)
    starts = list(latest)[:MAX_STARTS]
    skipped = frozenset(earliest)
    of_starts = [_event(tx, row) for row in _read(tx, room_id, starts)]
    begin = [it for event in of_starts for it in event.prev_event_ids]
    rows = _walk(
        tx, room_id, begin, min(limit, MAX_MISSING), skipped.union(starts), min_depth=min_depth
    )
    return [rooms.shown(tx, server_name, row) for row in tx.pausing(rows[::-1], BETWEEN_PAUSES)]


def _walk(
    tx: Reader,
    room_id: str,
    event_ids: Iterable[str],
    limit: int,
    skipped: Collection[str],
    min_depth: int = 0,
) -> list[AnyRow]:
    """Return at most `limit` rows, the deepest first, so that what is left out is before them."""
    found: list[AnyRow] = []
    seen = set(skipped)
    deepest: list[tuple[int, int, AnyRow, Event]] = []

    def add(event_ids: Iterable[str]) -> None:
        some = itertools.islice(event_ids, MAX_STARTS)
        new = [it for it in dict.fromkeys(some) if it not in seen]
        seen.update(new)
        for row in _read(tx, room_id, new) if new else ():
            event = _event(tx, row)
            if event.depth >= min_depth:
                heapq.heappush(deepest, (-event.depth, -row.number, row, event))

    add(event_ids)
    while deepest and len(found) < limit:
        *_, row, event = heapq.heappop(deepest)
        found.append(row)
        add(event.prev_event_ids)
    return found


def _read(tx: Reader, room_id: str, event_ids: Collection[str]) -> Iterator[AnyRow]:
    rows = tx.sql.execute(_EVENTS, {"event_ids": event_ids})
    return (row for row in rows if row.room_id == room_id)


def _event(tx: Reader, row: AnyRow) -> Event:
    return state.event_of(tx, row)
