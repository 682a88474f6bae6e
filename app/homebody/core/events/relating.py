"""What a new event relates to, worked out once, when it is stored.

Spec: client-server-api#forming-relationships-between-events,
client-server-api#validity-of-replacement-events
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from homebody.core.events import state
from homebody.models.events import StoredEvent
from homebody.spec.events import Event, Json
from homebody.storage.database import Reader

REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"
ANNOTATION: Final = "m.annotation"
REFERENCE: Final = "m.reference"
ENCRYPTED: Final = "m.room.encrypted"

_TARGET = select(
    StoredEvent.position,
    StoredEvent.room_id,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
    StoredEvent.rel_type,
    StoredEvent.thread_id,
    StoredEvent.redacted_by,
).where(StoredEvent.event_id == bindparam("event_id"))


class Relation(NamedTuple):
    """The columns of an event that say how it relates to another."""

    relates_to: str | None
    rel_type: str | None
    thread_id: str | None
    """The root of the thread that the event belongs to; None: the main timeline."""
    edit_of: int | None
    """The position of the event that this one is a valid replacement of."""
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
    edit_of = target.position if is_edit else None
    return Relation(target_id, rel_type, thread_id, edit_of, _annotation_key(relation))


def key_digest(key: object) -> bytes:
    """Return what tells the key of a reaction from others, in few bytes however long it is."""
    return hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).digest()[:16]


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
