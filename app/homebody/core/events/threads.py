"""The threads of a room, those with the latest replies first.

A walk back through the replies: an event that is the last of its thread stands for it. So a page
costs what it shows and what was said meanwhile in the same threads, not all threads of the room.
Spec: client-server-api#querying-threads-in-a-room
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import bindparam, literal, select

from homebody.core.events import aggregations, client_events, erasure, history, relating, visibility
from homebody.core.user_data import ignored_users
from homebody.models.events import StoredEvent
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader

MAX_LIMIT = 100
_BATCH = 200

_REPLIES = (
    select(
        StoredEvent.position,
        StoredEvent.type,
        StoredEvent.state_key,
        StoredEvent.sender,
        StoredEvent.relates_to,
    )
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        # in words, so that SQLite knows this for the condition of its index
        StoredEvent.rel_type == literal(relating.THREAD, literal_execute=True),
        StoredEvent.redacted_by.is_(None),
        StoredEvent.position <= bindparam("upto"),
    )
    .order_by(StoredEvent.position.desc())
    .limit(_BATCH)
)
_LATER = select(*_REPLIES.selected_columns).where(
    StoredEvent.relates_to.in_(bindparam("roots", expanding=True)),
    StoredEvent.rel_type == relating.THREAD,
    StoredEvent.redacted_by.is_(None),
    # an event of another room may name the same root; with the bare column SQLite reads all of the
    # room instead
    StoredEvent.room_id.concat("") == bindparam("room_id"),
    StoredEvent.sender.not_in(bindparam("ignored", expanding=True)),
    StoredEvent.position > bindparam("start"),
    StoredEvent.position <= bindparam("end"),
)
_POSITIONS = select(StoredEvent.event_id, StoredEvent.position).where(
    StoredEvent.event_id.in_(bindparam("roots", expanding=True)),
    StoredEvent.room_id == bindparam("room_id"),
)


class Reply(NamedTuple):
    """What the columns say of an event in a thread."""

    position: int
    type: str
    state_key: str | None
    sender: str
    root: str


class Threads(NamedTuple):
    """A page of threads."""

    roots: list[ClientEvent]
    bundles: dict[str, Json]
    """What aggregations.bundles tells of the roots."""
    end: int | None
    """Position from which to go on; None: there are no more."""


def threads(
    tx: Reader,
    requester: Requester,
    room_id: str,
    *,
    start: int | None,
    limit: int,
    is_participated: bool,
) -> Threads:
    """A page of a room's threads, all of them or those in which the requester takes part.

    Raises M_FORBIDDEN as visibility.may_read does.
    """
    left = visibility.upto(tx, requester.user_id, room_id)
    end = tx.position if left is None else left
    begin = end if start is None else min(start, end)
    page, last = Threads([], {}, None), begin
    for latest, resume in _batches(tx, requester.user_id, room_id, begin, end):
        roots = _roots(tx, requester.user_id, room_id, latest)
        bundles = aggregations.bundles(tx, requester, roots)
        for root in roots:
            told = bundles.get(root.event_id, {}).get(relating.THREAD)
            if told is None or (is_participated and not told["current_user_participated"]):
                continue
            if len(page.roots) == limit:
                return page._replace(end=last - 1)
            page.roots.append(root)
            page.bundles[root.event_id] = bundles[root.event_id]
            last = latest[root.event_id]
        page = page._replace(end=resume)
    return page


def _batches(
    tx: Reader, user_id: str, room_id: str, begin: int, end: int
) -> Iterator[tuple[dict[str, int], int | None]]:
    """{root: position of its last reply}, by and by, the latest first.

    With each batch where to go on, None: it was the last. What has a later reply than the walk's
    begin stood on a page before this one.
    """
    known: set[str] = set()
    upto = begin
    for _ in range(history.SCANNED_ROWS // _BATCH):
        found = tx.sql.execute(_REPLIES, {"room_id": room_id, "upto": upto})
        replies = [Reply._make(row) for row in found]
        upto = replies[-1].position - 1 if replies else 0
        seen = visibility.visible(tx, user_id, room_id, replies)
        latest: dict[str, int] = {}
        for reply in ignored_users.without(tx, user_id, seen):
            if reply.root not in known:
                latest.setdefault(reply.root, reply.position)
        known.update(latest)
        if latest and begin < end:
            for root in _replied_later(tx, user_id, room_id, list(latest), begin, end):
                latest.pop(root, None)
        is_last = len(replies) < _BATCH
        yield latest, None if is_last else upto
        if is_last:
            return


def _replied_later(
    tx: Reader, user_id: str, room_id: str, roots: list[str], begin: int, end: int
) -> set[str]:
    """Return those roots to which the user may see replies after the walk's begin."""
    ignored = sorted(ignored_users.of(tx, user_id))
    asked = {"room_id": room_id, "roots": roots, "ignored": ignored, "start": begin, "end": end}
    later = [Reply._make(row) for row in tx.sql.execute(_LATER, asked)]
    return {reply.root for reply in visibility.visible(tx, user_id, room_id, later)}


def _roots(tx: Reader, user_id: str, room_id: str, latest: dict[str, int]) -> list[ClientEvent]:
    """The roots of these threads, in their order, as far as the user may see them."""
    if not latest:
        return []
    found = tx.sql.execute(_POSITIONS, {"roots": list(latest), "room_id": room_id})
    positions = {row.event_id: row.position for row in found}
    some = [positions[root] for root in latest if root in positions]
    roots = visibility.visible(tx, user_id, room_id, client_events.load(tx, some))
    ignored = ignored_users.of(tx, user_id)
    # the spec wants the roots of ignored users, "redacted to the caller"
    roots = [erasure.redacted(tx, root) if root.sender in ignored else root for root in roots]
    return erasure.hide(tx, user_id, roots)
