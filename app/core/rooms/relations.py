"""The events that relate to another: replies in a thread, edits, reactions, references.

A relation is a column of the child; a redacted child has lost it. What is bundled with the parent
is made by aggregations.py.
Spec: client-server-api#forming-relationships-between-events, client-server-api#relationships-api
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import Select, bindparam, select

from app.core.people import ignored_users
from app.core.rooms import client_events, erasure, history, visibility
from app.core.rooms.history import Page, Place
from app.db import Reader
from app.models.events import StoredEvent

_Children = Select[int, str, str | None, str, str, str]

LEVELS = 3
"""How far `recurse` goes: children, their children, and theirs."""
MAX_PARENTS = 1000
"""How many events `recurse` follows at most."""

# The room is compared in Python: with it here, SQLite reads all of the room instead
_CHILDREN = select(
    StoredEvent.position,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
    StoredEvent.event_id,
    StoredEvent.room_id,
).where(
    StoredEvent.relates_to.in_(bindparam("parents", expanding=True)),
    StoredEvent.redacted_by.is_(None),
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
    parents = [wanted.event_id]
    if wanted.is_recursive:
        parents = _descendants(tx, wanted)
    start, found = _start(tx, wanted), list[int]()
    end: int | None = None
    for places, resume in _batches(tx, wanted, parents):
        seen = visibility.visible(tx, user_id, wanted.room_id, places)
        found += [it.position for it in ignored_users.without(tx, user_id, seen)]
        end = resume
        if len(found) > wanted.limit:
            found = found[: wanted.limit]
            end = _behind(wanted, found[-1]) if found else start
            break
    return Page(erasure.hide(tx, user_id, client_events.load(tx, found)), start, end)


def _batches(
    tx: Reader, wanted: Wanted, parents: Collection[str]
) -> Iterator[tuple[list[Place], int | None]]:
    """The children by and by; with each batch where to go on, None: it was the last."""
    newest = StoredEvent.position.desc() if wanted.is_backwards else StoredEvent.position
    query = _matching(wanted).order_by(newest)
    at, count, scanned = _start(tx, wanted), wanted.limit + 1, 0
    while scanned < history.SCANNED_ROWS:
        part = _between(query, wanted, at).limit(count)
        rows = tx.sql.execute(part, {"parents": parents}).all()
        places = [
            Place(row.position, row.type, row.state_key, row.sender)
            for row in rows
            if row.room_id == wanted.room_id
        ]
        if len(rows) < count:
            yield places, None
            return
        at = _behind(wanted, rows[-1].position)
        yield places, at
        scanned += count


def _descendants(tx: Reader, wanted: Wanted) -> list[str]:
    """The event and those below it whose children are asked for.

    "Events … whose only relation to the original given event is through a non-matching
    intermediate event, will not be included."
    """
    known, last = [wanted.event_id], [wanted.event_id]
    query = _matching(wanted).order_by(StoredEvent.position.desc()).limit(MAX_PARENTS)
    for _ in range(LEVELS - 1):
        rows = tx.sql.execute(query, {"parents": last})
        last = [row.event_id for row in rows if row.event_id not in known]
        last = last[: MAX_PARENTS - len(known)]
        known += last
    return known


def _matching(wanted: Wanted) -> _Children:
    query = _CHILDREN
    if wanted.rel_type is not None:
        query = query.where(StoredEvent.rel_type == wanted.rel_type)
    if wanted.event_type is not None:
        query = query.where(StoredEvent.type == wanted.event_type)
    return query


def _between(query: _Children, wanted: Wanted, at: int) -> _Children:
    """The query for what lies between a token and the one to stop at."""
    if wanted.is_backwards:
        after = wanted.stop or 0
        return query.where(StoredEvent.position <= at, StoredEvent.position > after)
    query = query.where(StoredEvent.position > at)
    return query if wanted.stop is None else query.where(StoredEvent.position <= wanted.stop)


def _start(tx: Reader, wanted: Wanted) -> int:
    if wanted.start is not None:
        return wanted.start
    return tx.position if wanted.is_backwards else 0


def _behind(wanted: Wanted, position: int) -> int:
    return position - 1 if wanted.is_backwards else position
