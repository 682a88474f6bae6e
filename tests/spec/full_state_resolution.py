"""State resolution as the specification describes it: by whole states and whole auth chains.

`homebody.spec.state_resolution` must arrive at the same result with the differences only.
Spec: rooms/v1#state-resolution, rooms/v2#state-resolution, rooms/v12#state-resolution
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from homebody.spec import event_auth, room_state
from homebody.spec.events import Event, StateKey
from homebody.spec.room_state import CREATE, JOIN_RULES, POWER_LEVELS, AuthError, StateMap
from homebody.spec.room_versions import RoomVersion

StateIds = Mapping[StateKey, str]
"""{(type, state_key): event ID}"""
Load = Callable[[Collection[str]], Mapping[str, Event]]
"""Returns {id: event} of these ids. It may return more events, such as the whole auth chain fetched
by one recursive query; those are not requested again."""


def resolve(
    version: RoomVersion,
    state_sets: Sequence[StateIds],
    load: Load,
    rejected: Collection[str] = (),
) -> dict[StateKey, str]:
    """Return the resolved state of these states.

    `rejected` has the ids of rejected events, which are ignored as auth events. Raises LookupError
    when `load` lacks an event of the states or of their auth chains (version 1 needs no chains).
    """
    unconflicted, conflicted = split(state_sets)
    if not conflicted:
        return unconflicted
    events = Events(load)
    if version.state_resolution == "v1":
        return _resolve_v1(state_sets, events)
    is_v2_1 = version.state_resolution == "v2.1"
    full_conflicted = _auth_difference(events, state_sets, unconflicted) | conflicted
    if is_v2_1:
        full_conflicted |= _conflicted_subgraph(events, conflicted)
    create = events[unconflicted[CREATE]] if CREATE in unconflicted else None
    checks = IterativeAuthChecks({} if is_v2_1 else unconflicted, create, events, rejected)

    power_events = _power_events_and_their_chains(events, full_conflicted)
    checks.apply(_by_reverse_topological_power(events, power_events, create))
    others = full_conflicted - power_events.keys()
    checks.apply(_by_mainline(events, others, checks.state.get(POWER_LEVELS)))
    return {**checks.state, **unconflicted}


def split(state_sets: Sequence[StateIds]) -> tuple[dict[StateKey, str], set[str]]:
    """Return (unconflicted state map, conflicted state set)."""
    unconflicted = {}
    conflicted = set()
    for key in {key for state in state_sets for key in state}:
        event_ids = {state.get(key) for state in state_sets}
        first = next(iter(event_ids))
        if len(event_ids) == 1 and first is not None:
            unconflicted[key] = first
        else:
            conflicted |= {event_id for event_id in event_ids if event_id is not None}
    return unconflicted, conflicted


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
        unknown = {event_id for event_id in wanted if event_id not in self._known}
        if unknown:
            self._known.update(self._load(unknown))
        missing = unknown - self._known.keys()
        if missing:
            raise LookupError(f"State resolution lacks the events {sorted(missing)}")
        return [self._known[event_id] for event_id in wanted]

    def of_state(self, state: StateIds, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Return {key: event} of those keys that the state has."""
        found = [key for key in keys if key in state]
        return dict(zip(found, self.get(state[key] for key in found), strict=True))

    def auth_chain(self, event_ids: Iterable[str]) -> set[str]:
        """Return the ids of the full auth chain of these events."""
        chain: set[str] = set()
        level = set(event_ids)
        while level:
            level = {cited for e in self.get(level) for cited in e.auth_event_ids} - chain
            chain |= level
        return chain

    def auth_event(self, event: Event, key: StateKey) -> Event | None:
        """Return the auth event with this type and state_key."""
        for cited in self.get(event.auth_event_ids):
            if (cited.type, cited.state_key) == key:
                return cited
        return None


def _auth_difference(
    events: Events, state_sets: Sequence[StateIds], unconflicted: StateIds
) -> set[str]:
    """Return the auth difference: events in the auth chains of some but not all states.

    Unconflicted events have the same chain in every state, so it is walked only once, and not at
    all if the chains of the conflicted events are equal.
    """
    chains = [
        events.auth_chain(id_ for key, id_ in state.items() if key not in unconflicted)
        for state in state_sets
    ]
    difference = chains[0].union(*chains) - chains[0].intersection(*chains)
    return difference - events.auth_chain(unconflicted.values()) if difference else difference


def _conflicted_subgraph(events: Events, conflicted: set[str]) -> set[str]:
    """Return the events on paths along auth events from one conflicted event to another."""
    citing = defaultdict(set)
    for event in events.get(events.auth_chain(conflicted) | conflicted):
        for cited in event.auth_event_ids:
            citing[cited].add(event.event_id)
    # Walk forward from the conflicted events within their auth chain.
    subgraph = set(conflicted)
    level = set(conflicted)
    while level:
        level = {later for event_id in level for later in citing[event_id]} - subgraph
        subgraph |= level
    return subgraph


def _is_power_event(event: Event) -> bool:
    """Return whether this is a power event, which may remove a user's ability to do something."""
    if event.type == "m.room.member":
        has_gone = event.content.get("membership") in ("leave", "ban")
        return has_gone and event.sender != event.state_key
    key = (event.type, event.state_key)
    return key in {POWER_LEVELS, JOIN_RULES}


def _power_events_and_their_chains(
    events: Events, full_conflicted: set[str]
) -> dict[str, set[str]]:
    """Return {event: auth events} of the set's power events and the set's events in their chains.

    The values have the nearest such events of the auth chain, with no other one on the path.
    """
    graph: dict[str, set[str]] = {}
    nearest = NearestInChain(events, full_conflicted)
    todo = [e.event_id for e in events.get(full_conflicted) if _is_power_event(e)]
    while todo:
        event_id = todo.pop()
        if event_id not in graph:
            graph[event_id] = nearest.of(event_id)
            todo += graph[event_id]
    return graph


class NearestInChain:
    """Finds the nearest events of a set in the auth chain of an event."""

    def __init__(self, events: Events, chosen: set[str]) -> None:
        self._events = events
        self._chosen = chosen
        self._nearest: dict[str, set[str]] = {}

    def of(self, event_id: str) -> set[str]:
        """Return the first events of the set on each path back; every event is visited once."""
        path = [event_id]
        begun = set()
        while path:
            here = path[-1]
            cited = self._events[here].auth_event_ids
            between = [c for c in cited if c not in self._chosen]
            if here not in begun:
                begun.add(here)
                path += [c for c in between if c not in self._nearest and c not in begun]
                continue
            path.pop()
            found = {c for c in cited if c in self._chosen}
            self._nearest[here] = found.union(*(self._nearest.get(c, ()) for c in between))
        return self._nearest[event_id]


def _by_reverse_topological_power(
    events: Events, graph: Mapping[str, set[str]], create: Event | None
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


def _by_mainline(events: Events, event_ids: Iterable[str], power_levels: str | None) -> list[Event]:
    """Return the events in mainline order, then by time."""
    mainline: dict[str, float] = {}
    current = None if power_levels is None else events[power_levels]
    while current is not None and current.event_id not in mainline:
        mainline[current.event_id] = len(mainline)
        current = events.auth_event(current, POWER_LEVELS)

    def position(event: Event) -> float:
        """Return the index of the first mainline event in the chain of power levels."""
        passed = []
        earlier = events.auth_event(event, POWER_LEVELS)
        while earlier is not None and earlier.event_id not in mainline:
            passed.append(earlier.event_id)
            mainline[earlier.event_id] = math.inf  # ends a cycle; overwritten below
            earlier = events.auth_event(earlier, POWER_LEVELS)
        found = math.inf if earlier is None else mainline[earlier.event_id]
        mainline.update(dict.fromkeys(passed, found))
        return found

    return sorted(
        events.get(event_ids), key=lambda e: (-position(e), e.origin_server_ts, e.event_id)
    )


class IterativeAuthChecks:
    """A state to which events are applied if the authorization rules allow them."""

    def __init__(
        self,
        initial: StateIds,
        create: Event | None,
        events: Events,
        rejected: Collection[str],
    ) -> None:
        self.state: Final = dict(initial)
        self._create = create
        self._events = events
        self._rejected = rejected

    def apply(self, ordered: Iterable[Event]) -> None:
        """Apply each event in this order if the state so far allows it."""
        for event in ordered:
            if event.state_key is None:
                continue
            if _is_allowed(event, self._state_for(event), self._create):
                self.state[event.type, event.state_key] = event.event_id

    def _state_for(self, event: Event) -> dict[StateKey, Event]:
        """Return the state for the rules: the state so far, completed from the auth events.

        Rejected auth events are left out, as they are not checked again here.
        """
        keys = _auth_types(event)
        found = {
            (cited.type, cited.state_key or ""): cited
            for cited in self._events.get(event.auth_event_ids)
            if cited.event_id not in self._rejected
        }
        return found | self._events.of_state(self.state, keys)


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


def _resolve_v1(state_sets: Sequence[StateIds], events: Events) -> dict[StateKey, str]:
    """Resolve state by version 1, where a key only conflicts if states have different events."""
    candidates: dict[StateKey, set[str]] = defaultdict(set)
    for state in state_sets:
        for key, event_id in state.items():
            candidates[key].add(event_id)
    resolved = {key: next(iter(ids)) for key, ids in candidates.items() if len(ids) == 1}
    conflicts = {
        key: sorted(events.get(ids), key=_v1_place)
        for key, ids in candidates.items()
        if len(ids) > 1
    }
    for event_type in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
        # Events of one type are not applied to each other, so their order doesn't matter.
        keys = [key for key in conflicts if key[0] == event_type]
        resolved |= {k: _last_of_allowed_run(conflicts.pop(k), resolved, events) for k in keys}
    others = {}
    for key, ordered in conflicts.items():
        if (allowed := _last_allowed(ordered, resolved, events)) is not None:
            others[key] = allowed
    return resolved | others


def _v1_place(event: Event) -> tuple[int, int]:
    """Return the sort key: ascending depth, then descending SHA-1 of the id."""
    digest = hashlib.sha1(event.event_id.encode(), usedforsecurity=False).digest()
    return event.depth, -int.from_bytes(digest)


def _last_of_allowed_run(ordered: Sequence[Event], resolved: StateIds, events: Events) -> str:
    """Return the last event of the initial run in which each is allowed after the one before."""
    current = ordered[0]
    key = (current.type, current.state_key or "")
    for event in ordered[1:]:
        state = events.of_state(resolved, _auth_types(event))
        if not _is_allowed(event, state | {key: current}, None):
            break
        current = event
    return current.event_id


def _last_allowed(ordered: Sequence[Event], resolved: StateIds, events: Events) -> str | None:
    """Return the last of the events that is allowed in this state, or None."""
    for event in reversed(ordered):
        if _is_allowed(event, events.of_state(resolved, _auth_types(event)), None):
            return event.event_id
    return None
