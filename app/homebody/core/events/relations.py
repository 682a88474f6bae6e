"""The events that relate to another: replies in a thread, edits, reactions, references.

A relation is worked out once, when the child is stored, and kept in columns of the child; a
redacted child has lost it. What is bundled with the parent is made by aggregations.py.
Spec: client-server-api#forming-relationships-between-events, client-server-api#relationships-api,
client-server-api#validity-of-replacement-events
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Select, Text, bindparam, literal, or_, select
from sqlalchemy.orm import aliased

from homebody.core.events import history, paging, state
from homebody.core.events.paging import Page, PageRequest
from homebody.models.base import EventNumber
from homebody.models.events import StoredEvent
from homebody.spec.events import Event, Json
from homebody.storage.database import Reader
from homebody.storage.expressions import in_order, unindexed

REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"
ANNOTATION: Final = "m.annotation"
REFERENCE: Final = "m.reference"
ENCRYPTED: Final = "m.room.encrypted"

LEVELS: Final = 3
"""How far `recurse` goes: children, their children, and theirs."""

_TARGET = select(
    StoredEvent.number,
    StoredEvent.room_id,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
    StoredEvent.rel_type,
    StoredEvent.thread_id,
    StoredEvent.redacted_by,
).where(StoredEvent.event_id == bindparam("event_id"))
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
        literal(0).label("number"),
        literal(0).label("level"),
    ).cte("below", recursive=True)
    below = below.union(
        select(child.event_id, child.number, below.c.level + 1)
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
        .select_from(in_order(below, StoredEvent, StoredEvent.number == below.c.number))
        .where(below.c.level > 0, *paging.IN_RANGE)
    )


_BELOW = {it: paging.ordered(_descendants(), is_backwards=it) for it in (False, True)}


class Relation(NamedTuple):
    """The columns of an event that say how it relates to another."""

    relates_to: str | None
    rel_type: str | None
    thread_id: str | None
    """The root of the thread that the event belongs to; None: the main timeline."""
    edit_of: EventNumber | None
    """The event that this one is a valid replacement of."""
    annotation_key: bytes | None = None
    """What tells the key of a reaction from others; see `key_digest`."""


NONE: Final = Relation(None, None, None, None)


def of(tx: Reader, event: Event) -> Relation:
    """Return the relation that an event's content states."""
    relation = event.content.get("m.relates_to")
    if not isinstance(relation, dict):
        return NONE
    target_id, rel_type = relation.get("event_id"), relation.get("rel_type")
    if not isinstance(target_id, str) or not isinstance(rel_type, str):
        return NONE
    target = tx.sql.execute(_TARGET, {"event_id": target_id}).first()
    if target is None or target.room_id != event.room_id:
        # a thread without a root is unreadable
        return Relation(target_id, rel_type, None, None, _annotation_key(relation))
    thread_id = target_id if rel_type == THREAD else target.thread_id
    is_edit = rel_type == REPLACE and _may_replace(event, target)
    edit_of = target.number if is_edit else None
    return Relation(target_id, rel_type, thread_id, edit_of, _annotation_key(relation))


def key_digest(key: object) -> bytes:
    """Return what tells the key of a reaction from others, in few bytes however long it is."""
    return hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).digest()[:16]


def related(
    tx: Reader,
    user_id: str,
    room_id: str,
    event_id: str,
    *,
    rel_type: str | None,
    event_type: str | None,
    is_recursive: bool,
    start: int | None,
    stop: int | None,
    is_backwards: bool,
    limit: int,
) -> Page:
    """Return a page of an event's children, with `is_recursive` of all below it to LEVELS.

    Raises M_NOT_FOUND for a parent that the user may not see.
    """
    history.seen(tx, user_id, event_id, room_id)  # its sender may be ignored
    after, upto = paging.bounds(start, stop, tx.position, is_backwards=is_backwards)
    request = PageRequest(room_id, user_id, after, upto, is_backwards, limit)
    if is_recursive:
        below = {"room_id": room_id, "rel_type": rel_type, "event_type": event_type}
        # all are read for each page, as a level has no order by time
        return paging.page(
            tx,
            request,
            lambda part: tx.sql.execute_long(
                _BELOW[is_backwards], {"parent": event_id, **below, **part}
            ),
        )
    query = _CHILDREN
    if rel_type is not None:
        query = query.where(StoredEvent.rel_type == rel_type)
    if event_type is not None:
        query = query.where(StoredEvent.type == event_type)
    query = paging.ordered(query, is_backwards=is_backwards)
    return paging.page(
        tx, request, lambda part: tx.sql.execute(query, {"parent": event_id, **part}).all()
    )


def _annotation_key(relation: Json) -> bytes | None:
    return key_digest(relation.get("key")) if relation["rel_type"] == ANNOTATION else None


def _may_replace(event: Event, target: state.AnyRow) -> bool:
    """Return whether an event is a valid replacement of another event of its room.

    That is decided here and not when the other one is read: anybody may send thousands of invalid
    replacements, and each reader would have to go through them.
    """
    if (event.type, event.sender) != (target.type, target.sender):
        return False
    if event.state_key is not None or target.state_key is not None:
        return False
    if target.rel_type == REPLACE or target.redacted_by is not None:
        return False
    # an encrypted event has its new content inside
    return event.type == ENCRYPTED or isinstance(event.content.get("m.new_content"), dict)
