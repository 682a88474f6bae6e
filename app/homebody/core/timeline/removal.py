"""Deleting events: those of a purged room, the outliers of a join that has failed, old history.

When a room's old history goes, its state events stay as outliers: they are in no timeline any more,
but later events cite them, and they tell what the state was. So do the redactions of what stays,
and, if wanted, what users of this server have sent. All other events are deleted, with what only
they need. What names a deleted event by its id or position (reports, receipts, threads, rows of
the outbox) has to expect that it is not there, as with events that this server never had.

This module writes the table events, like store.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import bindparam, case, delete, func, select, update

from homebody.core.events import auth_chains, client_events, search_index
from homebody.core.timeline import redactions
from homebody.models.base import EventNumber
from homebody.models.events import OUTLIER, REJECTED, SOFT_FAILED, StoredEvent
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import unindexed

REDACTION: Final = "m.room.redaction"
INDEXED: Final = frozenset({search_index.MESSAGE, search_index.NAME, search_index.TOPIC})

_IN_ROOM = StoredEvent.room_id == bindparam("room_id")
_SOME_EVENTS = (
    select(StoredEvent.number, StoredEvent.type)
    .where(_IN_ROOM)
    .order_by(StoredEvent.position)
    .limit(bindparam("count"))
)
_SOME_OUTLIERS = (
    select(StoredEvent.number, StoredEvent.type)
    .where(
        _IN_ROOM,
        StoredEvent.position.is_(None),
        StoredEvent.state_at.is_(None),
        StoredEvent.standing.in_((OUTLIER, REJECTED)),
    )
    .limit(bindparam("count"))
)
_OLD = (
    select(
        StoredEvent.number,
        StoredEvent.position,
        StoredEvent.type,
        StoredEvent.state_key,
        StoredEvent.sender,
        case((StoredEvent.type == REDACTION, StoredEvent.pdu)).label("pdu"),
    )
    .where(_IN_ROOM, StoredEvent.position < bindparam("before"))
    .order_by(StoredEvent.position)
    .limit(bindparam("count"))
)
_OLD_SET_ASIDE = (
    select(StoredEvent.number, StoredEvent.type)
    .where(
        _IN_ROOM,
        StoredEvent.position.is_(None),
        StoredEvent.state_at < bindparam("before"),
        StoredEvent.standing.in_((SOFT_FAILED, REJECTED)),
        StoredEvent.state_key.is_(None),
    )
    .limit(bindparam("count"))
)
_REDACTED_BY = select(StoredEvent.number).where(
    StoredEvent.event_id == bindparam("target_id"), StoredEvent.redacted_by == bindparam("number")
)
_REMOVE = delete(StoredEvent).where(StoredEvent.number == bindparam("which"))
_TAKE_OUT = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"))
    .values(position=None, standing=OUTLIER, state_at=None, state_diff=None)
)
_NEXT = (
    select(StoredEvent.position)
    .where(_IN_ROOM, StoredEvent.position >= bindparam("since"))
    .order_by(StoredEvent.position)
    .limit(1)
)
_LAST = (
    select(StoredEvent.position)
    .where(_IN_ROOM, StoredEvent.position.is_not(None))
    .order_by(StoredEvent.position.desc())
    .limit(1)
)
_COUNT_BEFORE = select(func.count()).where(_IN_ROOM, StoredEvent.position < bindparam("before"))
_IS_STATE_BEFORE = (
    select(StoredEvent.number)
    .where(_IN_ROOM, StoredEvent.position < bindparam("before"), StoredEvent.state_key.is_not(None))
    .limit(1)
)
# the newer events by their times, as the older ones may be millions
_SINCE_TS = select(func.min(unindexed(StoredEvent.position)).label("position")).where(
    _IN_ROOM,
    StoredEvent.position.is_not(None),
    StoredEvent.origin_server_ts.between(bindparam("since_ts"), bindparam("now_ts")),
)


class Removed(NamedTuple):
    """What was done with some of a room's oldest events."""

    deleted: int
    kept: int
    """As outliers."""
    upto: int
    """The position of the last of them; 0 if there were none."""


def remove_events(tx: Tx, room_id: str, count: int) -> int:
    """Delete at most `count` of the oldest events of a removed room; return how many there were."""
    rows = tx.sql.execute(_SOME_EVENTS, {"room_id": room_id, "count": count}).all()
    _remove(tx, rows)
    return len(rows)


def remove_outliers(tx: Tx, room_id: str, count: int) -> int:
    """Delete at most `count` events that a room never had in its graph; return their number."""
    rows = tx.sql.execute(_SOME_OUTLIERS, {"room_id": room_id, "count": count}).all()
    _remove(tx, rows)
    if rows:
        auth_chains.remove(tx, room_id, [row.number for row in rows])
    return len(rows)


def remove_old_events(
    tx: Tx, room_id: str, before: int, count: int, *, keeps_local: bool
) -> Removed:
    """Take at most `count` of a room's oldest events before a position out of its timeline.

    `keeps_local`: those that users of this server have sent are kept as outliers. Called by
    rooms/history_purge.py alone, until there are no more.
    """
    rows = tx.sql.execute(_OLD, {"room_id": room_id, "before": before, "count": count}).all()
    if not rows:
        return Removed(0, 0, 0)
    gone: list[Any] = []
    kept: list[EventNumber] = []
    for row in rows:
        is_kept = row.state_key is not None or (keeps_local and tx.server.is_local(row.sender))
        if is_kept:
            kept.append(row.number)
        else:
            gone.append(row)
    _remove(tx, [row for row in gone if row.pdu is None])
    kept += [row.number for row in gone if row.pdu is not None and _has_target(tx, row)]
    _take_out(tx, kept)
    others = [row for row in gone if row.pdu is not None and row.number not in kept]
    _remove(tx, others)
    redactions.forget(tx, [row.number for row in others])
    if tx.caches.recent.knows(rows[-1].position - 1, rows[-1].position):
        tx.caches.recent.reset(tx.position)  # it has the places that these events had
    return Removed(len(rows) - len(kept), len(kept), rows[-1].position)


def remove_old_set_aside(tx: Tx, room_id: str, before: int, count: int) -> int:
    """Delete at most `count` messages that were refused before a position; return their number."""
    asked = {"room_id": room_id, "before": before, "count": count}
    rows = tx.sql.execute(_OLD_SET_ASIDE, asked).all()
    _remove(tx, rows)
    return len(rows)


def first_since(tx: Reader, room_id: str, position: int) -> int | None:
    """Return the place of the first event at or after a position, or of the last event of all."""
    asked = {"room_id": room_id, "since": position}
    found: int | None = tx.sql.execute(_NEXT, asked).scalar()
    return last(tx, room_id) if found is None else found


def first_since_ts(tx: Reader, room_id: str, ts: int) -> int | None:
    """Return the place of the first event that was sent at or after a time (ms), or of the last.

    Events that claim to be from the future count as older: their servers' clocks are wrong.
    """
    asked = {"room_id": room_id, "since_ts": ts, "now_ts": tx.now_ms}
    found: int | None = tx.sql.execute_long(_SINCE_TS, asked)[0].position
    return last(tx, room_id) if found is None else found


def last(tx: Reader, room_id: str) -> int | None:
    """Return the place of a room's newest event; None if there is none."""
    found: int | None = tx.sql.execute(_LAST, {"room_id": room_id}).scalar()
    return found


def has_events_before(tx: Reader, room_id: str, position: int) -> bool:
    """Return whether there are events before a position."""
    asked = {"room_id": room_id, "before": position, "count": 1}
    return tx.sql.execute(_OLD, asked).first() is not None


def count_before(tx: Reader, room_id: str, position: int) -> int:
    """Return the number of events before a position."""
    asked = {"room_id": room_id, "before": position}
    return int(tx.sql.execute(_COUNT_BEFORE, asked).scalar_one())


def has_state_before(tx: Reader, room_id: str, position: int) -> bool:
    """Return whether there are state events before a position."""
    asked = {"room_id": room_id, "before": position}
    return tx.sql.execute(_IS_STATE_BEFORE, asked).first() is not None


def _has_target(tx: Reader, row: Any) -> bool:
    """Return whether the event that a redaction has redacted is there still."""
    pdu = orjson.loads(row.pdu)
    targets = {pdu.get("redacts"), pdu["content"].get("redacts")}
    return any(
        tx.sql.execute(_REDACTED_BY, {"target_id": it, "number": row.number}).first() is not None
        for it in targets
        if isinstance(it, str)
    )


def _take_out(tx: Tx, numbers: Iterable[EventNumber]) -> None:
    """Make events outliers, which are in no timeline."""
    rows = [{"which": number} for number in numbers]
    tx.sql.execute(_TAKE_OUT, rows)
    for row in rows:
        tx.forget(client_events.CLIENT_EVENTS, row["which"])


def _remove(tx: Tx, rows: Sequence[Any]) -> None:
    """Delete events, given by number and type."""
    tx.sql.execute(_REMOVE, [{"which": row.number} for row in rows])
    for row in rows:
        tx.forget(client_events.CLIENT_EVENTS, row.number)
        if row.type in INDEXED:
            search_index.forget(tx, row.number)
