"""Reading rooms as administrators do: all events, also those that they may not see as users.

Nothing is hidden: neither by the history visibility, nor by an ignore list or an erasure. What was
redacted is not there any more. Only views for administrators may call this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import select

from homebody import errors
from homebody.core.events import client_events, history, paging, state
from homebody.core.events.history import Context
from homebody.core.events.paging import Page, PageRequest
from homebody.models.base import NOW_AND_LATER
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import batches

_NOBODY = ""
"""In place of the user for whom a page is read."""
_CURRENT = select(StateInterval.type, StateInterval.event_number).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.to_position == NOW_AND_LATER,
    StateInterval.event_number != state.NO_EVENT,
)


def messages(
    tx: Reader,
    room_id: str,
    *,
    start: int | None,
    stop: int | None,
    is_backwards: bool,
    limit: int,
    wanted: RoomEventFilter = filters.EVERY_ROOM_EVENT,
) -> Page:
    """Return a page of a room's events from one position towards another; None: its end.

    Of an unknown room it is empty. Filters by relations are ignored.
    """
    if wanted.limit is not None:
        limit = min(limit, wanted.limit)
    after, upto = paging.bounds(start, stop, tx.position, is_backwards=is_backwards)
    return _page(
        tx,
        PageRequest(
            room_id, _NOBODY, after, upto, is_backwards=is_backwards, limit=limit, wanted=wanted
        ),
    )


def event(tx: Reader, event_id: str) -> ClientEvent:
    """Return an event of any room, also one that is in no timeline. Raises M_NOT_FOUND."""
    known = state.find_any(tx, event_id)
    found = [] if known is None else client_events.load(tx, [known.number])
    if not found:
        raise errors.not_found("This server does not have the event")
    return found[0]


def context(
    tx: Reader, room_id: str, event_id: str, limit: int, wanted: RoomEventFilter
) -> Context:
    """Return an event of a room's timeline with up to `limit` events around it.

    Both pages have an `end`, from which to go on in their direction. Raises M_NOT_FOUND.
    """
    if wanted.limit is not None:
        limit = min(limit, wanted.limit)
    centre = client_events.find(tx, event_id)
    if centre is None or centre.room_id != room_id:
        raise errors.not_found("There is no such event in this room")
    at = centre.position
    back = PageRequest(
        room_id, _NOBODY, 0, at - 1, is_backwards=True, limit=limit // 2, wanted=wanted
    )
    before = _page(tx, back)
    forth = replace(
        back, after=at, upto=tx.position, is_backwards=False, limit=limit - len(before.events)
    )
    after = _page(tx, forth)
    shown = [*before.events, centre, *after.events]
    last = max(it.position for it in shown)
    senders = {it.sender for it in shown}
    return Context(
        centre,
        history.with_end(back, before),
        history.with_end(forth, after),
        history.whole_state_at(tx, room_id, last, wanted, senders),
    )


def near(tx: Reader, room_id: str, ts: int, *, is_backwards: bool) -> tuple[str, int]:
    """Return (event ID, origin_server_ts) of the event nearest to a time (ms), in one direction.

    Raises M_NOT_FOUND where there is none.
    """
    asked = {"room_id": room_id, "ts": ts, "count": 1}
    row = tx.sql.execute(history.NEAR[is_backwards], asked).first()
    if row is None:
        raise errors.not_found("There is no event in this direction")
    return row.event_id, row.origin_server_ts


def current_state(tx: Reader, room_id: str, event_type: str | None = None) -> list[ClientEvent]:
    """Return the room's current state, all of it or one type. Raises M_NOT_FOUND."""
    state.head(tx, room_id)
    found = tx.sql.execute(_CURRENT, {"room_id": room_id})
    numbers = [row.event_number for row in found if event_type in {None, row.type}]
    return client_events.load(tx, sorted(numbers))


def _page(tx: Reader, request: PageRequest) -> Page:
    def read(part: dict[str, object]) -> Sequence[Any]:
        query = paging.ROWS[request.is_backwards]
        return tx.sql.execute(query, {"room_id": request.room_id, **part}).all()

    found = ((_events_of(tx, request, rows), end) for rows, end in paging.in_batches(request, read))
    events, end = paging.take(found, request.limit, request.end)
    return Page(events, request.start, end)


def _events_of(tx: Reader, request: PageRequest, rows: Sequence[Any]) -> Iterator[ClientEvent]:
    """Yield the events of rows that the filter admits."""
    of_columns = msgspec.structs.replace(request.wanted, contains_url=None)
    rows = [
        it
        for it in rows
        if filters.matches(of_columns, it.type, it.sender, it.room_id, rel_type=it.rel_type)
    ]
    for some in batches(rows, request.limit + 1):
        found = client_events.load(tx, [row.number for row in some])
        yield from (it for it in found if paging.matches(it, request.wanted))
