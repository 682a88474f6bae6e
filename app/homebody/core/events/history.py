"""A room's history: pages in both directions, single events, and the events around one.

Spec: client-server-api#get_matrixclientv3roomsroomidmessages, client-server-api#event-context
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Select, bindparam, exists, select

from homebody import errors
from homebody.core.events import client_events, members, paging, state, visibility
from homebody.core.events.paging import Page, PageRequest
from homebody.core.user_data import account_data
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import in_effect, item, listed

NEAR_EVENTS = 10
"""Read to find the one nearest to a time; mostly the first is visible. Else the database looks."""

_STATE = select(StateInterval.event_number).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    in_effect(StateInterval, bindparam("position")),
)
_SPANS = listed("spans")
_VISIBLE = (
    select(item(_SPANS, 0).label("first"), item(_SPANS, 1).label("last"))
    .cte("visible")
    .prefix_with("MATERIALIZED")
)
_IS_VISIBLE = exists().where(StoredEvent.position.between(_VISIBLE.c.first, _VISIBLE.c.last))


def _near(*, is_backwards: bool) -> Select[*tuple[Any, ...]]:
    """Return a query for the next `count` events at or after a time, or at or before it."""
    ts, position = StoredEvent.origin_server_ts, StoredEvent.position
    return (
        select(*paging.COLUMNS, StoredEvent.event_id, ts)
        .where(
            StoredEvent.room_id == bindparam("room_id"),
            ts <= bindparam("ts") if is_backwards else ts >= bindparam("ts"),
            position.is_not(None),
        )
        .order_by(*((ts.desc(), position.desc()) if is_backwards else (ts, position)))
        .limit(bindparam("count"))
    )


NEAR = {is_backwards: _near(is_backwards=is_backwards) for is_backwards in (False, True)}
_FIRST_VISIBLE = {is_backwards: query.where(_IS_VISIBLE) for is_backwards, query in NEAR.items()}
"""These look at the index alone until an event is visible."""


class Context(NamedTuple):
    """An event, the pages before and after it, and the room's state there."""

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
    """Return a page of a room's events, as `requested` describes it."""
    request = requested(
        tx,
        user_id,
        room_id,
        start=start,
        stop=stop,
        is_backwards=is_backwards,
        limit=limit,
        wanted=wanted,
    )
    found = page(tx, request)
    return found if start is None else found._replace(start=start)


def requested(
    tx: Reader,
    user_id: str,
    room_id: str,
    *,
    start: int | None,
    stop: int | None,
    is_backwards: bool,
    limit: int,
    wanted: RoomEventFilter,
) -> PageRequest:
    """Return a page of a room's events from one position towards another; None: its end.

    Users who have left see what was before the leave. Raises M_FORBIDDEN as visibility.may_read.
    """
    last = visibility.upto(tx, user_id, room_id)
    after, upto = paging.bounds(start, stop, last, is_backwards=is_backwards)
    limit = limit if wanted.limit is None else min(limit, wanted.limit)
    return PageRequest(room_id, user_id, after, upto, is_backwards, limit, wanted)


def page(tx: Reader, request: PageRequest) -> Page:
    """Return a page of /messages."""
    found = paging.page(tx, request)
    is_last = request.is_backwards and found.end is None
    if is_last and found.events and _is_selective(request.wanted):
        # Deviates: "if no further events are available, this property is omitted". A page that a
        # filter thinned out does not show that it reaches the beginning of the room; Synapse, and
        # clients that were written against it, go on to the page that is empty.
        return found._replace(end=request.after)
    return found


def event(tx: Reader, user_id: str, event_id: str, room_id: str | None = None) -> ClientEvent:
    """Return an event. Raises M_NOT_FOUND where the user may not see it, or ignores its sender."""
    found = seen(tx, user_id, event_id, room_id)
    if not account_data.without_ignored(tx, user_id, [found]):
        raise errors.not_found("The sender of this event is a user whom you ignore")
    return found


def seen(tx: Reader, user_id: str, event_id: str, room_id: str | None = None) -> ClientEvent:
    """Return an event. Raises M_NOT_FOUND where the user may not see it."""
    found = client_events.find(tx, event_id)
    if (
        found is None
        or room_id not in {None, found.room_id}
        or not visibility.visible(tx, user_id, found.room_id, [found])
        or visibility.is_closed_by_forgetting(tx, user_id, found.room_id)
    ):
        raise errors.not_found("There is no such event, or you may not see it")
    return client_events.hide(tx, user_id, [found])[0]


def context(
    tx: Reader, user_id: str, room_id: str, event_id: str, limit: int, wanted: RoomEventFilter
) -> Context:
    """Return an event with up to `limit` events around it. Raises M_NOT_FOUND as `event` does.

    Both pages have an `end`, from which to go on in their direction.
    """
    if wanted.limit is not None:
        limit = min(limit, wanted.limit)
    centre = event(tx, user_id, event_id, room_id)
    at = centre.position
    back = PageRequest(
        room_id, user_id, 0, at - 1, is_backwards=True, limit=limit // 2, wanted=wanted
    )
    before = paging.page(tx, back)
    forth = replace(
        back, after=at, upto=tx.position, is_backwards=False, limit=limit - len(before.events)
    )
    after = paging.page(tx, forth)
    shown = [*before.events, centre, *after.events]
    last = max(it.position for it in shown)
    return Context(
        centre,
        with_end(back, before),
        with_end(forth, after),
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
    """Return the room's state after a position as the user may see it, as far as wanted.

    With lazy loading it has the member events of the senders only.
    """
    return client_events.hide(tx, user_id, whole_state_at(tx, room_id, position, wanted, senders))


def whole_state_at(
    tx: Reader, room_id: str, position: int, wanted: RoomEventFilter, senders: Iterable[str]
) -> list[ClientEvent]:
    """Return what `state_at` returns, with nothing hidden."""
    query = _STATE
    if wanted.lazy_load_members:
        query = query.where(StateInterval.type != state.MEMBER)
    found = tx.sql.execute(query, {"room_id": room_id, "position": position}).scalars()
    events = client_events.load(tx, sorted(found))
    if wanted.lazy_load_members:
        events += members.of_users(tx, room_id, frozenset(senders), position)
    return [it for it in events if paging.matches(it, wanted)]


def state_of(tx: Reader, user_id: str, room_id: str) -> list[ClientEvent]:
    """Return the state of a room as it is or, for users who have left, as it was then.

    Raises M_FORBIDDEN as visibility.may_read.
    """
    last = visibility.upto(tx, user_id, room_id)
    return state_at(tx, user_id, room_id, last, filters.EVERY_ROOM_EVENT, ())


def senders_of(
    tx: Reader, user_id: str, room_id: str, events: list[ClientEvent]
) -> list[ClientEvent]:
    """Return the member events of the senders, as they were at the newest of the events."""
    if not events:
        return []
    newest = max(it.position for it in events)
    found = members.of_users(tx, room_id, {it.sender for it in events}, newest)
    return client_events.hide(tx, user_id, found)


def near(tx: Reader, user_id: str, room_id: str, ts: int, *, is_backwards: bool) -> tuple[str, int]:
    """Return (event ID, origin_server_ts) of the event nearest to a time, in one direction.

    `ts` in ms. Raises M_NOT_FOUND where the user sees none, M_FORBIDDEN as visibility.may_read.
    """
    visibility.may_read(tx, user_id, room_id)
    values: dict[str, object] = {"room_id": room_id, "ts": ts, "count": NEAR_EVENTS}
    events = tx.sql.execute(NEAR[is_backwards], values).all()
    found = visibility.visible(tx, user_id, room_id, events)
    if not found and len(events) == NEAR_EVENTS:
        spans = visibility.history(tx, user_id, room_id).spans()
        found = tx.sql.execute_long(
            _FIRST_VISIBLE[is_backwards], {**values, "spans": spans, "count": 1}
        )
    if not found:
        raise errors.not_found("There is no event in this direction")
    return found[0].event_id, found[0].origin_server_ts


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


def with_end(request: PageRequest, page: Page) -> Page:
    """Return the page with an end, also where there is nothing more."""
    return page if page.end is not None else page._replace(end=request.end(page.events))
