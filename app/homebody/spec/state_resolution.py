"""State resolution: merge the conflicting states of a room's forks into one.

When an event has several `prev_events`, each of them has its own state, and all servers must arrive
at the same merged state without talking to each other. Version 1 replays the conflicting events by
depth. Version 2 first replays the events that remove power, oldest and most powerful sender first,
then the rest along the history of the power levels (the mainline), and applies each only if the
authorization rules allow it in the state built so far. Version 2.1 starts with an empty state
instead of the unconflicted one, which may be much newer and forbid what was allowed at the time,
and also replays the events between the conflicting ones.

A room may have tens of thousands of members, and its forks differ in a few. So `resolve` takes only
the keys for which the states differ, asks for other keys as the rules need them, and leaves auth
chains to spec/auth_chains.py, which walks them without loading events.

Spec: rooms/v1#state-resolution, rooms/v2#state-resolution, rooms/v12#state-resolution
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Final

from homebody.spec import event_auth, room_state
from homebody.spec.events import Event, StateKey
from homebody.spec.room_state import CREATE, JOIN_RULES, POWER_LEVELS, AuthError, StateMap
from homebody.spec.room_versions import RoomVersion

Conflicts = Mapping[StateKey, Sequence[str | None]]
"""{(type, state_key): the event ID in each state, None where a state lacks the key}"""
Undisputed = Callable[[Collection[StateKey]], Mapping[StateKey, str]]
"""Returns {key: event ID} of those keys that all states have with the same event."""
FullConflictedSet = Callable[[Sequence[set[str]]], Mapping[str, Collection[str]]]
"""Returns the graph of spec/auth_chains.py (`full_conflicted_set`), as event IDs."""
Load = Callable[[Collection[str]], Mapping[str, Event]]
"""Returns {id: event} of these ids. It may return more events, which are not requested again."""
Step = Callable[[], None]
"""Called between events, so that others can run meanwhile; may raise to give up."""


def resolve(
    version: RoomVersion,
    conflicts: Conflicts,
    undisputed: Undisputed,
    full_conflicted_set: FullConflictedSet,
    load: Load,
    rejected: Container[str] = (),
    step: Step = lambda: None,
) -> dict[StateKey, str | None]:
    """Return what the resolved state has for the conflicting keys, None for a key that it lacks.

    The result may also have keys that no state has; all other keys are undisputed and stay as they
    are. `rejected` has the ids of rejected events, which are ignored as auth events; `load` may add
    to it. Raises LookupError when `load` lacks an event.
    """
    if not conflicts:
        return {}
    events = Events(load)
    if version.state_resolution == "v1":
        return _resolve_v1(conflicts, undisputed, events)
    graph = full_conflicted_set(_split(conflicts))
    full = events.get(graph)
    events.fetch(cited for event in full for cited in event.auth_event_ids)
    agreed = _undisputed(full, conflicts, undisputed)
    create = events[agreed[CREATE]] if CREATE in agreed else None
    initial = {} if version.state_resolution == "v2.1" else agreed
    events.fetch(initial[key] for event in full for key in _auth_types(event) if key in initial)
    checks = IterativeAuthChecks(initial, create, events, rejected, step)

    power_events = _power_events_and_their_chains(full, graph)
    checks.apply(_by_reverse_topological_power(events, power_events, create, step))
    others = [event for event in full if event.event_id not in power_events]
    checks.apply(_by_mainline(events, others, checks.state.get(POWER_LEVELS), step))
    return _changes(conflicts, agreed, checks.applied)


def _split(conflicts: Conflicts) -> list[set[str]]:
    """Return the conflicting events of each state."""
    states = zip(*conflicts.values(), strict=True)
    return [{event_id for event_id in state if event_id is not None} for state in states]


def _undisputed(
    full: Iterable[Event], conflicts: Conflicts, undisputed: Undisputed
) -> dict[StateKey, str]:
    """Return the undisputed entries for all keys that these events set or that allow them."""
    keys = {CREATE, POWER_LEVELS}
    for event in full:
        keys.update(_auth_types(event))
        if event.state_key is not None:
            keys.add((event.type, event.state_key))
    return dict(undisputed(keys - conflicts.keys()))


def _changes(
    conflicts: Conflicts, agreed: Mapping[StateKey, str], applied: Mapping[StateKey, str]
) -> dict[StateKey, str | None]:
    changes: dict[StateKey, str | None] = dict.fromkeys(conflicts)
    return changes | {key: event_id for key, event_id in applied.items() if key not in agreed}


class Events:
    """A cache of the events, loaded in batches as large as possible."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._known: dict[str, Event] = {}

    def __getitem__(self, event_id: str) -> Event:
        event = self._known.get(event_id)
        return self.get([event_id])[0] if event is None else event

    def get(self, event_ids: Iterable[str]) -> list[Event]:
        """Return these events in this order. Raises LookupError if one is missing."""
        wanted = list(event_ids)
        self.fetch(wanted)
        return [self._known[event_id] for event_id in wanted]

    def fetch(self, event_ids: Iterable[str]) -> None:
        """Load the events that are not known yet. Raises LookupError if one is missing."""
        unknown = {event_id for event_id in event_ids if event_id not in self._known}
        if unknown:
            self._known.update(self._load(unknown))
        # event by event: a difference with the keys of a large dict walks through all of them
        missing = [event_id for event_id in unknown if event_id not in self._known]
        if missing:
            raise LookupError(f"State resolution lacks the events {sorted(missing)}")

    def of_state(
        self, state: Mapping[StateKey, str], keys: Iterable[StateKey]
    ) -> dict[StateKey, Event]:
        """Return {key: event} of those keys that the state has."""
        found = [key for key in keys if key in state]
        return dict(zip(found, self.get(state[key] for key in found), strict=True))

    def auth_event(self, event: Event, key: StateKey) -> Event | None:
        """Return the auth event with this type and state_key."""
        for cited in self.get(event.auth_event_ids):
            if (cited.type, cited.state_key) == key:
                return cited
        return None


def _is_power_event(event: Event) -> bool:
    """Return whether this is a power event, which may remove a user's ability to do something."""
    if event.type == "m.room.member":
        has_gone = event.content.get("membership") in ("leave", "ban")
        return has_gone and event.sender != event.state_key
    key = (event.type, event.state_key)
    return key in {POWER_LEVELS, JOIN_RULES}


def _power_events_and_their_chains(
    full: Iterable[Event], graph: Mapping[str, Collection[str]]
) -> dict[str, Collection[str]]:
    """Return the part of the graph that has the power events and the events in their chains."""
    found: dict[str, Collection[str]] = {}
    todo = [event.event_id for event in full if _is_power_event(event)]
    while todo:
        event_id = todo.pop()
        if event_id not in found:
            found[event_id] = graph[event_id]
            todo += graph[event_id]
    return found


def _by_reverse_topological_power(
    events: Events, graph: Mapping[str, Collection[str]], create: Event | None, step: Step
) -> list[Event]:
    """Return the events in reverse topological order, then by the sender's power.

    Kahn's algorithm with a heap of the candidates.
    """
    waits_for = {event_id: len(earlier) for event_id, earlier in graph.items()}
    followers = defaultdict(list)
    for event_id, earlier in graph.items():
        for cited in earlier:
            followers[cited].append(event_id)

    def place(event_id: str) -> tuple[float, int, str]:
        step()
        event = events[event_id]
        return -_level_of_sender(events, event, create), event.origin_server_ts, event_id

    candidates = [place(event_id) for event_id, count in waits_for.items() if count == 0]
    heapq.heapify(candidates)
    ordered = []
    while candidates:
        _, _, event_id = heapq.heappop(candidates)
        ordered.append(events[event_id])
        for follower in followers[event_id]:
            waits_for[follower] -= 1
            if waits_for[follower] == 0:
                heapq.heappush(candidates, place(follower))
    return ordered


def _level_of_sender(events: Events, event: Event, create: Event | None) -> float:
    """Return the sender's power level by the event's own auth events."""
    levels = events.auth_event(event, POWER_LEVELS)
    return room_state.levels_after(levels, create).of_user(event.sender)


def _by_mainline(
    events: Events, unordered: Iterable[Event], first: str | None, step: Step
) -> list[Event]:
    """Return the events in mainline order, then by time. The mainline begins with `first`."""
    mainline = Mainline(events, first)

    def place(event: Event) -> tuple[float, int, str]:
        step()
        levels = events.auth_event(event, POWER_LEVELS)
        position = math.inf if levels is None else mainline.position(levels.event_id)
        return -position, event.origin_server_ts, event.event_id

    return sorted(unordered, key=place)


class Mainline:
    """The history of the power levels, of which no more is loaded than the positions need."""

    def __init__(self, events: Events, first: str | None) -> None:
        self._events = events
        self._next = first
        self._length = 0
        self._positions: dict[str, float] = {}
        """Of the mainline's events so far, and of others that have been asked for."""

    def position(self, start: str) -> float:
        """Return the index of the first mainline event in the history that begins with `start`.

        Both histories are walked in step, as either may be the longer one.
        """
        passed: dict[str, None] = {}
        end: str | None = start
        while end not in self._positions:
            if end is not None:
                passed[end] = None
                end = self._before(end, passed)
            reached = self._extend()
            if reached in passed:
                end = reached
            elif reached is None and end is None:
                break
        found = math.inf if end is None else self._positions[end]
        for event_id in passed:
            if event_id == end:
                break  # those after it belong to the mainline
            self._positions[event_id] = found
        return found

    def _extend(self) -> str | None:
        """Add the next event to the mainline, and return it."""
        added = self._next
        if added is not None:
            self._positions[added] = self._length
            self._length += 1
            self._next = self._before(added, self._positions)
        return added

    def _before(self, event_id: str, passed: Container[str]) -> str | None:
        """Return the power levels that these cite. Those in `passed` would end in a cycle."""
        levels = self._events.auth_event(self._events[event_id], POWER_LEVELS)
        return None if levels is None or levels.event_id in passed else levels.event_id


class IterativeAuthChecks:
    """A state to which events are applied if the authorization rules allow them."""

    def __init__(
        self,
        initial: Mapping[StateKey, str],
        create: Event | None,
        events: Events,
        rejected: Container[str],
        step: Step,
    ) -> None:
        self.applied: Final[dict[StateKey, str]] = {}
        self.state: Final = ChainMap(self.applied, dict(initial))
        self._create = create
        self._events = events
        self._rejected = rejected
        self._step = step

    def apply(self, ordered: Iterable[Event]) -> None:
        """Apply each event in this order if the state so far allows it."""
        for event in ordered:
            self._step()
            if event.state_key is None:
                continue
            if _is_allowed(event, self._state_for(event), self._create):
                self.applied[event.type, event.state_key] = event.event_id

    def _state_for(self, event: Event) -> dict[StateKey, Event]:
        """Return the state for the rules: the state so far, completed from the auth events.

        Rejected auth events are left out, as they are not checked again here.
        """
        found = {
            (cited.type, cited.state_key or ""): cited
            for cited in self._events.get(event.auth_event_ids)
            if cited.event_id not in self._rejected
        }
        return found | self._events.of_state(self.state, _auth_types(event))


def _auth_types(event: Event) -> list[StateKey]:
    return event_auth.auth_types(
        event.version, event.type, event.state_key, event.sender, event.content
    )


def _is_allowed(event: Event, state: StateMap, create: Event | None) -> bool:
    try:
        event_auth.check(event, state, create)
    except AuthError:
        return False
    return True


def _resolve_v1(
    conflicts: Conflicts, undisputed: Undisputed, events: Events
) -> dict[StateKey, str | None]:
    """Resolve state by version 1, where a key only conflicts if states have different events."""
    candidates = {key: {it for it in ids if it is not None} for key, ids in conflicts.items()}
    resolved = {key: next(iter(ids)) for key, ids in candidates.items() if len(ids) == 1}
    disputed = {
        key: sorted(events.get(ids), key=_v1_place)
        for key, ids in candidates.items()
        if len(ids) > 1
    }
    keys = {key for ordered in disputed.values() for event in ordered for key in _auth_types(event)}
    state = ChainMap(resolved, dict(undisputed(keys - conflicts.keys())))
    for event_type in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
        # Events of one type are not applied to each other, so their order doesn't matter.
        keys_of_type = [key for key in disputed if key[0] == event_type]
        resolved |= {k: _last_of_allowed_run(disputed.pop(k), state, events) for k in keys_of_type}
    others = {key: _last_allowed(ordered, state, events) for key, ordered in disputed.items()}
    return resolved | others


def _v1_place(event: Event) -> tuple[int, int]:
    """Return the sort key: ascending depth, then descending SHA-1 of the id."""
    digest = hashlib.sha1(event.event_id.encode(), usedforsecurity=False).digest()
    return event.depth, -int.from_bytes(digest)


def _last_of_allowed_run(
    ordered: Sequence[Event], resolved: Mapping[StateKey, str], events: Events
) -> str:
    """Return the last event of the initial run in which each is allowed after the one before."""
    current = ordered[0]
    key = (current.type, current.state_key or "")
    for event in ordered[1:]:
        state = events.of_state(resolved, _auth_types(event))
        if not _is_allowed(event, state | {key: current}, None):
            break
        current = event
    return current.event_id


def _last_allowed(
    ordered: Sequence[Event], resolved: Mapping[StateKey, str], events: Events
) -> str | None:
    """Return the last of the events that is allowed in this state, or None."""
    for event in reversed(ordered):
        if _is_allowed(event, events.of_state(resolved, _auth_types(event)), None):
            return event.event_id
    return None
