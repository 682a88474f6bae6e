"""State resolution of whole states, by the server's function, which is given only what differs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence

from homebody.spec import auth_chains, state_resolution
from homebody.spec.events import Event, StateKey
from homebody.spec.room_versions import RoomVersion

State = Mapping[StateKey, str]


def resolve(
    version: RoomVersion,
    states: Sequence[State],
    events: Mapping[str, Event],
    rejected: Container[str] = (),
    *,
    load: Callable[[Collection[str]], Mapping[str, Event]] | None = None,
) -> dict[StateKey, str]:
    """Return the resolved state of these states. `events` are in topological order."""
    agreed, conflicts = split(states)

    def undisputed(keys: Collection[StateKey]) -> dict[StateKey, str]:
        assert not keys & conflicts.keys()
        return {key: agreed[key] for key in keys if key in agreed}

    def full_conflicted_set(sets: Sequence[set[str]]) -> dict[str, set[str]]:
        return full_conflicted_set_of(version, sets, agreed.values(), events)

    def load_known(event_ids: Collection[str]) -> dict[str, Event]:
        return {id_: events[id_] for id_ in event_ids if id_ in events}

    changes = state_resolution.resolve(
        version, conflicts, undisputed, full_conflicted_set, load or load_known, rejected
    )
    assert conflicts.keys() <= changes.keys()
    assert not changes.keys() & agreed.keys()
    return agreed | {key: event_id for key, event_id in changes.items() if event_id is not None}


def split(
    states: Sequence[State],
) -> tuple[dict[StateKey, str], dict[StateKey, list[str | None]]]:
    """Return (undisputed entries, {key: event of each state or None} of the other keys)."""
    agreed = {}
    conflicts = {}
    for key in {key for state in states for key in state}:
        values = [state.get(key) for state in states]
        if len(set(values)) == 1 and values[0] is not None:
            agreed[key] = values[0]
        else:
            conflicts[key] = values
    return agreed, conflicts


def full_conflicted_set_of(
    version: RoomVersion,
    sets: Sequence[set[str]],
    undisputed: Iterable[str],
    events: Mapping[str, Event],
) -> dict[str, set[str]]:
    """Return the graph of the full conflicted set, by numbers in the order of the events."""
    ids = list(events)
    numbers = {event_id: number for number, event_id in enumerate(ids, 1)}
    others = [numbers[id_] for id_ in undisputed]

    def cites(wanted: Collection[int]) -> dict[int, list[int]]:
        return {
            number: [numbers[id_] for id_ in events[ids[number - 1]].auth_event_ids]
            for number in wanted
        }

    graph = auth_chains.full_conflicted_set(
        [{numbers[id_] for id_ in chosen} for chosen in sets],
        lambda lowest: {number for number in others if number >= lowest},
        cites,
        lambda lowest: cites(range(len(ids), lowest - 1, -1)).items(),
        with_subgraph=version.state_resolution == "v2.1",
    )
    return {ids[n - 1]: {ids[it - 1] for it in near} for n, near in graph.items()}
