"""The events that relate to another: replies in a thread, edits, reactions, references.

A relation is a column of the child; a redacted child has lost it. What is bundled with the parent
is made by aggregations.py.
Spec: client-server-api#forming-relationships-between-events, client-server-api#relationships-api
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, select, text

from homebody.core.events import client_events, erasure, history, visibility
from homebody.core.events.history import Page, Place
from homebody.core.user_data import ignored_users
from homebody.models.events import StoredEvent
from homebody.storage.database import Reader

LEVELS: Final = 3
"""How far `recurse` goes: children, their children, and theirs."""

# The room is compared in Python: with it here, SQLite reads all of the room instead
_CHILDREN = select(
    StoredEvent.position,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
    StoredEvent.room_id,
).where(
    StoredEvent.relates_to == bindparam("parent"),
    StoredEvent.redacted_by.is_(None),
)
# "Events … whose only relation to the original given event is through a non-matching intermediate
# event, will not be included." The plus sign keeps SQLite from reading all of the room instead.
_BELOW = """
    WITH RECURSIVE below(event_id, position, level) AS (
        SELECT :parent, 0, 0
        UNION
        SELECT child.event_id, child.position, below.level + 1
        FROM below JOIN events AS child ON child.relates_to = below.event_id
        WHERE below.level < :levels AND child.redacted_by IS NULL AND +child.room_id = :room_id
        AND (:rel_type IS NULL OR child.rel_type = :rel_type)
        AND (:event_type IS NULL OR child.type = :event_type))
    SELECT events.position, events.type, events.state_key, events.sender, events.room_id
    FROM below CROSS JOIN events ON events.position = below.position
    WHERE below.level > 0 AND below.position > :after AND below.position <= :upto
    ORDER BY below.position {order} LIMIT :count
"""
_BELOW_FORWARDS, _BELOW_BACKWARDS = (
    text(_BELOW.format(order="ASC")),
    text(_BELOW.format(order="DESC")),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which children, from where, and in which direction."""

    room_id: str
    event_id: str
    rel_type: str | None
    event_type: str | None
    start: int | None
    """Position of the token to begin at; None: at the end, or backwards at the beginning …"""
    stop: int | None
    """… and of the one to stop at."""
    is_backwards: bool
    is_recursive: bool
    limit: int


def related(tx: Reader, user_id: str, wanted: Wanted) -> Page:
    """A page of an event's children, as far as the user may see them and wants to.

    Raises M_NOT_FOUND for a parent that the user may not see.
    """
    history.seen(tx, user_id, wanted.event_id, wanted.room_id)  # who started it may be ignored
    start, found = _start(tx, wanted), list[int]()
    end: int | None = None
    for places, resume in _batches(tx, wanted):
        seen = visibility.visible(tx, user_id, wanted.room_id, places)
        found += [it.position for it in ignored_users.without(tx, user_id, seen)]
        end = resume
        if len(found) > wanted.limit:
            found = found[: wanted.limit]
            end = _behind(wanted, found[-1]) if found else start
            break
    return Page(erasure.hide(tx, user_id, client_events.load(tx, found)), start, end)


def _batches(tx: Reader, wanted: Wanted) -> Iterator[tuple[list[Place], int | None]]:
    """The children by and by; with each batch where to go on, None: it was the last."""
    at, count, scanned = _start(tx, wanted), wanted.limit + 1, 0
    while scanned < history.SCANNED_ROWS:
        rows = _rows(tx, wanted, at, count)
        places = [
            Place(position, event_type, state_key, sender)
            for position, event_type, state_key, sender, room_id in rows
            if room_id == wanted.room_id
        ]
        if len(rows) < count:
            yield places, None
            return
        at = _behind(wanted, int(rows[-1][0]))
        yield places, at
        scanned += count


def _rows(tx: Reader, wanted: Wanted, at: int, count: int) -> Sequence[tuple[Any, ...]]:
    """Return the next children, or what is below the event, behind a token."""
    if wanted.is_backwards:
        after, upto = wanted.stop or 0, at
    else:
        after, upto = at, tx.position if wanted.stop is None else wanted.stop
    asked: dict[str, object] = {
        "parent": wanted.event_id,
        "after": after,
        "upto": upto,
        "count": count,
    }
    if wanted.is_recursive:  # all of it is read for each page, as a level has no order by time
        asked |= {"room_id": wanted.room_id, "levels": LEVELS}
        asked |= {"rel_type": wanted.rel_type, "event_type": wanted.event_type}
        return tx.read_long(_BELOW_BACKWARDS if wanted.is_backwards else _BELOW_FORWARDS, asked)
    query = _CHILDREN.where(
        StoredEvent.position > bindparam("after"), StoredEvent.position <= bindparam("upto")
    )
    if wanted.rel_type is not None:
        query = query.where(StoredEvent.rel_type == wanted.rel_type)
    if wanted.event_type is not None:
        query = query.where(StoredEvent.type == wanted.event_type)
    newest = StoredEvent.position.desc() if wanted.is_backwards else StoredEvent.position
    found = tx.sql.execute(query.order_by(newest).limit(bindparam("count")), asked)
    return [tuple(row) for row in found]


def _start(tx: Reader, wanted: Wanted) -> int:
    if wanted.start is not None:
        return wanted.start
    return tx.position if wanted.is_backwards else 0


def _behind(wanted: Wanted, position: int) -> int:
    return position - 1 if wanted.is_backwards else position
