"""Pages of events: in one direction from a position, what the reader may see and the filter admits.

Rows are read in batches. Columns of the table events tell type, sender and position; what the
filter, the history visibility or the user's ignore list keeps out is never decoded. Only what is
left is loaded in the form for clients. One request reads a bounded number of rows: a page that
finds too few by then has a token to go on from.

/messages, /context, /relations, /threads and the legacy API read their pages in this way; /search,
which orders by rank, shares `admitted` and `take`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, exists, select

from homebody.core.events import client_events, visibility
from homebody.core.user_data import account_data
from homebody.models.events import StoredEvent
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, listed, unindexed

MAX_LIMIT = 1000
"""Events on one page."""
SCANNED_ROWS = 5000
"""Read for one page; about 10 ms."""
LOADED_EVENTS = 1000
"""Decoded for one page whose filter looks inside of events."""
_BATCH = 1000

T = TypeVar("T")
Cursor = TypeVar("Cursor")
Read = Callable[[dict[str, object]], Sequence[Any]]
"""Returns the next rows of COLUMNS for the values `after`, `upto` and `count`."""

COLUMNS = (
    StoredEvent.number,
    StoredEvent.position,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
    StoredEvent.room_id,
    StoredEvent.rel_type,
)
IN_RANGE = (
    StoredEvent.position > bindparam("after"),
    StoredEvent.position <= bindparam("upto"),
)
_ROWS = select(*COLUMNS).where(StoredEvent.room_id == bindparam("room_id"), *IN_RANGE)


def ordered(query: Select[*tuple[Any, ...]], *, is_backwards: bool) -> Select[*tuple[Any, ...]]:
    """Return a query for events, the newest or the oldest `count` of them first."""
    order = StoredEvent.position.desc() if is_backwards else StoredEvent.position
    return query.order_by(order).limit(bindparam("count"))


ROWS = {is_backwards: ordered(_ROWS, is_backwards=is_backwards) for is_backwards in (False, True)}
"""The next `count` events of a room, by whether they are read backwards."""

_PARENTS = listed("event_ids")
_OF_TYPES = StoredEvent.rel_type.in_(bindparam("types", expanding=True))
_BY_SENDERS = StoredEvent.sender.in_(bindparam("senders", expanding=True))
_OF_ANY_TYPE = StoredEvent.rel_type >= ""  # so that SQLite takes the index that has senders too


def _related_query(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Return a query for those of some events to which others relate.

    It reads only what the user may see of the room, or filters would reveal the rest.
    """
    child = exists().where(
        StoredEvent.relates_to == _PARENTS.c.value,
        *conditions,
        visibility.within(StoredEvent.position).correlate(StoredEvent),
        unindexed(StoredEvent.room_id) == bindparam("room_id"),  # else all of the room is read
    )
    return select(_PARENTS.c.value).where(child.correlate(_PARENTS))


_RELATED = {
    (True, False): _related_query(_OF_TYPES),
    (False, True): _related_query(_OF_ANY_TYPE, _BY_SENDERS),
    (True, True): _related_query(_OF_TYPES, _BY_SENDERS),
}
"""By whether the filter names types of relations, and senders."""


class Positioned(Protocol):
    """Something at a position of the clock: an event, a row, a result."""

    @property
    def position(self) -> int:
        """The position."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page of a room's events for a user, and the positions between which it lies."""

    room_id: str
    user_id: str
    after: int
    """Events come after this position …"""
    upto: int
    """… and not after this one."""
    is_backwards: bool
    limit: int
    wanted: RoomEventFilter = filters.EVERY_ROOM_EVENT

    @property
    def start(self) -> int:
        """The position of the token at which the page begins."""
        return self.upto if self.is_backwards else self.after

    def end(self, events: Sequence[Positioned]) -> int:
        """Return the position of the token behind the last of these events, or of the start."""
        if not events:
            return self.start
        last = events[-1].position
        return last - 1 if self.is_backwards else last

    def looks_inside(self) -> bool:
        """Return whether the filter asks for more than the columns of a row tell."""
        return (
            self.wanted.contains_url is not None
            or self.wanted.related_by_rel_types is not None
            or self.wanted.related_by_senders is not None
        )


class Page(NamedTuple):
    """Some events of a room, in the order in which they were read."""

    events: list[ClientEvent]
    start: int
    end: int | None
    """Position of the token to go on from; None: there is no more."""


def bounds(
    start: int | None, stop: int | None, last: int, *, is_backwards: bool
) -> tuple[int, int]:
    """Return `after` and `upto` of a page from one token towards another.

    `last` is the newest position that there is; None stands for the end of the room in question.
    """
    older, newer = (stop, start) if is_backwards else (start, stop)
    return older or 0, last if newer is None else min(newer, last)


def page(tx: Reader, request: PageRequest, read: Read | None = None) -> Page:
    """Return the next events of the room, or of what `read` finds of it."""

    def read_room(part: dict[str, object]) -> Sequence[Any]:
        query = ROWS[request.is_backwards]
        return tx.sql.execute(query, {"room_id": request.room_id, **part}).all()

    batches = (
        (events_of(tx, request, rows), end) for rows, end in in_batches(request, read or read_room)
    )
    events, end = take(batches, request.limit, request.end)
    return Page(events, request.start, end)


def in_batches(
    request: PageRequest, read: Read, size: int | None = None
) -> Iterator[tuple[Sequence[Any], int | None]]:
    """Yield rows in batches, with each the position to go on from; None: it was the last.

    Without a size the first batch is as small as the page, as mostly that will do.
    """
    after, upto, count, scanned = request.after, request.upto, size or request.limit + 1, 0
    most = LOADED_EVENTS if request.looks_inside() else SCANNED_ROWS
    while scanned < most:
        rows = read({"after": after, "upto": upto, "count": count})
        if len(rows) < count:
            yield rows, None
            return
        end = request.end(rows)
        yield rows, end
        after, upto = (after, end) if request.is_backwards else (end, upto)
        scanned += count
        count = size or _BATCH


def take(
    batches: Iterable[tuple[Iterable[T], Cursor | None]],
    limit: int,
    end_of: Callable[[list[T]], Cursor],
    *,
    looks_ahead: bool = True,
) -> tuple[list[T], Cursor | None]:
    """Return the first results of all batches, and where to go on; None: there are no more.

    It looks for one more than the limit, to know whether there are more; without `looks_ahead` a
    full page always has an end to go on from.
    """
    found: list[T] = []
    end: Cursor | None = None
    for some, resume in batches:
        for one in some:
            if len(found) == limit:
                return found, end_of(found)
            found.append(one)
            if len(found) == limit and not looks_ahead:
                return found, end_of(found)
        end = resume
    return found, end


def events_of(tx: Reader, request: PageRequest, rows: Sequence[Any]) -> Iterator[ClientEvent]:
    """Yield the events of rows of the room that the user may see and the filter admits."""
    rows = [row for row in rows if row.room_id == request.room_id]
    rows = admitted(tx, request.user_id, request.wanted, rows)
    rows = visibility.visible(tx, request.user_id, request.room_id, rows)
    for some in batches(rows, request.limit + 1):
        events = client_events.load(tx, [row.number for row in some])
        if request.looks_inside():
            events = [it for it in events if matches(it, request.wanted)]
            events = _with_relations(tx, request, events)
        yield from client_events.hide(tx, request.user_id, events)


def admitted(tx: Reader, user_id: str, wanted: RoomEventFilter, rows: Sequence[Any]) -> list[Any]:
    """Return the rows that the filter admits, as far as columns tell, without ignored users'."""
    if wanted is not filters.EVERY_ROOM_EVENT:
        of_columns = msgspec.structs.replace(wanted, contains_url=None)
        rows = [
            row
            for row in rows
            if filters.matches(of_columns, row.type, row.sender, row.room_id, rel_type=row.rel_type)
        ]
    return account_data.without_ignored(tx, user_id, rows)


def matches(event: ClientEvent, wanted: RoomEventFilter) -> bool:
    """Return whether a filter admits an event, except for its relations."""
    if wanted is filters.EVERY_ROOM_EVENT:
        return True
    return filters.matches(
        wanted, event.type, event.sender, event.room_id, event.content, event.rel_type
    )


def _with_relations(
    tx: Reader, request: PageRequest, events: list[ClientEvent]
) -> list[ClientEvent]:
    """Return the events to which others relate in the way that the filter asks for."""
    types, senders = request.wanted.related_by_rel_types, request.wanted.related_by_senders
    if not events or (types is None and senders is None):
        return events
    first = min(it.position for it in events)
    values: Mapping[str, object] = {
        "event_ids": [it.event_id for it in events],
        "types": types or (),
        "senders": senders or (),
        "room_id": request.room_id,
        "ranges": visibility.ranges(tx, request.user_id, request.room_id, first),
    }
    query = _RELATED[types is not None, senders is not None]
    related = set(tx.sql.execute(query, values).scalars())
    return [it for it in events if it.event_id in related]
