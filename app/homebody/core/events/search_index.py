"""The full-text index: names and topics of rooms, and the messages in them.

It follows the events by some hundred. FTS5 writes a segment for every SAVEPOINT, which would cost
each message 30 µs; of a hundred at once each costs 6. Newer events, and after an upgrade older
ones, are indexed by the next search. Redacted events leave the index with their redaction.

Events that stand in no timeline are indexed too, as they may come into it later. The search finds
only what has a position.

This module alone writes the tables search_index and search_progress.
Spec: client-server-api#server-side-search
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from sqlalchemy import Integer, Text, bindparam, column, delete, func, select, table
from sqlalchemy.dialects.sqlite import insert

from homebody.models.base import EventNumber
from homebody.models.events import SearchProgress, StoredEvent
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Database, Reader, Tx

MESSAGE: Final = "m.room.message"
NAME: Final = "m.room.name"
TOPIC: Final = "m.room.topic"
EVERY: Final = 128
"""Number of events by which the index may be behind."""
_AT_ONCE: Final = 500
ONLY_ONE: Final = 1
PROGRESS: CacheKind[int, EventNumber] = declare("search_progress", 1, lambda _: 8)
"""The number in the one row of its table."""

_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
"""Scripts without spaces between words: each letter is taken for a word."""

_PROGRESS = select(SearchProgress.number)
_ADVANCE = insert(SearchProgress)
_ADVANCE = _ADVANCE.on_conflict_do_update(
    index_elements=["id"], set_={"number": _ADVANCE.excluded.number}
)
_LAST = select(func.max(StoredEvent.number))
_NEXT = (
    select(StoredEvent.number, StoredEvent.type, StoredEvent.pdu)
    .where(
        StoredEvent.number > bindparam("after"),
        StoredEvent.number <= bindparam("upto"),
        StoredEvent.type.in_((MESSAGE, NAME, TOPIC)),
    )
    .order_by(StoredEvent.number)
    .limit(_AT_ONCE)
)
INDEX: Final = table(
    "search_index",
    *(column(name, Text) for name in ("body", "name", "topic", "search_index")),
    column("rowid", Integer),
)
"""The virtual table, with the hidden column by which FTS5 looks for words in all others."""
_INSERT = insert(INDEX)
_DELETE = delete(INDEX).where(INDEX.c.rowid == bindparam("number"))


def follow(tx: Tx, number: EventNumber) -> None:
    """Index the events since the last time; called when there are EVERY of them."""
    _extend(tx, number)


def forget(tx: Tx, number: EventNumber) -> None:
    """Remove a redacted event."""
    tx.sql.execute(_DELETE, {"number": number})


def catch_up(db: Database) -> None:
    """Index all events that are not yet, in short write transactions."""
    with db.read() as tx:
        upto = tx.sql.execute(_LAST).scalar() or EventNumber(0)
        is_behind = _progress(tx) < upto
    while is_behind:
        with db.write() as writing:
            is_behind = _extend(writing, upto)
        event_loop.pause()


def words(searched: str) -> list[str]:
    """Return the words to search for; those without a letter or digit are left out."""
    found = searched.replace("\0", " ").split()
    return [word for word in found if any(map(str.isalnum, word))]


def phrase(word: str) -> str:
    """Return an FTS5 query for a word and for words that begin with it."""
    quoted = spaced(word).replace('"', '""').strip()
    return f'"{quoted}" *'


def spaced(said: str) -> str:
    """Return a text with spaces between all words."""
    return said if said.isascii() else _UNSPACED.sub(r" \1 ", said)


def _progress(tx: Reader) -> EventNumber:
    known = tx.cached(PROGRESS, ONLY_ONE)
    if known is None:
        known = tx.sql.execute(_PROGRESS).scalar() or EventNumber(0)
        tx.fill(PROGRESS, ONLY_ONE, known)
    return known


def _extend(tx: Tx, upto: EventNumber) -> bool:
    """Index the next events up to a number; return whether there are more of them."""
    found = tx.sql.execute(_NEXT, {"after": _progress(tx), "upto": upto}).all()
    is_all = len(found) < _AT_ONCE
    entries = [_entry(row.number, row.type, orjson.loads(row.pdu)["content"]) for row in found]
    entries = [entry for entry in entries if len(entry) > 1]
    if entries:
        tx.sql.execute(_INSERT, [{"body": "", "name": "", "topic": "", **it} for it in entries])
    reached = max(_progress(tx), upto) if is_all else found[-1].number
    tx.sql.execute(_ADVANCE, {"id": ONLY_ONE, "number": reached})
    tx.remember(PROGRESS, ONLY_ONE, reached)
    return not is_all


def _entry(number: EventNumber, event_type: str, content: Json) -> dict[str, Any]:
    """Return the row for an event; it has no text where there is nothing to search."""
    if event_type == MESSAGE:
        column, texts = "body", [content.get("body")]
    elif event_type == NAME:
        column, texts = "name", [content.get("name")]
    else:
        column, texts = "topic", _topics(content)
    said = " ".join(dict.fromkeys(it for it in texts if isinstance(it, str) and it))
    return {"rowid": number, column: spaced(said)} if said else {"rowid": number}


def _topics(content: Json) -> list[object]:
    """Return the topic, and the plain texts of m.topic.

    Spec: client-server-api#mroomtopic
    """
    topic = content.get("m.topic")
    parts = topic.get("m.text") if isinstance(topic, dict) else None
    plain = [
        part.get("body")
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, dict) and part.get("mimetype", "text/plain") == "text/plain"
    ]
    return [content.get("topic"), *plain]
