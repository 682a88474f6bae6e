"""Bundled aggregations: the edit, thread and references that are sent with an event.

`bundles` reads each of the three kinds once for all events of a response, by an index that holds
nothing else. So an event costs the same to read however many reactions or invalid edits it has; a
thread is one row however long it is. Redacted children, those that the user may not see, and those
of ignored users are left out. State events have no bundles.
Spec: client-server-api#aggregations-of-child-events,
client-server-api#server-side-aggregation-of-mreplace-relationships,
client-server-api#server-side-aggregation-of-mthread-relationships,
client-server-api#server-side-aggregation-of-mreference
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Select, bindparam, case, exists, func, literal_column, select
from sqlalchemy.orm import aliased

from homebody.core.events import client_events, visibility
from homebody.core.events.relations import REFERENCE, REPLACE, THREAD
from homebody.core.user_data import account_data
from homebody.models.base import EventNumber
from homebody.models.events import StoredEvent
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader
from homebody.storage.expressions import item, listed

_ROOMS_BETWEEN_PAUSES: Final = 50
# Deviates: the specification lists all references. Users may make thousands of them, and
# /relations lists them page by page.
MAX_REFERENCES: Final = 100
"""The number of references in the bundle of one event: the latest."""

Range = tuple[int, int]
"""(first, last) position."""

_PARENTS = listed("parents")
_Child = aliased(StoredEvent)
_IN_RANGES = visibility.within(_Child.position)
_NOT_IGNORED = _Child.sender.not_in(bindparam("ignored", expanding=True))


class _Thread(NamedTuple):
    """A thread, as far as a reader may see it."""

    replies: int
    latest: EventNumber | None
    """The last event."""
    is_own: bool
    """Whether the reader has sent an event in it."""


class _Part(NamedTuple):
    """Events that are read together, and the parameters of the statements."""

    parents: list[ClientEvent]
    ranges: list[Range] | None
    """The positions that the reader may see; None: all."""
    values: Json


def _of_kind(rel_type: str) -> ColumnElement[bool]:
    # not a parameter, so that SQLite can use the partial index with this condition
    return _Child.rel_type == literal_column(f"'{rel_type}'")


def _thread_query(*conditions: ColumnElement[bool]) -> Select[str | None, int, Any, Any]:
    return (
        select(
            _Child.thread_id,
            func.count(),
            func.max(_Child.position),
            func.max(case((_Child.sender == bindparam("reader"), 1), else_=0)),
        )
        .where(
            _Child.thread_id.in_(bindparam("parents", expanding=True)),
            _of_kind(THREAD),
            _Child.position.is_not(None),
            _NOT_IGNORED,
            *conditions,
        )
        .group_by(_Child.thread_id)
    )


def _reference_query(*conditions: ColumnElement[bool]) -> Select[str | None, str]:
    newest = (
        select(_Child.number)
        .where(
            _Child.relates_to == item(_PARENTS, 0),
            _Child.room_id == item(_PARENTS, 1),
            _of_kind(REFERENCE),
            _Child.position.is_not(None),
            _NOT_IGNORED,
            *conditions,
        )
        .order_by(_Child.position.desc())
        .limit(MAX_REFERENCES)
        .correlate(_PARENTS)
    )
    return (
        select(StoredEvent.relates_to, StoredEvent.event_id)
        .select_from(_PARENTS)
        .join(StoredEvent, StoredEvent.number.in_(newest))
        .order_by(StoredEvent.position)
    )


def _edit_query(*conditions: ColumnElement[bool]) -> Select[EventNumber, EventNumber | None]:
    last = (
        select(_Child.number)
        .where(_Child.edit_of == _PARENTS.c.value, _Child.position.is_not(None), *conditions)
        .order_by(_Child.origin_server_ts.desc(), _Child.event_id.desc())
        .limit(1)
        .correlate(_PARENTS)
        .scalar_subquery()
    )
    return select(_PARENTS.c.value, last)


_WITH_CHILDREN = select(_PARENTS.c.value).where(
    exists().where(_Child.relates_to == _PARENTS.c.value).correlate(_PARENTS)
)
_THREADS, _SEEN_OF_THREADS = _thread_query(), _thread_query(_IN_RANGES)
_REFERENCES, _SEEN_REFERENCES = _reference_query(), _reference_query(_IN_RANGES)
_EDITS, _SEEN_EDITS = _edit_query(), _edit_query(_IN_RANGES)


def bundles(tx: Reader, requester: Requester, events: Collection[ClientEvent]) -> dict[str, Json]:
    """Return {event_id: its `m.relations`} for the events that have any."""
    parents = _with_children(tx, [event for event in events if event.state_key is None])
    if not parents:
        return {}
    threads: dict[str, _Thread] = {}
    references: dict[str, list[str]] = {}
    edits: dict[str, EventNumber] = {}
    for part in _parts(tx, requester.user_id, parents):
        threads |= _threads(tx, part)
        references |= _references(tx, part)
        edits |= _edits(tx, part)
    if not (threads or references or edits):
        return {}
    shown = _shown(tx, requester, threads, edits)
    found: dict[str, Json] = {}
    for parent in parents:
        relations: Json = {}
        if (at := edits.get(parent.event_id)) in shown:
            relations[REPLACE] = shown[at]
        if (thread := threads.get(parent.event_id)) and thread.latest in shown:
            relations[THREAD] = {
                "latest_event": shown[thread.latest],
                "count": thread.replies,
                "current_user_participated": thread.is_own or parent.sender == requester.user_id,
            }
        if ids := references.get(parent.event_id):
            relations[REFERENCE] = {"chunk": [{"event_id": it} for it in ids]}
        if relations:
            found[parent.event_id] = relations
    return found


def encode_all(
    tx: Reader,
    requester: Requester,
    events: Sequence[ClientEvent],
    known: Mapping[str, Json] | None = None,
) -> list[orjson.Fragment]:
    """Return events with their bundles as JSON for one device; `known` are bundles made before."""
    if known is None:
        known = bundles(tx, requester, events)
    return client_events.encode_all(tx, requester, events, bundles=known)


def as_json(tx: Reader, requester: Requester, event: ClientEvent) -> Json:
    """Return an event with its bundles as an object."""
    decoded: Json = orjson.loads(orjson.dumps(encode_all(tx, requester, [event])[0]))
    return decoded


def _with_children(tx: Reader, events: list[ClientEvent]) -> list[ClientEvent]:
    """Return the events to which others relate: usually few, and only these need more queries."""
    if not events:
        return []
    asked = {"parents": [event.event_id for event in events]}
    found = set(tx.sql.execute(_WITH_CHILDREN, asked).scalars())
    return [event for event in events if event.event_id in found]


def _parts(tx: Reader, user_id: str, parents: Iterable[ClientEvent]) -> Iterator[_Part]:
    """Yield the events of each room of which the user may not see all, then all others."""
    values: Json = {"reader": user_id, "ignored": account_data.ignored_users(tx, user_id)}
    by_room: dict[str, list[ClientEvent]] = {}
    for event in parents:
        by_room.setdefault(event.room_id, []).append(event)
    whole: list[ClientEvent] = []
    for room_id, some in tx.pausing(by_room.items(), _ROOMS_BETWEEN_PAUSES):
        first = min(event.position for event in some)
        if visibility.sees_all_since(tx, user_id, room_id, first):
            whole += some
            continue
        ranges = visibility.history(tx, user_id, room_id).ranges(first, tx.position)
        yield _Part(some, ranges, {**values, "ranges": ranges})
    if whole:
        yield _Part(whole, None, values)


def _threads(tx: Reader, part: _Part) -> dict[str, _Thread]:
    # an event that relates to another can't be the root of a thread
    roots = [event.event_id for event in part.parents if event.rel_type is None]
    query = _THREADS if part.ranges is None else _SEEN_OF_THREADS
    found = list(tx.sql.execute(query, {**part.values, "parents": roots}))
    rooms = {event.event_id: event.room_id for event in part.parents}
    numbers = client_events.numbers_at(tx, [(rooms[root], latest) for root, _, latest, _ in found])
    return {
        root: _Thread(count, numbers.get((rooms[root], latest)), bool(is_own))
        for root, count, latest, is_own in found
    }


def _references(tx: Reader, part: _Part) -> dict[str, list[str]]:
    """Return {event_id: ids of the events that refer to it, in their order}."""
    parents = [(event.event_id, event.room_id) for event in part.parents]
    query = _REFERENCES if part.ranges is None else _SEEN_REFERENCES
    found: dict[str, list[str]] = {}
    for event_id, reference in tx.sql.execute(query, {**part.values, "parents": parents}):
        found.setdefault(event_id, []).append(reference)
    return found


def _edits(tx: Reader, part: _Part) -> dict[str, EventNumber]:
    """Return {event_id: number of its last valid replacement}."""
    ignored = part.values["ignored"]
    parents = {
        event.number: event.event_id
        for event in part.parents
        if not client_events.is_redacted(event) and event.sender not in ignored
    }
    query = _EDITS if part.ranges is None else _SEEN_EDITS
    found = tx.sql.execute(query, {**part.values, "parents": list(parents)})
    return {parents[of]: number for of, number in found if number is not None}


def _shown(
    tx: Reader,
    requester: Requester,
    threads: Mapping[str, _Thread],
    edits: Mapping[str, EventNumber],
) -> dict[EventNumber | None, orjson.Fragment]:
    """Return the events that go into the bundles as this reader sees them, by number.

    All are loaded at once. The last events of threads have bundles of their own; this recursion
    ends after one step, as threads don't nest. Edits by erased users are left out.
    """
    latest = {thread.latest for thread in threads.values() if thread.latest is not None}
    loaded = client_events.load(tx, sorted(latest | set(edits.values())))
    hidden = visibility.hidden_by_erasure(tx, requester.user_id, loaded)
    seen = [it for it in loaded if it.number in latest or it.number not in hidden]
    events = client_events.hide(tx, requester.user_id, seen)
    below = bundles(tx, requester, [it for it in events if it.number in latest])
    encoded = client_events.encode_all(tx, requester, events, bundles=below)
    return {event.number: one for event, one in zip(events, encoded, strict=True)}
