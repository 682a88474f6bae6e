"""The auth chains of conflicting events: which events state resolution must replay, in what order.

Events are integers here, numbered so that an event has a greater number than the events that it
cites in `auth_events`. A walk from high to low numbers then visits an event after all that cite it,
and may stop where the chains of all states have met; the chains of a large room have tens of
thousands of events. What the states agree on is walked only if their disputed events have different
chains, in one pass over the events that are newer than those in question.

Spec: rooms/v2#definitions, rooms/v12#definitions
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence, Set
from typing import Final

Cites = Callable[[Collection[int]], Mapping[int, Sequence[int]]]
"""Returns {number: numbers of its auth events} of these events, at least."""
Descending = Callable[[int], Iterable[tuple[int, Sequence[int]]]]
"""Returns (number, numbers of its auth events) of the room's state events from this number on, the
greatest first."""
Graph = dict[int, Set[int]]
"""{number: the nearest numbers of the graph in its auth chain, with none in between}"""
Step = Callable[[], None]
"""Called between events, so that others can run meanwhile; may raise to give up."""
NONE: Final[Set[int]] = frozenset()


def full_conflicted_set(
    states: Sequence[Collection[int]],
    undisputed: Callable[[int], Container[int]],
    cites: Cites,
    descending: Descending,
    *,
    with_subgraph: bool,
    step: Step = lambda: None,
) -> Graph:
    """Return the full conflicted set of some states.

    `states` has the events of each state whose keys are in conflict; `undisputed(lowest)` returns
    the other events of the states, those below `lowest` may be left out. `with_subgraph` adds the
    conflicted state subgraph (version 2.1 of state resolution).
    """
    edges = _Edges(cites)
    chains, visited = _walk(states, edges, step)
    every = (1 << len(states)) - 1
    difference = {number for number, bits in chains.items() if bits != every}
    if difference:
        lowest = min(difference)
        difference -= _reached(undisputed(lowest), descending(lowest))
    conflicted = set().union(*states)
    ascending = sorted(visited)
    chosen = conflicted | difference
    if with_subgraph:
        chosen |= _subgraph(conflicted, ascending, edges)
    return _nearest(chosen, ascending, edges, step)


class _Edges:
    """The auth events of events, fetched in batches as large as possible."""

    def __init__(self, cites: Cites) -> None:
        self._cites = cites
        self.known: dict[int, Sequence[int]] = {}

    def fetch(self, numbers: Iterable[int]) -> None:
        """Fetch those that are not known yet. Raises LookupError if one is missing."""
        unknown = {number for number in numbers if number not in self.known}
        if unknown:
            self.known.update(self._cites(unknown))
        for number in unknown:
            if number not in self.known:
                raise LookupError(f"State resolution lacks the auth events of number {number}")


def _walk(
    states: Sequence[Collection[int]], edges: _Edges, step: Step
) -> tuple[dict[int, int], list[int]]:
    """Return ({number: bit set of the states in whose auth chains it is}, visited numbers).

    Stops at numbers below all conflicted events where all states have the same chain.
    """
    every = (1 << len(states)) - 1
    own: dict[int, int] = {}
    for index, state in enumerate(states):
        for number in state:
            own[number] = own.get(number, 0) | 1 << index
    chains: dict[int, int] = {}
    visited: list[int] = []
    lowest = min(own)
    pending = [-number for number in own]
    heapq.heapify(pending)
    partial = {number for number, bits in own.items() if bits != every}
    while pending and (partial or -pending[0] >= lowest):
        step()
        number = -heapq.heappop(pending)
        visited.append(number)
        partial.discard(number)
        if number not in edges.known:
            edges.fetch([number, *(-it for it in pending)])
        bits = chains.get(number, 0) | own.get(number, 0)
        for cited in edges.known[number]:
            if cited not in chains and cited not in own:
                heapq.heappush(pending, -cited)
            chains[cited] = chains.get(cited, 0) | bits
            if chains[cited] | own.get(cited, 0) == every:
                partial.discard(cited)
            else:
                partial.add(cited)
    return chains, visited


def _reached(
    undisputed: Container[int], descending: Iterable[tuple[int, Sequence[int]]]
) -> set[int]:
    """Return the events in the auth chain of the undisputed events.

    An undisputed event is in the chain only if another one cites it.
    """
    reached: set[int] = set()
    for number, cited in descending:
        if number in reached or number in undisputed:
            reached.update(cited)
    return reached


def _subgraph(conflicted: Set[int], ascending: Iterable[int], edges: _Edges) -> set[int]:
    """Return the events on paths along auth events from one conflicted event to another.

    All visited events are in the chain of a conflicted event, so one below them is all it takes.
    """
    found = set(conflicted)
    for number in ascending:
        if not found.isdisjoint(edges.known[number]):
            found.add(number)
    return found


def _nearest(chosen: Set[int], ascending: Iterable[int], edges: _Edges, step: Step) -> Graph:
    nearest: Graph = {}
    for number in ascending:
        step()
        near: Set[int] = NONE
        for cited in edges.known[number]:
            near |= {cited} if cited in chosen else nearest.get(cited, NONE)
        nearest[number] = near
    return {number: nearest[number] for number in chosen}
