"""Queue of deliveries to push gateways, mailboxes, application services and other servers.

What has to happen after an event is a row here, added in the transaction of the event, so that a
crash loses nothing. `background/delivery.py` delivers the rows of each destination in their order;
a row that can't be delivered holds back the later ones of its destination. Rows for other servers
are EDUs, which `background/federation/` sends together with events.

This module alone writes the table outbox.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    JSON,
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)

from homebody.models.outbox import OutboxRow
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed


@dataclass(frozen=True, slots=True)
class Row:
    """A delivery."""

    id: int
    """Increasing, and never used again."""
    payload: Json
    created_ts: int
    tries: int
    """The number of failed attempts."""
    next_try_ts: int

    @property
    def failing_since_ts(self) -> int | None:
        """When the failures began; None before, and for all but the first row."""
        since_ts: int | None = self.payload.get(_FAILURE, {}).get("since_ts")
        return since_ts

    @property
    def problem(self) -> str | None:
        """The error of the last attempt, for the administrator."""
        problem: str | None = self.payload.get(_FAILURE, {}).get("problem")
        return problem


@dataclass(frozen=True, slots=True)
class Queue:
    """The rows of one destination."""

    destination: str
    count: int
    first: Row


_FAILURE: Final = "failure"
"""A key that this module adds to the payload of the first row, with the last error."""

_ADD = insert(OutboxRow)
_EACH_DESTINATION = listed("destinations")
_COLUMNS = ["kind", "destination", "payload", "created_ts", "tries", "next_try_ts"]


def _for_each_destination(next_try_ts: ColumnElement[int]) -> Select[tuple[Any, ...]]:
    """Select the rows to add, one for each destination, in the order of _COLUMNS."""
    return select(
        bindparam("of_kind", type_=Text),
        _EACH_DESTINATION.c.value,
        bindparam("payload", type_=JSON),
        bindparam("now_ms", type_=Integer),
        literal(0),
        next_try_ts,
    )


_ADD_FOR = insert(OutboxRow).from_select(_COLUMNS, _for_each_destination(literal(0)))
_ADD_WHERE_NONE = insert(OutboxRow).from_select(
    _COLUMNS,
    _for_each_destination(bindparam("at", type_=Integer)).where(
        ~select(OutboxRow.id)
        .where(
            OutboxRow.kind == bindparam("of_kind", type_=Text),
            OutboxRow.destination == _EACH_DESTINATION.c.value,
        )
        .exists()
    ),
)
_DESTINATIONS = select(OutboxRow.kind, OutboxRow.destination).distinct()
_ROW = (
    OutboxRow.id,
    OutboxRow.payload,
    OutboxRow.created_ts,
    OutboxRow.tries,
    OutboxRow.next_try_ts,
)
_FIRST = (
    select(*_ROW)
    .where(
        OutboxRow.kind == bindparam("of_kind"),
        OutboxRow.destination == bindparam("to_destination"),
        OutboxRow.id > bindparam("after"),
    )
    .order_by(OutboxRow.id)
    .limit(bindparam("count"))
)
_BEHIND = (
    select(OutboxRow.id)
    .where(
        OutboxRow.kind == bindparam("of_kind"),
        OutboxRow.destination == bindparam("to_destination"),
    )
    .offset(bindparam("count"))
    .limit(1)
)
_REMOVE = delete(OutboxRow).where(OutboxRow.id == bindparam("row_id"))
_WAITING = (
    select(
        OutboxRow.destination, func.count().label("count"), func.min(OutboxRow.id).label("first_id")
    )
    .where(OutboxRow.kind == bindparam("of_kind"))
    .group_by(OutboxRow.destination)
    .subquery()
)
_QUEUES = (
    select(_WAITING.c.destination, _WAITING.c.count, *_ROW)
    .join(OutboxRow, OutboxRow.id == _WAITING.c.first_id)
    .order_by(_WAITING.c.destination)
)
_RECORD_FAILURE = (
    update(OutboxRow)
    .where(OutboxRow.id == bindparam("row_id"))
    .values(tries=OutboxRow.tries + 1, next_try_ts=bindparam("at"))
)
_SET_PAYLOAD = (
    update(OutboxRow).where(OutboxRow.id == bindparam("row_id")).values(payload=bindparam("it"))
)
_MAKE_DUE = (
    update(OutboxRow)
    .where(
        OutboxRow.kind == bindparam("of_kind"),
        OutboxRow.destination == bindparam("to_destination"),
        OutboxRow.tries > 0,
    )
    .values(next_try_ts=0)
)
_DROP = delete(OutboxRow).where(
    OutboxRow.kind == bindparam("of_kind"), OutboxRow.destination == bindparam("to_destination")
)
# Raw SQL: sqlite_sequence is SQLite's own table
_SKIP = text(
    "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq)"
    " SELECT max(rowid), 'outbox', coalesce(max(seq), 0) + :count"
    " FROM sqlite_sequence WHERE name = 'outbox'"
)
# From an index, except for one row of each kind: there may be many, with large payloads
_WAITING = (
    select(OutboxRow.kind, func.count().label("count"), func.min(OutboxRow.id).label("oldest"))
    .group_by(OutboxRow.kind)
    .subquery()
)
_BACKLOG = select(_WAITING.c.kind, _WAITING.c.count, OutboxRow.created_ts).join(
    OutboxRow, OutboxRow.id == _WAITING.c.oldest
)


def add(tx: Tx, kind: str, destination: str, payload: Json) -> None:
    """Add a row, to be delivered after the transaction is committed."""
    add_all(tx, kind, [(destination, payload)])


def add_all(tx: Tx, kind: str, things: Iterable[tuple[str, Json]]) -> None:
    """Add rows for several (destination, payload) by one statement."""
    rows: list[dict[str, Any]] = [
        {
            "kind": kind,
            "destination": destination,
            "payload": payload,
            "created_ts": tx.now_ms,
            "tries": 0,
            "next_try_ts": 0,
        }
        for destination, payload in things
    ]
    if rows:
        tx.sql.execute(_ADD, rows)
        for destination in {row["destination"] for row in rows}:
            tx.deliver(kind, destination)


def add_for(tx: Tx, kind: str, destinations: Collection[str], payload: Json) -> None:
    """Add rows with the same payload for many destinations."""
    if destinations:
        row = {"of_kind": kind, "payload": payload, "now_ms": tx.now_ms}
        tx.sql.execute(_ADD_FOR, {**row, "destinations": destinations})
        for destination in destinations:
            tx.deliver(kind, destination)


def add_where_none(
    tx: Tx, kind: str, destinations: Collection[str], payload: Json, at: int
) -> None:
    """Add rows for destinations that have none, to be delivered at `at` (ms) or later."""
    if destinations:
        row = {"of_kind": kind, "payload": payload, "now_ms": tx.now_ms, "at": at}
        tx.sql.execute(_ADD_WHERE_NONE, {**row, "destinations": destinations})
        for destination in destinations:
            tx.deliver(kind, destination)


def destinations(tx: Reader) -> list[tuple[str, str]]:
    """Return each (kind, destination) that has rows."""
    return [(row.kind, row.destination) for row in tx.sql.execute(_DESTINATIONS)]


def first(tx: Reader, kind: str, destination: str, count: int, after: int = 0) -> list[Row]:
    """Return the oldest rows of a destination, in their order; of those with ids above `after`."""
    asked = {"of_kind": kind, "to_destination": destination, "count": count, "after": after}
    return [Row(*row) for row in tx.sql.execute(_FIRST, asked)]


def has_more_than(tx: Reader, kind: str, destination: str, count: int) -> bool:
    """Return whether more than `count` rows wait for a destination."""
    asked = {"of_kind": kind, "to_destination": destination, "count": count}
    return tx.sql.execute(_BEHIND, asked).first() is not None


def remove(tx: Tx, ids: Collection[int]) -> None:
    """Remove rows that have been delivered, or need not be any more."""
    if ids:
        tx.sql.execute(_REMOVE, [{"row_id": row_id} for row_id in ids])


def record_failure(tx: Tx, rows: Sequence[Row], next_try_ts: int, problem: str) -> None:
    """Record that a delivery failed; `next_try_ts` (ms) is the time of the next attempt."""
    if rows:
        tx.sql.execute(_RECORD_FAILURE, [{"row_id": row.id, "at": next_try_ts} for row in rows])
        first = rows[0]
        failure = {"since_ts": first.failing_since_ts or tx.now_ms, "problem": problem}
        tx.sql.execute(
            _SET_PAYLOAD, {"row_id": first.id, "it": {**first.payload, _FAILURE: failure}}
        )


def replace(tx: Tx, kind: str, destination: str, row: Row, payload: Json, at: int) -> None:
    """Replace a row by another one, to be delivered at `at` (ms) or later."""
    remove(tx, [row.id])
    add_where_none(tx, kind, [destination], payload, at)


def make_due(tx: Tx, kind: str, destination: str) -> None:
    """Make failed rows due, as the destination is available again."""
    tx.sql.execute(_MAKE_DUE, {"of_kind": kind, "to_destination": destination})


def queues(tx: Reader, kind: str) -> list[Queue]:
    """Return the queue of each destination of a kind that has rows, sorted by name."""
    found = tx.sql.execute(_QUEUES, {"of_kind": kind})
    return [Queue(destination, count, Row(*row)) for destination, count, *row in found]


def drop(tx: Tx, kind: str, destination: str) -> None:
    """Remove the rows of a destination that does not exist any more."""
    tx.sql.execute(_DROP, {"of_kind": kind, "to_destination": destination})


def skip_ids(tx: Tx, count: int) -> None:
    """Skip the next `count` IDs, which a lost server may have used.

    Application services take a transaction with a known ID for a repetition.
    """
    tx.sql.execute(_SKIP, {"count": count})


def backlog(tx: Reader) -> list[tuple[str, int, int]]:
    """Return (kind, number of rows, when the oldest was added in ms) of each kind with rows."""
    found = tx.sql.execute_long(_BACKLOG, {})
    return [(str(kind), int(count), int(created_ts)) for kind, count, created_ts in found]
