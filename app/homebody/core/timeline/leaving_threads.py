"""Events that relate to a redacted reply in a thread leave the thread, as the reply does.

Reactions to the reply, for example, then belong to the main timeline. A few of them are moved in
the write of the redaction. If there are thousands, `follow` moves some in each write, as all other
writes would have to wait. If the server is killed meanwhile, the rest stays in the thread.
Spec: client-server-api#redactions, client-server-api#threading
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from sqlalchemy import Row, Select, Text, bindparam, exists, literal, select, update
from sqlalchemy.orm import aliased

from homebody.core.events import client_events, relations
from homebody.core.events.state import AnyRow
from homebody.core.push import counts
from homebody.models.base import EventNumber
from homebody.models.events import StoredEvent
from homebody.runtime import event_loop
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches, listed

MOVED_AT_ONCE: Final = 300
"""In one write; each takes some 30 µs."""
_MAX_DEPTH: Final = 10
"""The length up to which a chain of related events below a reply is followed."""

_TARGETS = listed("targets")
_THREAD = select(StoredEvent.thread_id).where(StoredEvent.event_id == bindparam("event_id"))


def _below() -> Select[int, int | None]:
    """Return a query for the events of threads that relate to an event, or to one of these."""
    child = aliased(StoredEvent)
    below = select(
        bindparam("event_id", type_=Text).label("event_id"),
        literal(0).label("number"),
        literal(0).label("position"),
        literal(0).label("level"),
    ).cte("below", recursive=True)
    below = below.union_all(
        select(child.event_id, child.number, child.position, below.c.level + 1)
        .join(below, child.relates_to == below.c.event_id)
        .where(
            below.c.level < _MAX_DEPTH,
            child.rel_type != relations.THREAD,
            child.thread_id.is_not(None),
        )
    )
    return (
        select(below.c.number, below.c.position).where(below.c.level > 0).limit(bindparam("count"))
    )


_BELOW = _below()
_LEAVE = (
    update(StoredEvent)
    .where(
        StoredEvent.number.in_(bindparam("numbers", expanding=True)),
        StoredEvent.thread_id.is_not(None),
    )
    .values(thread_id=None)
)
_ROOM_IF_REDACTED = select(StoredEvent.room_id).where(
    StoredEvent.event_id == bindparam("event_id"), StoredEvent.redacted_by.is_not(None)
)
_WITH_CHILDREN = select(_TARGETS.c.value).where(
    exists().where(StoredEvent.relates_to == _TARGETS.c.value).correlate(_TARGETS)
)
_CHILDREN = (
    select(StoredEvent.number, StoredEvent.position, StoredEvent.event_id, StoredEvent.thread_id)
    .where(
        StoredEvent.relates_to == bindparam("target"),
        StoredEvent.number > bindparam("after"),
        StoredEvent.rel_type != relations.THREAD,
    )
    .order_by(StoredEvent.number)
    .limit(bindparam("count"))
)
_Child = Row[EventNumber, int | None, str, str | None]


def thread_of(tx: Reader, event_id: str) -> str | None:
    """Return the thread of an event; None: the main timeline, or the event was redacted."""
    thread_id: str | None = tx.sql.execute(_THREAD, {"event_id": event_id}).scalar()
    return thread_id


def at_once(tx: Tx, room_id: str, event_id: str, thread_id: str) -> None:
    """Move events that relate to an event of a thread out of it, unless they are many."""
    asked = {"event_id": event_id, "count": MOVED_AT_ONCE + 1}
    found = list(tx.sql.execute(_BELOW, asked))
    if len(found) <= MOVED_AT_ONCE:
        _move(tx, room_id, thread_id, found)


def follow(db: Database, event_id: str) -> None:
    """Move the remaining events that relate to a redacted reply out of its thread, in parts.

    Does nothing for an event that was not redacted.
    """
    with db.read() as tx:
        room_id = tx.sql.execute(_ROOM_IF_REDACTED, {"event_id": event_id}).scalar()
    level = [event_id] if room_id is not None else []
    for _ in range(_MAX_DEPTH):
        below: list[str] = []
        for page in _pages(db, level):
            threads = {it.thread_id for it in page if it.thread_id is not None}
            for thread_id in threads:
                some = [it for it in page if it.thread_id == thread_id]
                with db.write() as writing:
                    _move(writing, str(room_id), thread_id, some)
            below += [it.event_id for it in page]
        level = below


def _pages(db: Database, targets: list[str]) -> Iterator[list[_Child]]:
    """Yield the events that relate to these, in lists of MOVED_AT_ONCE."""
    for some in batches(targets, MOVED_AT_ONCE):
        with db.read() as tx:
            parents = list(tx.sql.execute(_WITH_CHILDREN, {"targets": some}).scalars())
        for parent in parents:
            after = 0
            while page := _page(db, parent, after):
                yield page
                after = page[-1].number


def _page(db: Database, target: str, after: int) -> list[_Child]:
    event_loop.pause()
    asked = {"target": target, "after": after, "count": MOVED_AT_ONCE}
    with db.read() as tx:
        return list(tx.sql.execute(_CHILDREN, asked))


def _move(tx: Tx, room_id: str, thread_id: str, moved: Collection[AnyRow]) -> None:
    if not moved:
        return
    tx.sql.execute(_LEAVE, {"numbers": [it.number for it in moved]})
    for it in moved:
        tx.forget(client_events.CLIENT_EVENTS, it.number)
    positions = [it.position for it in moved if it.position is not None]
    counts.move_to_main(tx, room_id, thread_id, positions)
