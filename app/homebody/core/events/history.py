"""What happened in a room: pages in both directions, single events, and what stands around them.

A page is found in two stages. Columns of the table events tell type, sender and place of the next
rows; what the filter or the room's history visibility keeps out is never decoded. Only what is left
is loaded in the form for clients. One request looks at a bounded number of rows: where it finds too
few, it answers those with a token to go on.
Spec: client-server-api#get_matrixclientv3roomsroomidmessages, client-server-api#event-context
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import orjson
from sqlalchemy import ColumnElement, Select, bindparam, exists, func, select, text

from homebody import errors
from homebody.core.events import client_events, erasure, members, rows, state, visibility
from homebody.core.user_data import ignored_users
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

MAX_LIMIT = 1000
"""Events in one answer."""
SCANNED_ROWS = 5000
"""Looked at by one request; about 10 ms."""
NEAR_EVENTS = 10
"""Looked at for the one nearest to a time; mostly the first will do. Else the database searches."""
LOADED_EVENTS = 1000
"""Decoded by one request whose filter asks for something inside of events."""
_BATCH = 1000

_ROWS = select(
    StoredEvent.position, StoredEvent.type, StoredEvent.state_key, StoredEvent.sender
).where(
    StoredEvent.room_id == bindparam("room_id"),
    StoredEvent.position > bindparam("after"),
    StoredEvent.position <= bindparam("upto"),
)
_FORWARDS = _ROWS.order_by(StoredEvent.position).limit(bindparam("count"))
_BACKWARDS = _ROWS.order_by(StoredEvent.position.desc()).limit(bindparam("count"))
_PARENTS = func.json_each(bindparam("event_ids")).table_valued("value")
_TYPES = func.json_each(bindparam("types")).table_valued("value")
_SENDERS = func.json_each(bindparam("senders")).table_valued("value")
_OF_TYPES = StoredEvent.rel_type.in_(select(_TYPES.c.value))
_BY_SENDERS = StoredEvent.sender.in_(select(_SENDERS.c.value))
_OF_ANY_TYPE = StoredEvent.rel_type >= ""  # so that SQLite takes the index that has senders too
_RANGES = func.json_each(bindparam("ranges")).table_valued("value")
_IN_RANGES = exists().where(
    StoredEvent.position.between(
        func.json_extract(_RANGES.c.value, "$[0]"), func.json_extract(_RANGES.c.value, "$[1]")
    )
)


def _related_query(*conditions: ColumnElement[bool]) -> Select[str]:
    """A query for those of some events to which others relate: the first of these is enough.

    It looks at what the reader may see of the room, or filters would tell of the rest.
    """
    child = exists().where(
        StoredEvent.relates_to == _PARENTS.c.value,
        *conditions,
        _IN_RANGES.correlate(StoredEvent),
        # with the bare column SQLite reads all of the room instead
        StoredEvent.room_id.concat("") == bindparam("room_id"),
    )
    return select(_PARENTS.c.value).where(child.correlate(_PARENTS))


_RELATED = {
    (True, False): _related_query(_OF_TYPES),
    (False, True): _related_query(_OF_ANY_TYPE, _BY_SENDERS),
    (True, True): _related_query(_OF_TYPES, _BY_SENDERS),
}
"""By whether the filter names types of relations, and senders."""
_STATE = select(StateInterval.event_position).where(
    StateInterval.room_number == rows.ROOM_NUMBER,
    StateInterval.from_position <= bindparam("position"),
    StateInterval.to_position > bindparam("position"),
)
_NEAR = select(
    StoredEvent.position,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
    StoredEvent.event_id,
    StoredEvent.origin_server_ts,
).where(StoredEvent.room_id == bindparam("room_id"))
_NEAR_FORWARDS = (
    _NEAR.where(StoredEvent.origin_server_ts >= bindparam("ts"))
    .order_by(StoredEvent.origin_server_ts, StoredEvent.position)
    .limit(bindparam("count"))
)
_NEAR_BACKWARDS = (
    _NEAR.where(StoredEvent.origin_server_ts <= bindparam("ts"))
    .order_by(StoredEvent.origin_server_ts.desc(), StoredEvent.position.desc())
    .limit(bindparam("count"))
)
# An index has all that the search for a visible event asks of the hidden ones
_FIRST_VISIBLE = """
    WITH visible(first, last) AS MATERIALIZED (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:spans))
    SELECT position FROM events WHERE room_id = :room_id AND origin_server_ts {comparison} :ts
    AND EXISTS (SELECT 1 FROM visible WHERE events.position BETWEEN first AND last)
    ORDER BY origin_server_ts {order}, position {order} LIMIT 1
"""
_FIRST_VISIBLE_FORWARDS = text(_FIRST_VISIBLE.format(comparison=">=", order="ASC"))
_FIRST_VISIBLE_BACKWARDS = text(_FIRST_VISIBLE.format(comparison="<=", order="DESC"))


class Place(NamedTuple):
    """What the columns say of an event."""

    position: int
    type: str
    state_key: str | None
    sender: str


@dataclass(frozen=True, slots=True)
class Walk:
    """Through which part of a room, for whom, in which direction, and what is wanted of it."""

    room_id: str
    user_id: str
    after: int
    """The part begins after this position …"""
    upto: int
    """… and ends with this one."""
    is_backwards: bool
    limit: int
    wanted: RoomEventFilter = filters.EVERY_ROOM_EVENT

    @property
    def start(self) -> int:
        """The position of the token from which the walk goes out."""
        return self.upto if self.is_backwards else self.after


class Page(NamedTuple):
    """Some events of a room, in the order of the walk."""

    events: list[ClientEvent]
    start: int
    end: int | None
    """Position of the token to go on from; None: there is no more."""


class Context(NamedTuple):
    """An event, what stands around it, and the room's state there."""

    event: ClientEvent
    before: Page
    after: Page
    state: list[ClientEvent]


def messages(
    tx: Reader,
    user_id: str,
    room_id: str,
    *,
    start: int | None,
    stop: int | None,
    is_backwards: bool,
    limit: int,
    wanted: RoomEventFilter = filters.EVERY_ROOM_EVENT,
) -> Page:
    """A page of a room's events from one position towards another; None: from or to its end.

    Who has left sees what was before the leave. Raises M_FORBIDDEN as visibility.may_read does.
    """
    left = visibility.upto(tx, user_id, room_id)
    last = tx.position if left is None else left
    older, newer = (stop, start) if is_backwards else (start, stop)
    walk = Walk(
        room_id,
        user_id,
        after=older or 0,
        upto=last if newer is None else min(newer, last),
        is_backwards=is_backwards,
        limit=limit if wanted.limit is None else min(limit, wanted.limit),
        wanted=wanted,
    )
    found = page(tx, walk)
    if is_backwards and found.events and found.end is None and _is_selective(wanted):
        # Deviates: "if no further events are available, this property is omitted". A page that a
        # filter thinned out does not show that it reaches the beginning of the room; Synapse, and
        # clients that were written against it, go on to the page that is empty.
        found = found._replace(end=walk.after)
    return found if start is None else found._replace(start=start)


def page(tx: Reader, walk: Walk) -> Page:
    """The next events on a walk.

    What is hidden from the user, said by who is ignored, or not wanted, is left out.
    """
    found: list[ClientEvent] = []
    end: int | None = None
    for places, resume in _batches(tx, walk):
        for event in _wanted(tx, walk, places):
            if len(found) == walk.limit:  # one more than asked for: so there is more
                end = _behind(walk, found[-1].position) if found else walk.start
                return Page(found, walk.start, end)
            found.append(event)
        end = resume
    return Page(found, walk.start, end)


def event(tx: Reader, user_id: str, event_id: str, room_id: str | None = None) -> ClientEvent:
    """An event for the user. Raises M_NOT_FOUND for one that they may not, or do not want to, see.

    The latter is what they ignore.
    """
    found = seen(tx, user_id, event_id, room_id)
    if not ignored_users.without(tx, user_id, [found]):
        raise errors.not_found("This was said by somebody whom you ignore")
    return found


def seen(tx: Reader, user_id: str, event_id: str, room_id: str | None = None) -> ClientEvent:
    """An event that the user may see. Raises M_NOT_FOUND for any other."""
    found = client_events.find(tx, event_id)
    if found is None or room_id not in {None, found.room_id}:
        raise errors.not_found("There is no such event, or you may not see it")
    if not visibility.visible(
        tx, user_id, found.room_id, [found]
    ) or visibility.is_closed_by_forgetting(tx, user_id, found.room_id):
        raise errors.not_found("There is no such event, or you may not see it")
    return erasure.hide(tx, user_id, [found])[0]


def context(
    tx: Reader, user_id: str, room_id: str, event_id: str, limit: int, wanted: RoomEventFilter
) -> Context:
    """An event with up to `limit` events around it. Raises M_NOT_FOUND as `event` does.

    Both pages have an `end`, from which to go on in their direction.
    """
    if wanted.limit is not None:
        limit = min(limit, wanted.limit)
    centre = event(tx, user_id, event_id, room_id)
    at = centre.position
    back = Walk(room_id, user_id, 0, at - 1, is_backwards=True, limit=limit // 2, wanted=wanted)
    before = page(tx, back)
    forth = replace(
        back, after=at, upto=tx.position, is_backwards=False, limit=limit - len(before.events)
    )
    after = page(tx, forth)
    shown = [*before.events, centre, *after.events]
    last = max(it.position for it in shown)
    return Context(
        centre,
        before._replace(end=_end_of(back, before)),
        after._replace(end=_end_of(forth, after)),
        state_at(tx, user_id, room_id, last, wanted, {it.sender for it in shown}),
    )


def state_at(
    tx: Reader,
    user_id: str,
    room_id: str,
    position: int,
    wanted: RoomEventFilter,
    senders: Iterable[str],
) -> list[ClientEvent]:
    """The room's state after a position as the user may see it, as far as wanted.

    With lazy loading the only member events in it are those of the senders.
    """
    query = _STATE
    if wanted.lazy_load_members:
        query = query.where(StateInterval.type != state.MEMBER)
    found = tx.sql.execute(query, {"room_id": room_id, "position": position}).scalars()
    events = client_events.load(tx, sorted(found))
    if wanted.lazy_load_members:
        events += members.of_users(tx, room_id, frozenset(senders), position)
    return erasure.hide(tx, user_id, [it for it in events if matches(it, wanted)])


def senders_of(
    tx: Reader, user_id: str, room_id: str, events: list[ClientEvent]
) -> list[ClientEvent]:
    """The member events of who sent these events, as they were at the newest of them."""
    if not events:
        return []
    newest = max(it.position for it in events)
    found = members.of_users(tx, room_id, {it.sender for it in events}, newest)
    return erasure.hide(tx, user_id, found)


def near(tx: Reader, user_id: str, room_id: str, ts: int, *, is_backwards: bool) -> tuple[str, int]:
    """(event id, origin_server_ts) of the first event at or after a time, or at or before it.

    `ts` in ms. Raises M_NOT_FOUND where the user sees none, M_FORBIDDEN as visibility.may_read.
    """
    visibility.may_read(tx, user_id, room_id)
    query = _NEAR_BACKWARDS if is_backwards else _NEAR_FORWARDS
    asked: dict[str, object] = {"room_id": room_id, "ts": ts, "count": NEAR_EVENTS}
    found = tx.sql.execute(query, asked).all()
    places = [Place(*row[:4]) for row in found]
    seen = visibility.visible(tx, user_id, room_id, places)
    if seen:
        row = found[places.index(seen[0])]
        return row.event_id, row.origin_server_ts
    if len(found) == NEAR_EVENTS:
        asked["spans"] = orjson.dumps(visibility.history(tx, user_id, room_id).spans()).decode()
        query_all = _FIRST_VISIBLE_BACKWARDS if is_backwards else _FIRST_VISIBLE_FORWARDS
        positions = [position for (position,) in tx.read_long(query_all, asked)]
        for event in client_events.load(tx, positions):
            return event.event_id, event.origin_server_ts
    raise errors.not_found("There is no event in this direction")


def matches(it: ClientEvent | Place, wanted: RoomEventFilter, room_id: str = "") -> bool:
    """Whether a filter admits an event, or as much of it as the columns tell."""
    if wanted is filters.EVERY_ROOM_EVENT:
        return True
    if isinstance(it, ClientEvent):
        return filters.matches(wanted, it.type, it.sender, it.room_id, it.content)
    return filters.matches(wanted, it.type, it.sender, room_id)


def _batches(tx: Reader, walk: Walk) -> Iterator[tuple[list[Place], int | None]]:
    """The rows on the walk, by and by; with each batch where to go on, None: it was the last."""
    after, upto, count, scanned = walk.after, walk.upto, walk.limit + 1, 0
    query = _BACKWARDS if walk.is_backwards else _FORWARDS
    while scanned < (LOADED_EVENTS if _looks_inside(walk.wanted) else SCANNED_ROWS):
        part = {"room_id": walk.room_id, "after": after, "upto": upto, "count": count}
        places = [Place(*row) for row in tx.sql.execute(query, part)]
        if len(places) < count:
            yield places, None
            return
        resume = _behind(walk, places[-1].position)
        yield places, resume
        after, upto = (after, resume) if walk.is_backwards else (resume, upto)
        scanned += count
        count = _BATCH


def _wanted(tx: Reader, walk: Walk, places: list[Place]) -> Iterator[ClientEvent]:
    """Those of the events that the user may see and wants to."""
    by_columns = msgspec.structs.replace(walk.wanted, contains_url=None)
    if walk.wanted is not filters.EVERY_ROOM_EVENT:
        places = [it for it in places if matches(it, by_columns, walk.room_id)]
    places = visibility.visible(tx, walk.user_id, walk.room_id, places)
    places = ignored_users.without(tx, walk.user_id, places)
    count = walk.limit + 1
    for at in range(0, len(places), count):
        events = client_events.load(tx, [it.position for it in places[at : at + count]])
        if _looks_inside(walk.wanted):
            events = [it for it in events if matches(it, walk.wanted)]
            events = _with_relations(tx, walk, events)
        yield from erasure.hide(tx, walk.user_id, events)


def _with_relations(tx: Reader, walk: Walk, events: list[ClientEvent]) -> list[ClientEvent]:
    """Those to which others relate in the way that the filter asks for."""
    types, senders = walk.wanted.related_by_rel_types, walk.wanted.related_by_senders
    if not events or (types is None and senders is None):
        return events
    first = min(it.position for it in events)
    ranges = visibility.ranges(tx, walk.user_id, walk.room_id, first)
    asked = {
        "event_ids": orjson.dumps([it.event_id for it in events]).decode(),
        "types": orjson.dumps(sorted(types or ())).decode(),
        "senders": orjson.dumps(sorted(senders or ())).decode(),
        "room_id": walk.room_id,
        "ranges": orjson.dumps(ranges).decode(),
    }
    related = set(tx.sql.execute(_RELATED[types is not None, senders is not None], asked).scalars())
    return [it for it in events if it.event_id in related]


def _is_selective(wanted: RoomEventFilter) -> bool:
    """Return whether a filter leaves events out, rather than only limit or enrich the page."""
    selection = msgspec.structs.replace(
        wanted,
        limit=None,
        lazy_load_members=False,
        include_redundant_members=False,
        unread_thread_notifications=False,
    )
    return selection != filters.EVERY_ROOM_EVENT


def _looks_inside(wanted: RoomEventFilter) -> bool:
    """Whether the filter asks for more than the columns of a row tell."""
    return (
        wanted.contains_url is not None
        or wanted.related_by_rel_types is not None
        or wanted.related_by_senders is not None
    )


def _behind(walk: Walk, position: int) -> int:
    """The place of a token just behind an event, seen in the direction of the walk."""
    return position - 1 if walk.is_backwards else position


def _end_of(walk: Walk, found: Page) -> int:
    """Where a page ends, also when there is nothing more."""
    if found.end is not None:
        return found.end
    return _behind(walk, found.events[-1].position) if found.events else walk.start
