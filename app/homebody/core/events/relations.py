"""The events that relate to another: replies in a thread, edits, reactions, references.

A relation is a column of the child; a redacted child has lost it. What is bundled with the parent
is made by aggregations.py.
Spec: client-server-api#forming-relationships-between-events, client-server-api#relationships-api
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, Text, bindparam, literal, or_, select
from sqlalchemy.orm import aliased

from homebody.core.events import history, paging
from homebody.core.events.paging import Page, PageRequest
from homebody.models.events import StoredEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import in_order, unindexed

LEVELS: Final = 3
"""How far `recurse` goes: children, their children, and theirs."""

# The pager compares the room: with it here, SQLite reads all of the room instead
_CHILDREN = select(*paging.COLUMNS).where(
    StoredEvent.relates_to == bindparam("parent"),
    StoredEvent.redacted_by.is_(None),
    *paging.IN_RANGE,
)


def _descendants() -> Select[*tuple[Any, ...]]:
    """Return a query for the children of an event, their children, and theirs.

    "Events … whose only relation to the original given event is through a non-matching
    intermediate event, will not be included."
    """
    child = aliased(StoredEvent, name="child")
    rel_type, event_type = bindparam("rel_type", type_=Text), bindparam("event_type", type_=Text)
    below = select(
        bindparam("parent", type_=Text).label("event_id"),
        literal(0).label("position"),
        literal(0).label("level"),
    ).cte("below", recursive=True)
    below = below.union(
        select(child.event_id, child.position, below.c.level + 1)
        .join(below, child.relates_to == below.c.event_id)
        .where(
            below.c.level < LEVELS,
            child.redacted_by.is_(None),
            unindexed(child.room_id) == bindparam("room_id"),  # else all of the room is read
            or_(rel_type.is_(None), child.rel_type == rel_type),
            or_(event_type.is_(None), child.type == event_type),
        )
    )
    return (
        select(*paging.COLUMNS)
        .select_from(in_order(below, StoredEvent, StoredEvent.position == below.c.position))
        .where(below.c.level > 0, *paging.IN_RANGE)
    )


_BELOW = {it: paging.ordered(_descendants(), is_backwards=it) for it in (False, True)}


@dataclass(frozen=True, slots=True)
class RelationsRequest:
    """Which children of an event are asked for, from where, and in which direction."""

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


def related(tx: Reader, user_id: str, wanted: RelationsRequest) -> Page:
    """Return a page of an event's children, without those of ignored users.

    Raises M_NOT_FOUND for a parent that the user may not see.
    """
    history.seen(tx, user_id, wanted.event_id, wanted.room_id)  # its sender may be ignored
    after, upto = paging.bounds(
        wanted.start, wanted.stop, tx.position, is_backwards=wanted.is_backwards
    )
    request = PageRequest(
        wanted.room_id, user_id, after, upto, wanted.is_backwards, limit=wanted.limit
    )
    read = _descendants_reader if wanted.is_recursive else _children_reader
    return paging.page(tx, request, read(tx, wanted))


def _children_reader(tx: Reader, wanted: RelationsRequest) -> paging.Read:
    query = _CHILDREN
    if wanted.rel_type is not None:
        query = query.where(StoredEvent.rel_type == wanted.rel_type)
    if wanted.event_type is not None:
        query = query.where(StoredEvent.type == wanted.event_type)
    query = paging.ordered(query, is_backwards=wanted.is_backwards)

    def read(part: dict[str, object]) -> Sequence[Any]:
        return tx.sql.execute(query, {"parent": wanted.event_id, **part}).all()

    return read


def _descendants_reader(tx: Reader, wanted: RelationsRequest) -> paging.Read:
    values = {"parent": wanted.event_id, "room_id": wanted.room_id}
    kinds = {"rel_type": wanted.rel_type, "event_type": wanted.event_type}

    def read(part: dict[str, object]) -> Sequence[Any]:
        # all are read for each page, as a level has no order by time
        return tx.read_long(_BELOW[wanted.is_backwards], {**values, **kinds, **part})

    return read
