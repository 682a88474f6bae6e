"""The state of rooms before what this server has seen, as older events tell it.

When a server joins a room, it learns the state at the join, and takes it for the state since ever
(intervals that begin at position 0). Older events, put into the timeline from the newest to the
oldest, tell more: a state event, what the state was from its position on; the member event that an
event cites, that its sender was a member then. Entries that differ from a later one end where that
begins. So the history visibility and the names of members are found by the same queries, however
old the events are.

When a user of another server joined is never taken for "since ever": what they may read depends on
it. Current state doesn't change. This module and state_changes.py write the table state_intervals.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, insert, select

from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import StateKey
from homebody.storage.database import Tx
from homebody.storage.expressions import listed

SINCE_EVER: Final = 0
"""`from_position` of what was the state already when this server joined."""


class Seen(NamedTuple):
    """An entry of the state of a room at a position."""

    position: int
    key: StateKey
    number: EventNumber
    """Of the event."""
    membership: str | None
    """Of the event of a member."""
    is_event: bool
    """Whether the event stands at that position; else another event there cites it."""


@dataclass(slots=True)
class Interval:
    """A time in which an event was the state for a key."""

    begin: int
    end: int
    number: EventNumber
    membership: str | None


_NUMBERS = listed("numbers")
_INTERVALS = (
    select(
        StateInterval.type,
        StateInterval.state_key,
        StateInterval.from_position,
        StateInterval.to_position,
        StateInterval.event_number,
        StateInterval.membership,
    )
    .select_from(state.INTERVALS_OF_KEYS)
    .where(Room.room_id == bindparam("room_id"), StateInterval.from_position <= bindparam("upto"))
    .order_by(StateInterval.from_position)
)
_POSITIONS = select(StoredEvent.number, StoredEvent.position).where(
    StoredEvent.number.in_(select(_NUMBERS.c.value)), StoredEvent.position.is_not(None)
)
_DROP = delete(StateInterval).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.type == bindparam("of_type"),
    StateInterval.state_key == bindparam("with_key"),
    StateInterval.from_position == bindparam("begun"),
)
_ADD = (
    insert(StateInterval)
    .inline()
    .values(
        room_number=state.ROOM_NUMBER,
        type=bindparam("of_type"),
        state_key=bindparam("with_key"),
        from_position=bindparam("begun"),
        to_position=bindparam("end"),
        event_number=bindparam("number"),
        membership=bindparam("as_member"),
    )
)


def learn(
    tx: Tx, room_id: str, previous: int, upto: int, entries: Iterable[Seen]
) -> list[tuple[EventNumber, EventNumber]]:
    """Add what older events tell of the state at their positions, the newest first.

    They were put between the positions of two other events: `previous` (0 if there is none) and
    `upto`. Returns (newer, older) of state events by number, of which one replaces the other.
    Called by timeline/older_events.py alone.
    """
    by_key: dict[StateKey, list[Seen]] = defaultdict(list)
    for it in entries:
        by_key[it.key].append(it)
    known = _read(tx, room_id, by_key, upto)
    numbers = {it.number for some in known.values() for it in some}
    rows = tx.sql.execute(_POSITIONS, {"numbers": numbers})
    positions = {row.number: row.position for row in rows}
    replaced: list[tuple[EventNumber, EventNumber]] = []
    for key, some in by_key.items():
        positions |= {it.number: it.position for it in some if it.is_event}
        before = known.get(key, [])
        after = [Interval(it.begin, it.end, it.number, it.membership) for it in before]
        for entry in some:
            add(after, entry, previous, upto, positions)
        _write(tx, room_id, key, before, after)
        replaced += [
            (newer.number, older.number)
            for older, newer in itertools.pairwise(after)
            if older.end == newer.begin == positions.get(newer.number)
            and older.number not in {newer.number, state.NO_EVENT}
        ]
    return replaced


def settle(
    tx: Tx, room_id: str, at: int, entries: Mapping[StateKey, tuple[EventNumber, str | None] | None]
) -> None:
    """Correct what the state was at a position: {key: (number, membership), or None for nothing}.

    What an entry was before and after stays. Called by timeline/partial_state.py alone, which
    forgets what is cached of the members.
    """
    known = _read(tx, room_id, entries, NOW_AND_LATER)
    for key, entry in entries.items():
        before = known.get(key, [])
        after = [it for it in before if not it.begin <= at < it.end]
        if entry is not None:
            covering = [it for it in before if it.begin <= at < it.end]
            begin = max((it.end for it in after if it.end <= at), default=SINCE_EVER)
            end = min((it.begin for it in after if it.begin > at), default=NOW_AND_LATER)
            if covering:
                begin, end = covering[0].begin, covering[0].end
            after.append(Interval(begin, end, *entry))
        _write(tx, room_id, key, before, after)


def retract(
    tx: Tx, room_id: str, key: StateKey, number: int, instead: tuple[int, str | None] | None
) -> None:
    """Put an older event in place of one that should never have been state; None: nothing.

    Called by timeline/rechecks.py alone, for an event that is not current state any more.
    """
    known = _read(tx, room_id, [key], NOW_AND_LATER)[key]
    after = [it for it in known if it.number != number]
    if instead is not None:
        times = [(it.begin, it.end) for it in known if it.number == number]
        after += [Interval(*time, EventNumber(instead[0]), instead[1]) for time in times]
    _write(tx, room_id, key, known, after)


def _read(
    tx: Tx, room_id: str, keys: Iterable[StateKey], upto: int
) -> dict[StateKey, list[Interval]]:
    found: dict[StateKey, list[Interval]] = defaultdict(list)
    asked = {"room_id": room_id, "keys": list(keys), "upto": upto}
    for event_type, state_key, *interval in tx.sql.execute(_INTERVALS, asked):
        found[event_type, state_key].append(Interval(*interval))
    return found


def add(
    intervals: list[Interval],
    seen: Seen,
    previous: int,
    upto: int,
    positions: Mapping[EventNumber, int],
) -> None:
    """Add an entry to the intervals of its key, which are in their order."""
    at = seen.position
    place = sum(it.begin <= at for it in intervals)
    covering = intervals[place - 1] if place and intervals[place - 1].end > at else None
    if covering is not None and covering.number == seen.number:
        if seen.is_event and _is_assumed(covering, previous):
            _begin_at(intervals, place - 1, at, is_member=seen.membership is not None)
        return
    begin, end = at, upto
    own = 0 if covering is None else positions.get(covering.number, 0)
    if covering is not None and _is_assumed(covering, previous):
        if covering.begin == SINCE_EVER and seen.membership is None:
            begin = SINCE_EVER
        elif place > 1 and intervals[place - 2].end == covering.begin:
            intervals[place - 2].end = at
        end = covering.begin = own if at < own < covering.end else at + 1
        place -= 1
    elif covering is not None:
        if covering.end <= upto:
            end = covering.end
        else:  # the later state stays as it is
            end = own if at < own <= upto else upto
            later = Interval(end, covering.end, covering.number, covering.membership)
            intervals.insert(place, later)
        covering.end = at
    elif place < len(intervals):
        end = min(intervals[place].begin, upto)
    following = intervals[place] if place < len(intervals) else None
    if following is not None and following.begin == end and following.number == seen.number:
        following.begin = begin
    else:
        intervals.insert(place, Interval(begin, end, seen.number, seen.membership))


def _is_assumed(interval: Interval, previous: int) -> bool:
    """Return whether it is not known when an entry became the state.

    A server that joins knows nothing of the time before, or since its last user has left.
    """
    return interval.begin > previous or interval.begin == SINCE_EVER == previous


def _begin_at(intervals: list[Interval], place: int, at: int, *, is_member: bool) -> None:
    """Let an interval whose begin was assumed begin where its event is."""
    begin = intervals[place].begin
    if begin == SINCE_EVER:
        if is_member:
            intervals[place].begin = at
        return
    if place and intervals[place - 1].end == begin:
        intervals[place - 1].end = at
    intervals[place].begin = at


def _write(
    tx: Tx,
    room_id: str,
    key: StateKey,
    before: Sequence[Interval],
    after: Sequence[Interval],
) -> None:
    """Replace the intervals that have changed."""
    of_entry = {"room_id": room_id, "of_type": key[0], "with_key": key[1]}
    gone = [it for it in before if it not in after]
    new = [it for it in after if it not in before and it.begin < it.end]
    if not gone and not new:
        return
    if gone:
        tx.sql.execute(_DROP, [{**of_entry, "begun": it.begin} for it in gone])
    rows = [
        {"begun": it.begin, "end": it.end, "number": it.number, "as_member": it.membership}
        for it in new
    ]
    if rows:
        tx.sql.execute(_ADD, [{**of_entry, **row} for row in rows])
    tx.forget(state.STATE, (room_id, key))  # it has the position at which the current one began
