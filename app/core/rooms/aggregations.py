"""What is told with an event about the events that relate to it: its edit, thread and references.

`bundles` asks for the children of all events of an answer by one statement, in which a thread is
one row however long it is. It says nothing of redacted children, of those that the user may not
see, and of what ignored users have said. State events have no bundles.
Spec: client-server-api#aggregations-of-child-events,
client-server-api#server-side-aggregation-of-mreplace-relationships,
client-server-api#server-side-aggregation-of-mthread-relationships,
client-server-api#server-side-aggregation-of-mreference
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import orjson
from sqlalchemy import Select, bindparam, case, func, literal, select

from app.caches import ClientEvent, Requester
from app.core.people import ignored_users
from app.core.rooms import client_events, encoding, erasure, rows, visibility
from app.db import Reader
from app.models.events import StoredEvent
from app.spec.events import Json

REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"
REFERENCE: Final = "m.reference"
ENCRYPTED: Final = "m.room.encrypted"

Children = dict[str, list[rows.AnyRow]]
"""Rows of _COLUMNS by the event to which they relate."""

_PARENTS = func.json_each(bindparam("parents")).table_valued("value")
_IGNORED = func.json_each(bindparam("ignored")).table_valued("value")
_COLUMNS = (
    StoredEvent.relates_to,
    StoredEvent.rel_type,
    StoredEvent.room_id,
    func.count().label("number"),
    func.min(StoredEvent.position).label("first"),
    func.max(StoredEvent.position).label("position"),
    func.max(StoredEvent.event_id).label("event_id"),
    func.max(StoredEvent.type).label("type"),
    func.max(StoredEvent.state_key).label("state_key"),
    func.max(StoredEvent.sender).label("sender"),
    func.max(StoredEvent.origin_server_ts).label("origin_server_ts"),
    func.max(case((StoredEvent.sender == bindparam("reader"), 1), else_=0)).label("is_own"),
)
# The rooms are compared in Python: with them here, SQLite reads all of a room instead
_CHILDREN = select(*_COLUMNS).where(
    StoredEvent.relates_to.in_(select(_PARENTS.c.value)),
    StoredEvent.rel_type.in_((REPLACE, THREAD, REFERENCE)),
    StoredEvent.redacted_by.is_(None),
    StoredEvent.sender.not_in(select(_IGNORED.c.value)),
)
_SUMMED_UP = _CHILDREN.group_by(
    StoredEvent.relates_to,
    StoredEvent.rel_type,
    StoredEvent.room_id,
    case((StoredEvent.rel_type == THREAD, literal(0)), else_=StoredEvent.position),
)
_ONE_BY_ONE = _CHILDREN.group_by(StoredEvent.position)


def bundles(tx: Reader, requester: Requester, events: Collection[ClientEvent]) -> dict[str, Json]:
    """{event_id: its `m.relations`} of those events that have children to tell of."""
    parents = {event.event_id: event for event in events if event.state_key is None}
    children = _children(tx, requester.user_id, parents) if parents else {}
    if not children:
        return {}
    shown = _shown(tx, requester.user_id, parents, children)
    latest = [shown[_latest(found)] for found in map(_threaded, children.values()) if found]
    # threads have none below them, so this goes down by one step
    below = bundles(tx, requester, latest) if latest else {}
    found: dict[str, Json] = {}
    for event_id, its_children in children.items():
        parent, relations = parents[event_id], dict[str, object]()
        edit = _edit(tx, parent, its_children, shown)
        if edit is not None:
            relations[REPLACE] = encoding.encode(tx, requester, edit)
        if thread := _threaded(its_children):
            last = shown[_latest(thread)]
            relations[THREAD] = {
                "latest_event": encoding.encode(tx, requester, last, bundles=below),
                "count": sum(row.number for row in thread),
                "current_user_participated": parent.sender == requester.user_id
                or any(row.is_own for row in thread),
            }
        if references := [row.event_id for row in its_children if row.rel_type == REFERENCE]:
            relations[REFERENCE] = {"chunk": [{"event_id": it} for it in references]}
        if relations:
            found[event_id] = relations
    return found


def _children(tx: Reader, user_id: str, parents: Mapping[str, ClientEvent]) -> Children:
    """What relates to these events, as far as it counts and the user may see it."""
    ignored = ignored_users.of(tx, user_id)
    found = _among(tx, _SUMMED_UP, user_id, ignored, parents)
    by_room: dict[str, list[rows.AnyRow]] = {}
    for row in found:
        by_room.setdefault(row.room_id, []).append(row)
    children: Children = {}
    for room_id, some in by_room.items():
        seen = some
        if not visibility.sees_all_since(tx, user_id, room_id, min(row.first for row in some)):
            asked = {it: parents[it] for it in {row.relates_to for row in some}}
            each = _among(tx, _ONE_BY_ONE, user_id, ignored, asked)
            seen = visibility.visible(tx, user_id, room_id, each)
        for row in seen:
            children.setdefault(row.relates_to, []).append(row)
    return children


def _among(
    tx: Reader,
    query: Select[*tuple[object, ...]],
    user_id: str,
    ignored: frozenset[str],
    parents: Mapping[str, ClientEvent],
) -> list[rows.AnyRow]:
    """The children of these events in the order of time; threads only where there can be one."""
    asked = {
        "parents": orjson.dumps(list(parents)).decode(),
        "ignored": orjson.dumps(list(ignored)).decode(),
        "reader": user_id,
    }
    found = [
        row
        for row in tx.sql.execute(query, asked)
        if row.room_id == parents[row.relates_to].room_id
        and (row.rel_type != THREAD or parents[row.relates_to].rel_type is None)
    ]
    return sorted(found, key=lambda row: row.position)


def _shown(
    tx: Reader, user_id: str, parents: Mapping[str, ClientEvent], children: Children
) -> dict[int, ClientEvent]:
    """The events that go into the bundles, by position: last of threads, and what are likely edits.

    All are asked for at once.
    """
    wanted = {_latest(found) for found in map(_threaded, children.values()) if found}
    for event_id, its_children in children.items():
        wanted.update(row.position for row in _edits(parents[event_id], its_children)[:1])
    events = erasure.hide(tx, user_id, client_events.load(tx, sorted(wanted)))
    return {event.position: event for event in events}


def _threaded(children: Iterable[rows.AnyRow]) -> list[rows.AnyRow]:
    return [row for row in children if row.rel_type == THREAD]


def _latest(children: Iterable[rows.AnyRow]) -> int:
    return max(int(row.position) for row in children)


def _edits(parent: ClientEvent, children: Iterable[rows.AnyRow]) -> list[rows.AnyRow]:
    """What may replace the event as far as columns tell, the most recent first.

    Spec: client-server-api#validity-of-replacement-events
    """
    if parent.rel_type == REPLACE or client_events.is_redacted(parent):
        return []
    edits = [
        row
        for row in children
        if row.rel_type == REPLACE
        and (row.sender, row.type) == (parent.sender, parent.type)
        and row.state_key is None
    ]
    return sorted(edits, key=lambda row: (row.origin_server_ts, row.event_id), reverse=True)


def _edit(
    tx: Reader,
    parent: ClientEvent,
    children: Iterable[rows.AnyRow],
    shown: Mapping[int, ClientEvent],
) -> ClientEvent | None:
    """The most recent valid replacement of an event."""
    for row in _edits(parent, children):
        event = shown.get(row.position) or client_events.load(tx, [row.position])[0]
        # an encrypted one has its new content inside
        if event.type == ENCRYPTED or isinstance(event.content.get("m.new_content"), dict):
            return event
    return None
