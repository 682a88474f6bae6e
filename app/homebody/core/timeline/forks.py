"""The state before each event, where a room's events do not follow each other in one line.

Servers send events at the same time without seeing each other's, so the graph of a room forks, and
each branch has a state of its own. The *current* state, resolved from all branches, lies on the
clock, in the intervals of events/state.py. Mostly the state before an event is the current state,
and nothing more is stored. Where it is not, it is a `Point`: the intervals at some position, and
the few entries that differ from them. So a fork costs some rows instead of a full state per event.

Two points differ only in keys whose intervals began between their positions, and in their own
differing entries, so conflicts are found without reading whole states.

The differing entries are in the tables of differences.py.

State resolution may take seconds where thousands of entries differ: see limits.py and plans.py.
Spec: server-server-api#room-state-resolution
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select, union

from homebody.core.events import auth_chains, state
from homebody.core.timeline import differences, limits
from homebody.core.timeline.differences import Overlay
from homebody.core.timeline.limits import TooLongError
from homebody.models.base import EventNumber
from homebody.models.events import HISTORY, REJECTED, StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec import auth_chains as spec_auth_chains
from homebody.spec import state_resolution
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches, in_effect, listed, unindexed

MAX_KEYS: Final = 200
"""Differing entries that a limited write looks at."""
KEYS_AT_ONCE: Final = 100


class Point(NamedTuple):
    """A state of a room: its intervals at a position, but for the entries in `overlay`."""

    at: int
    overlay: Overlay
    difference: int | None = None
    """The stored difference from which the overlay was made, perhaps with more entries."""
    is_stored: bool = False
    """Whether the overlay has exactly the entries of that difference."""


_IDS, _NUMBERS = listed("event_ids"), listed("numbers")
_GRAPH_COLUMNS = (
    StoredEvent.number,
    StoredEvent.event_id,
    StoredEvent.position,
    StoredEvent.standing,
    StoredEvent.state_at,
    StoredEvent.state_diff,
    StoredEvent.type,
    StoredEvent.state_key,
)
_BY_IDS = select(*_GRAPH_COLUMNS).where(StoredEvent.event_id.in_(select(_IDS.c.value)))
_EVENTS = select(
    StoredEvent.number, StoredEvent.event_id, StoredEvent.standing, StoredEvent.pdu
).where(StoredEvent.number.in_(select(_NUMBERS.c.value)))
_CHANGED = union(  # most keys both end and begin, but not new ones, and not those that are gone
    *(
        select(StateInterval.type, StateInterval.state_key).where(
            StateInterval.room_number == state.ROOM_NUMBER,
            position > bindparam("lower"),
            position <= bindparam("upper"),
        )
        for position in (StateInterval.from_position, StateInterval.to_position)
    )
)
_LAST_BEGUN = state.LAST_BEGUN.where(state.Begun.from_position <= bindparam("position"))
_VALUES = (
    select(StateInterval.type, StateInterval.state_key, StateInterval.event_number)
    .select_from(state.INTERVALS_OF_KEYS)
    .where(
        Room.room_id == bindparam("room_id"),
        StateInterval.from_position == _LAST_BEGUN.scalar_subquery(),
        unindexed(StateInterval.to_position) > bindparam("position"),
    )
)
_STATE_AT = select(StateInterval.type, StateInterval.state_key, StateInterval.event_number).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    in_effect(StateInterval, bindparam("position")),
)
_STATE_SINCE = _STATE_AT.where(StateInterval.event_number >= bindparam("lowest"))


def current(tx: Reader) -> Point:
    """Return the point of every room's current state."""
    return Point(tx.position, {})


def after_events(tx: Reader, event_ids: Collection[str]) -> dict[str, Point]:
    """Return the states after those of these events whose state is known.

    An event without a state (an outlier, or one that is not stored) is left out.
    """
    found = {}
    for row in tx.sql.execute(_BY_IDS, {"event_ids": event_ids}):
        if (point := _before(tx, row)) is not None:
            found[row.event_id] = _after(point, row)
    return found


def before_event(tx: Reader, event_id: str) -> Point | None:
    """Return the state before an event, or None where it is not known."""
    row = tx.sql.execute(_BY_IDS, {"event_ids": [event_id]}).first()
    return None if row is None else _before(tx, row)


def values(
    tx: Reader, room_id: str, point: Point, keys: Collection[StateKey]
) -> dict[StateKey, int]:
    """Return the numbers of the events of these entries, as far as the state has them."""
    found = {key: number for key in keys if (number := point.overlay.get(key)) is not None}
    if others := [key for key in keys if key not in point.overlay]:
        asked = {"room_id": room_id, "keys": others, "position": point.at}
        for row in tx.sql.execute(_VALUES, asked):
            if row.event_number != state.NO_EVENT:
                found[row.type, row.state_key] = row.event_number
    return found


def events(
    tx: Reader, room_id: str, point: Point, keys: Collection[StateKey]
) -> dict[StateKey, Event]:
    """Return the events of these entries, as far as the state has them."""
    numbers = values(tx, room_id, point, keys)
    by_number = _Numbered(tx, room_id).of_numbers(numbers.values())
    return {key: by_number[number] for key, number in numbers.items()}


def ids(tx: Reader, room_id: str, numbers: Iterable[int]) -> dict[int, str]:
    """Return the event IDs of these numbers."""
    return _Numbered(tx, room_id).ids(numbers)


def whole(tx: Reader, room_id: str, point: Point) -> dict[StateKey, int]:
    """Return all entries of a state, as numbers of events."""
    found = {
        (row.type, row.state_key): row.event_number
        for row in tx.sql.execute(_STATE_AT, {"room_id": room_id, "position": point.at})
    } | dict(point.overlay)
    return {key: number for key, number in found.items() if number}


def conflicts(
    tx: Reader, room_id: str, points: Sequence[Point]
) -> dict[StateKey, list[int | None]]:
    """Return the entries in which these states differ: the event of each state, or None.

    Raises TooLongError in a limited write.
    """
    if len(points) < 2:
        return {}
    keys = _differing(tx, room_id, points)
    if len(keys) > MAX_KEYS and limits.is_limited(tx):
        raise TooLongError(room_id)
    step = limits.stepper(tx, room_id)
    found = {}
    for some in batches(keys, KEYS_AT_ONCE):
        of_points = [values(tx, room_id, point, some) for point in points]
        for key in some:
            numbers = [each.get(key) for each in of_points]
            if len(set(numbers)) > 1:
                found[key] = numbers
        step()
    return found


def may_differ(tx: Reader, room_id: str, one: Point, other: Point) -> bool:
    """Return whether two states differ; in a limited write, also where that takes long to see."""
    if one == other:
        return False
    try:
        return bool(conflicts(tx, room_id, [one, other]))
    except TooLongError:
        return True


def resolve(tx: Reader, room_id: str, points: Sequence[Point]) -> Point:
    """Return the state that state resolution makes of these. Raises TooLongError."""
    base = max(points, key=lambda it: it.at)
    differing = conflicts(tx, room_id, points)
    if not differing:
        return base
    began = time.monotonic()
    changes = _Resolution(tx, room_id, base, differing).run()
    tx.server.metrics.resolutions.observe(time.monotonic() - began)
    overlay = {**base.overlay, **dict.fromkeys(differing), **changes}
    return trimmed(tx, room_id, Point(base.at, overlay, base.difference))


def trimmed(tx: Reader, room_id: str, point: Point) -> Point:
    """Return the same state without entries that are as the intervals have them."""
    below = _values(tx, room_id, Point(point.at, {}), point.overlay.keys())
    overlay = {key: it for key, it in point.overlay.items() if it != below.get(key)}
    return Point(point.at, overlay, point.difference)


def moved(tx: Reader, room_id: str, point: Point, at: int) -> Point:
    """Return the same state as seen from another position."""
    if point.at == at:
        return point
    keys = _differing(tx, room_id, [Point(at, {}), point])
    overlay = dict.fromkeys(keys) | _values(tx, room_id, point, keys)
    return trimmed(tx, room_id, Point(at, overlay))


def nearest(tx: Reader, room_id: str, point: Point, at: int) -> Point:
    """Return the same state as seen from a position, if that has fewer differing entries.

    In a limited write it stays as it is where that takes long to find out.
    """
    if len(point.overlay) > MAX_KEYS and limits.is_limited(tx):
        return point
    try:
        other = moved(tx, room_id, point, at)
    except TooLongError:
        return point
    return other if len(other.overlay) < len(point.overlay) else point


def numbered(
    tx: Reader, room_id: str, entries: Overlay
) -> dict[StateKey, tuple[EventNumber, Event] | None]:
    """Return the same entries with their events."""
    wanted = [number for number in entries.values() if number is not None]
    known = _Numbered(tx, room_id).of_numbers(wanted)
    return {
        key: None if number is None else (EventNumber(number), known[number])
        for key, number in entries.items()
    }


def keep(tx: Tx, room_id: str, point: Point, number: int) -> int | None:
    """Store the overlay of the state before the event `number`; return its difference, or None."""
    if not point.overlay:
        return None
    if point.is_stored:
        return point.difference
    return differences.keep(tx, room_id, point.overlay, point.difference, number)


def _differing(tx: Reader, room_id: str, points: Sequence[Point]) -> set[StateKey]:
    """Return the entries in which these states may differ."""
    lower, upper = min(it.at for it in points), max(it.at for it in points)
    keys = {key for point in points for key in point.overlay}
    if lower < upper:
        asked = {"room_id": room_id, "lower": lower, "upper": upper}
        keys.update((row.type, row.state_key) for row in tx.sql.execute(_CHANGED, asked))
    return keys


def _values(
    tx: Reader, room_id: str, point: Point, keys: Collection[StateKey]
) -> dict[StateKey, int]:
    """Return what `values` does, of any number of entries."""
    step = limits.stepper(tx, room_id)
    found: dict[StateKey, int] = {}
    for some in batches(keys, KEYS_AT_ONCE):
        found |= values(tx, room_id, point, some)
        step()
    return found


def _before(tx: Reader, row: state.AnyRow) -> Point | None:
    if row.state_at is not None:
        if row.state_diff == differences.FORGOTTEN:
            return None
        if row.state_diff is None:
            return Point(row.state_at, {})
        overlay = differences.read(tx, row.state_diff)
        return Point(row.state_at, overlay, row.state_diff, is_stored=True)
    if row.position is None or row.standing == HISTORY:  # of history, only some of it is known
        return None
    return Point(row.position - 1, {})


def _after(before: Point, row: state.AnyRow) -> Point:
    if row.state_key is None or row.standing == REJECTED:
        return before
    own = {(row.type, row.state_key): row.number}
    return Point(before.at, {**before.overlay, **own}, before.difference)


class _Numbered:
    """Events by number and by id, each read once."""

    def __init__(self, tx: Reader, room_id: str) -> None:
        self._tx = tx
        self._version = state.version(tx, room_id)
        self._events: dict[int, Event] = {}
        self._numbers: dict[str, int] = {}

    def of_numbers(self, numbers: Iterable[int]) -> dict[int, Event]:
        """Return events by number, at least these."""
        missing = [number for number in numbers if number not in self._events]
        may_pause = len(missing) > KEYS_AT_ONCE and not isinstance(self._tx, Tx)
        for some in batches(missing, KEYS_AT_ONCE):
            for row in self._tx.sql.execute(_EVENTS, {"numbers": some}):
                event = Event(row.event_id, orjson.loads(row.pdu), self._version)
                self._events[row.number] = event
                self._numbers[row.event_id] = row.number
            if may_pause:
                event_loop.pause()
        return self._events

    def ids(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return event IDs by number."""
        wanted = list(numbers)
        known = self.of_numbers(wanted)
        return {number: known[number].event_id for number in wanted}

    def numbers(self, event_ids: Iterable[str]) -> dict[str, int]:
        """Return numbers by event ID, at least of these."""
        missing = [event_id for event_id in event_ids if event_id not in self._numbers]
        if missing:
            self._numbers |= auth_chains.numbers_of(self._tx, missing)
        return self._numbers

    def load(self, event_ids: Collection[str]) -> dict[str, Event]:
        """Return events by id."""
        numbers = self.numbers(event_ids)
        known = self.of_numbers([numbers[it] for it in event_ids if it in numbers])
        return {it: known[numbers[it]] for it in event_ids if it in numbers}


class _Resolution:
    """One use of state resolution, which works with event IDs."""

    def __init__(
        self, tx: Reader, room_id: str, base: Point, differing: Mapping[StateKey, list[int | None]]
    ) -> None:
        self._tx = tx
        self._room_id = room_id
        self._base = base
        self._differing = differing
        self._version = state.version(tx, room_id)
        self._known = _Numbered(tx, room_id)
        self._step = limits.stepper(tx, room_id)

    def run(self) -> dict[StateKey, int | None]:
        """Return what the resolved state has for the differing keys, and for keys that it adds."""
        numbers = {it for each in self._differing.values() for it in each if it is not None}
        ids = self._known.ids(numbers)
        changes = state_resolution.resolve(
            self._version,
            {
                key: [None if number is None else ids[number] for number in each]
                for key, each in self._differing.items()
            },
            self._undisputed,
            self._full_conflicted_set,
            self._known.load,
            step=self._step,
        )
        known = self._known.numbers([it for it in changes.values() if it is not None])
        return {key: None if it is None else known[it] for key, it in changes.items()}

    def _undisputed(self, keys: Collection[StateKey]) -> dict[StateKey, str]:
        found = _values(self._tx, self._room_id, self._base, keys)
        ids = self._known.ids(found.values())
        return {key: ids[number] for key, number in found.items()}

    def _full_conflicted_set(self, sets: Sequence[set[str]]) -> dict[str, set[str]]:
        known = self._known.numbers({event_id for each in sets for event_id in each})
        graph = spec_auth_chains.full_conflicted_set(
            [{known[event_id] for event_id in each} for each in sets],
            self._undisputed_since,
            lambda numbers: auth_chains.cites(self._tx, self._room_id, numbers),
            self._descending,
            with_subgraph=self._version.state_resolution == "v2.1",
            step=self._step,
        )
        ids = self._known.ids(graph)
        ids |= self._known.ids({it for near in graph.values() for it in near})
        return {ids[number]: {ids[it] for it in near} for number, near in graph.items()}

    def _descending(self, lowest: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        for it in auth_chains.descending(self._tx, self._room_id, lowest):
            self._step()
            yield it

    def _undisputed_since(self, lowest: int) -> set[int]:
        """Return the undisputed events of the states with this number or a higher one."""
        asked = {"room_id": self._room_id, "position": self._base.at, "lowest": lowest}
        skipped = self._differing.keys() | self._base.overlay.keys()
        found = {
            row.event_number
            for row in self._tx.sql.execute(_STATE_SINCE, asked)
            if (row.type, row.state_key) not in skipped
        }
        return found | {
            number
            for key, number in self._base.overlay.items()
            if key not in self._differing and number is not None and number >= lowest
        }
