"""The threads of a room, those with the latest replies first.

Pages go back through the replies: the last reply of a thread stands for it. So a page costs what it
shows and what was said meanwhile in the same threads, not all threads of the room.
Spec: client-server-api#querying-threads-in-a-room
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, literal_column, select

from homebody import errors
from homebody.core.events import (
    aggregations,
    client_events,
    history,
    paging,
    relations,
    visibility,
)
from homebody.core.events.paging import PageRequest
from homebody.core.user_data import account_data
from homebody.models.events import StoredEvent
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader
from homebody.storage.expressions import unindexed

MAX_LIMIT = 100
_BATCH = 200

_REPLIES = select(*paging.COLUMNS, StoredEvent.relates_to).where(
    # not as a parameter, so that SQLite knows this for the condition of its index
    StoredEvent.rel_type == literal_column(f"'{relations.THREAD}'"),
    StoredEvent.redacted_by.is_(None),
    *paging.IN_RANGE,
)
_LATEST = paging.ordered(
    _REPLIES.where(StoredEvent.room_id == bindparam("room_id")), is_backwards=True
)
_LATER = _REPLIES.where(
    StoredEvent.relates_to.in_(bindparam("roots", expanding=True)),
    # an event of another room may name the same root
    unindexed(StoredEvent.room_id) == bindparam("room_id"),  # else all of the room is read
    StoredEvent.sender.not_in(bindparam("ignored", expanding=True)),
)
_NUMBERS = select(StoredEvent.event_id, StoredEvent.number).where(
    StoredEvent.event_id.in_(bindparam("roots", expanding=True)),
    StoredEvent.room_id == bindparam("room_id"),
)


class Thread(NamedTuple):
    """A thread in the list of them."""

    root: ClientEvent
    bundle: Json
    """What aggregations.bundles has found for the root."""
    position: int
    """The position of the last reply."""


def threads(
    tx: Reader,
    requester: Requester,
    room_id: str,
    *,
    start: int | None,
    limit: int,
    is_participated: bool,
) -> tuple[list[Thread], int | None]:
    """Return threads, all or those in which the requester takes part, and where to go on.

    The latter is a position; None: there are no more.
    Raises M_FORBIDDEN as visibility.may_read does.
    """
    user_id = requester.user_id
    last = visibility.upto(tx, user_id, room_id)
    after, upto = paging.bounds(start, None, last, is_backwards=True)
    request = PageRequest(room_id, user_id, after, upto, is_backwards=True, limit=limit)
    known: set[str] = set()

    def read(part: dict[str, object]) -> Sequence[Any]:
        return tx.sql.execute(_LATEST, {"room_id": room_id, **part}).all()

    def found_in(replies: Sequence[Any]) -> Iterator[Thread]:
        latest = _latest(tx, request, replies, known, last)
        for thread in _threads(tx, requester, room_id, latest):
            if thread.bundle[relations.THREAD]["current_user_participated"] or not is_participated:
                yield thread

    batches = paging.in_batches(request, read, _BATCH)
    return paging.take(((found_in(rows), end) for rows, end in batches), limit, request.end)


def find_root(tx: Reader, user_id: str, room_id: str, event_id: str) -> ClientEvent:
    """Return the event in which a thread begins, or may begin.

    Raises M_NOT_FOUND where the user may not see it, and for an event inside of a thread.
    """
    root = history.seen(tx, user_id, event_id, room_id)
    if root.thread_id is not None:
        raise errors.not_found("The event belongs to a thread itself")
    return root


def find_reply(tx: Reader, user_id: str, root: ClientEvent, event_id: str) -> ClientEvent:
    """Return an event of a thread. Raises M_NOT_IN_THREAD, also where the user may not see it."""
    event = client_events.find(tx, event_id)
    is_there = event is not None and event.thread_id == root.event_id
    if event is None or not is_there or not visibility.visible(tx, user_id, root.room_id, [event]):
        raise errors.not_in_thread("The event does not belong to this thread")
    return event


def _latest(
    tx: Reader, request: PageRequest, replies: Sequence[Any], known: set[str], last: int
) -> dict[str, int]:
    """Return {root: position of its last reply} of the threads that are not known yet.

    Threads with a reply after the page's start were on a page before this one.
    """
    user_id, room_id = request.user_id, request.room_id
    seen = visibility.visible(tx, user_id, room_id, replies)
    latest: dict[str, int] = {}
    for reply in account_data.without_ignored(tx, user_id, seen):
        if reply.relates_to not in known:
            latest.setdefault(reply.relates_to, reply.position)
    known.update(latest)
    if latest and request.start < last:
        ignored = account_data.ignored_users(tx, user_id)
        values = {"room_id": room_id, "roots": [*latest], "ignored": [*ignored]}
        later = tx.sql.execute(_LATER, {**values, "after": request.start, "upto": last}).all()
        for reply in visibility.visible(tx, user_id, room_id, later):
            latest.pop(reply.relates_to, None)
    return latest


def _threads(
    tx: Reader, requester: Requester, room_id: str, latest: dict[str, int]
) -> Iterator[Thread]:
    """Yield the threads with these roots, in their order, as far as the user may see them."""
    roots = _roots(tx, requester.user_id, room_id, latest)
    bundles = aggregations.bundles(tx, requester, roots)
    for root in roots:
        bundle = bundles.get(root.event_id, {})
        if relations.THREAD in bundle:
            yield Thread(root, bundle, latest[root.event_id])


def _roots(tx: Reader, user_id: str, room_id: str, latest: dict[str, int]) -> list[ClientEvent]:
    """Return the roots of these threads, in their order, as far as the user may see them."""
    if not latest:
        return []
    found = tx.sql.execute(_NUMBERS, {"roots": list(latest), "room_id": room_id})
    numbers = {row.event_id: row.number for row in found}
    some = [numbers[root] for root in latest if root in numbers]
    roots = visibility.visible(tx, user_id, room_id, client_events.load(tx, some))
    ignored = account_data.ignored_users(tx, user_id)
    # the spec wants the roots of ignored users, "redacted to the caller"
    roots = [client_events.redacted(tx, root) if root.sender in ignored else root for root in roots]
    return client_events.hide(tx, user_id, roots)
