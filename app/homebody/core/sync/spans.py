"""Sync tokens, and spans: the part of a room's history that a response covers.

A token is a position on the server's clock, as clients keep it. `s1234` is the place between
position 1234 and the next one: paging backwards from it shows the events up to 1234, forwards those
after it. A token of /sync may have a second part, `s1234_567`: what the client has seen of what is
kept in memory only (typing, presence). With `q` behind it, the client shows nobody who types: after
a restart there is nothing to take back. Every endpoint that takes a token takes all forms.

A span reaches from one place to another, and `fill` finds its timeline.

One statement finds the events of all rooms: their spans are passed as one list, and the database
looks each of them up by its index. There is no query per room.

Only a filter needs a search of each room. It reads a bounded number of events; if it ends before
the beginning of the span, the timeline is limited, and its token continues from there.
Spec: client-server-api#syncing (timeline, limited, prev_batch)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core.events import client_events, state, visibility
from homebody.core.events.history_visibility import History
from homebody.core.timeline import gaps
from homebody.core.user_data import account_data
from homebody.models.base import EventNumber
from homebody.models.events import StoredEvent
from homebody.runtime import event_loop
from homebody.spec import filters
from homebody.spec.events import StateKey
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import item, listed

DEFAULT_LIMIT = 10
MAX_LIMIT = 500
_SCANNED_AT_ONCE: Final = 200
_MAX_SCANNED: Final = 5000
"""Events of a room that are searched for those that a filter admits."""
_MAX_SCANNED_IN_ALL: Final = 50_000
"""The same for all rooms of a response; one batch of each room is searched in any case."""
_DECODED: Final = 5
"""The cost of an event that has to be decoded for the filter, in events that have not."""
ROOMS_BETWEEN_PAUSES = 20

_TOKEN: Final = re.compile(
    r"s([0-9]{1,18})(?:_([0-9]{1,18})(q?))?(?:~[0-9]{1,18}q?\.[A-Za-z0-9_-]{16})?"
)
"""18 digits are enough for 30 years of a change per nanosecond, and fit SQLite's integers. The last
part is that of a `pos` of sliding sync, which is such a token too."""

_SPANS = listed("spans")
_Newest = aliased(StoredEvent)
_NEWEST_OF_SPAN = (
    select(_Newest.number)
    .where(
        _Newest.room_id == item(_SPANS, 0),
        _Newest.position > item(_SPANS, 1),
        _Newest.position <= item(_SPANS, 2),
    )
    .order_by(_Newest.position.desc())
    .limit(bindparam("count"))
    .correlate(_SPANS)
)
_NEWEST = (
    select(StoredEvent.room_id, StoredEvent.position, StoredEvent.number)
    .select_from(_SPANS)
    .join(StoredEvent, StoredEvent.number.in_(_NEWEST_OF_SPAN))
    .order_by(StoredEvent.position)
)
_DOWN_FROM = (
    select(
        StoredEvent.number,
        StoredEvent.position,
        StoredEvent.type,
        StoredEvent.sender,
        StoredEvent.rel_type,
    )
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.position > bindparam("since"),
        StoredEvent.position <= bindparam("upto"),
    )
    .order_by(StoredEvent.position.desc())
    .limit(bindparam("count"))
)

_Event = tuple[int, EventNumber]
"""(position, number)"""


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A place between two changes. `str` returns the form for clients."""

    position: int
    """On the clock: the last change before the token."""
    ephemeral: int | None = None
    """The same for what is kept in memory only; None if the token does not say."""
    is_quiet: bool = False
    """Whether the client shows nobody who types; False if the token does not say."""

    @classmethod
    def parse(cls, text: str, upto: int | None) -> SyncToken:
        """Return the token in a request; `upto` is the position of the clock, None: do not check.

        Raises M_INVALID_PARAM for what this server cannot have given out.
        """
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise errors.invalid_param("That is not a token of this server")
        position, ephemeral, quiet = match.groups()
        if upto is not None and int(position) > upto:
            raise errors.invalid_param("That token is from the future")
        return cls(int(position), None if ephemeral is None else int(ephemeral), bool(quiet))

    def __str__(self) -> str:
        if self.ephemeral is None:
            return f"s{self.position}"
        return f"s{self.position}_{self.ephemeral}{'q' if self.is_quiet else ''}"


@dataclass(slots=True)
class Span:
    """One room of a response: the events after `since`, up to `upto`."""

    room_id: str
    since: int
    """What the client has seen of this room; 0: nothing."""
    upto: int
    timeline: list[ClientEvent] = field(default_factory=list)
    is_limited: bool = False
    """Whether the span has older events than the timeline."""
    is_filtered: bool = False
    """Whether a filter may have left out events between those of the timeline."""
    unread_upto: int = 0
    """The position where the search for a filter stopped; 0: it searched the whole span."""
    is_ignored: bool = False
    """Whether all new events are from ignored users."""
    boundary: int = 0
    """The timeline begins after this position, for which the state section has the state."""
    reset_at: int = 0
    """The last position in the span at which state changed without an event in the timeline, as
    state resolution does; 0: none."""
    history: History | None = None
    """What the user may see of a room that they have left; None: they are in it."""

    @property
    def state_upto(self) -> int | None:
        """The last position whose state the user may see, if they are not in the room."""
        return None if self.history is None else self.history.joined_until

    @property
    def is_new(self) -> bool:
        """Whether the room is new to the client."""
        return self.since == 0

    @property
    def has_hidden_changes(self) -> bool:
        """Whether the timeline may lack changes of state that happened during it."""
        return self.is_filtered or self.reset_at > self.boundary


def fill(
    tx: Reader,
    user_id: str,
    spans: list[Span],
    event_filter: RoomEventFilter,
    *,
    is_after: bool = True,
) -> None:
    """Find the timeline of each span.

    `is_after`: the client gets the state at the end of the timeline, whatever the events in it say.
    """
    limit = min(DEFAULT_LIMIT if event_filter.limit is None else event_filter.limit, MAX_LIMIT)
    is_filtered = event_filter != _only_limited(event_filter)
    if is_filtered:
        found = _all_admitted(tx, spans, event_filter, limit + 1)
    else:
        found = _newest(tx, spans, limit + 1)
    numbers = [it[1] for room in found.values() for it in room[-limit:]] if limit else []
    events = {event.number: event for event in client_events.load(tx, numbers)}
    first = min((span.since for span in spans), default=0)
    resets = state.resets(tx, [span.room_id for span in spans], first)
    holes: Mapping[str, int] = {}
    if tx.server.config.federation:
        holes = gaps.newest_of_spans(tx, [(it.room_id, it.since, it.upto) for it in spans])
    for span in tx.pausing(spans, ROOMS_BETWEEN_PAUSES):
        shown = found.get(span.room_id, [])
        is_cut = len(shown) > limit
        shown = shown[len(shown) - limit :] if is_cut else shown
        span.is_limited = is_cut or span.unread_upto > 0
        span.is_filtered = is_filtered
        span.boundary = shown[0][0] - 1 if shown else span.upto
        if span.unread_upto and not is_cut:
            span.boundary = span.unread_upto
        if (hole := holes.get(span.room_id)) is not None:
            shown = _begin_after_gap(span, shown, hole)
        there = [events[number] for _, number in shown if number in events]
        if span.history is None:
            seen = visibility.visible(tx, user_id, span.room_id, there)
        else:
            seen = [event for event in there if span.history.shows(event)]
        if len(seen) < len(there):
            seen = _after_hidden_state(span, there, seen)
        wanted = account_data.without_ignored(tx, user_id, seen)
        span.timeline = client_events.hide(tx, user_id, wanted)
        if (reset_at := resets.get(span.room_id, 0)) > span.since:
            span.reset_at = reset_at
            if span.has_hidden_changes and not is_after:
                _begin_after_lost_state(tx, span)
        span.is_ignored = bool(seen) and not (
            span.timeline or span.is_limited or span.is_filtered or span.reset_at
        )


def _begin_after_gap(span: Span, shown: list[_Event], hole: int) -> list[_Event]:
    """Let the timeline begin where events are missing, and return its events."""
    span.is_limited = True
    span.boundary = max(span.boundary, hole - 1)
    return [it for it in shown if it[0] >= hole]


def _begin_after_lost_state(tx: Reader, span: Span) -> None:
    """Let the timeline begin after the last event that is not the state at its end.

    A client that takes the state before the timeline takes each state event in it for the state
    from then on. What state resolution has put in place of one is in the state section. The name of
    a member alone is not worth losing the timeline for.
    """
    last = {
        (event.type, event.state_key): event
        for event in span.timeline
        if event.state_key is not None
    }
    upto = span.upto if span.state_upto is None else min(span.upto, span.state_upto)
    held = state.numbers_at(tx, span.room_id, last.keys(), upto) if last else {}
    lost = [event for key, event in last.items() if held.get(key) != event.number]
    names = _names(tx, lost, held)
    positions = [event.position for event in lost if event.number not in names]
    if positions:
        span.boundary = max(positions)
        span.is_limited = True
        span.timeline = [it for it in span.timeline if it.position > span.boundary]


def _names(
    tx: Reader, lost: list[ClientEvent], held: Mapping[StateKey, EventNumber]
) -> set[EventNumber]:
    """Return those of the events that differ from the state in the name or avatar of a member."""
    now = {
        (event.type, event.state_key): event
        for event in client_events.load(tx, list(held.values()) if lost else [])
    }
    return {
        event.number
        for event in lost
        if event.type == state.MEMBER
        and (other := now.get((event.type, event.state_key))) is not None
        and other.content.get("membership") == event.content.get("membership")
    }


def _after_hidden_state(
    span: Span, there: list[ClientEvent], seen: list[ClientEvent]
) -> list[ClientEvent]:
    """Return the visible events after the last hidden state event, where the timeline begins.

    A user who may not see the hidden event may know the state all the same: from its section.
    """
    upto = span.upto if span.state_upto is None else span.state_upto
    shown = {event.position for event in seen}
    hidden = [
        event.position
        for event in there
        if event.state_key is not None and event.position not in shown and event.position <= upto
    ]
    if not hidden:
        return seen
    span.boundary = hidden[-1]
    span.is_limited |= seen[:1] != [] and seen[0].position < span.boundary
    return [event for event in seen if event.position > span.boundary]


def _only_limited(event_filter: RoomEventFilter) -> RoomEventFilter:
    """Return the filter without the criteria that leave events out."""
    return RoomEventFilter(
        limit=event_filter.limit,
        lazy_load_members=event_filter.lazy_load_members,
        include_redundant_members=event_filter.include_redundant_members,
        unread_thread_notifications=event_filter.unread_thread_notifications,
    )


def _newest(tx: Reader, spans: Iterable[Span], count: int) -> dict[str, list[_Event]]:
    """Return {room_id: its newest events, oldest first}."""
    found: dict[str, list[_Event]] = {}
    recent = tx.caches.recent
    in_memory: dict[str, Span] = {}
    others: list[tuple[str, int, int]] = []
    for span in spans:
        if recent.knows(span.since, span.upto):
            in_memory[span.room_id] = span
        else:
            others.append((span.room_id, span.since, span.upto))
    if in_memory:
        first = min(span.since for span in in_memory.values())
        last = max(span.upto for span in in_memory.values())
        for position, room_id, number in recent.events(first, last):
            known = in_memory.get(room_id)
            if known is not None and known.since < position <= known.upto:
                found.setdefault(room_id, []).append((position, number))
        found = {room_id: events[-count:] for room_id, events in found.items()}
    if others:
        asked = {"spans": others, "count": count}
        for room_id, position, number in tx.sql.execute(_NEWEST, asked):
            found.setdefault(room_id, []).append((int(position or 0), number))
    return found


def _all_admitted(
    tx: Reader, spans: Iterable[Span], event_filter: RoomEventFilter, count: int
) -> dict[str, list[_Event]]:
    """Return {room_id: the newest events that a filter admits, oldest first}."""
    left = _MAX_SCANNED_IN_ALL
    found: dict[str, list[_Event]] = {}
    for span in spans:
        found[span.room_id], scanned = _admitted(
            tx, span, event_filter, count, min(_MAX_SCANNED, left)
        )
        left -= scanned
    return found


def _admitted(
    tx: Reader, span: Span, event_filter: RoomEventFilter, count: int, most: int
) -> tuple[list[_Event], int]:
    """Return (the newest events that a filter admits, cost of the search in events).

    Sets `unread_upto` of a span of which `most` events were not all.
    """
    admitted: list[_Event] = []
    upto, scanned = span.upto, 0
    if not filters.admits_room(event_filter, span.room_id):
        return admitted, scanned
    while len(admitted) < count:
        if scanned and scanned >= most:
            span.unread_upto = upto
            break
        asked = {
            "room_id": span.room_id,
            "since": span.since,
            "upto": upto,
            "count": _SCANNED_AT_ONCE,
        }
        rows = tx.sql.execute(_DOWN_FROM, asked).all()
        some, cost = _admitted_of(tx, span.room_id, rows, event_filter)
        admitted += some
        scanned += cost
        if len(rows) < _SCANNED_AT_ONCE:
            break
        upto = rows[-1].position - 1
        event_loop.pause()
    return sorted(admitted[:count]), scanned


def _admitted_of(
    tx: Reader, room_id: str, rows: Sequence[Any], event_filter: RoomEventFilter
) -> tuple[list[_Event], int]:
    """Return (those of the rows that a filter admits, cost of the search in events).

    Only what the columns do not keep out is decoded.
    """
    by_columns = msgspec.structs.replace(event_filter, contains_url=None)
    some: list[_Event] = [
        (row.position, row.number)
        for row in rows
        if filters.matches(by_columns, row.type, row.sender, room_id, rel_type=row.rel_type)
    ]
    if event_filter.contains_url is None:
        return some, len(rows)
    found = [
        (event.position, event.number)
        for event in client_events.load(tx, [number for _, number in some])
        if ("url" in event.content) == event_filter.contains_url
    ]
    return found, len(rows) + _DECODED * len(some)
