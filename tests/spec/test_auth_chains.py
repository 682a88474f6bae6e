"""The full conflicted set, by numbers, compared with the definitions of the specification."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import auth_chains

Edges = dict[int, list[int]]


@st.composite
def rooms(draw: st.DrawFn) -> Edges:
    """Draw {number: auth events}, of events that each cite up to four earlier ones."""
    size = draw(st.integers(2, 25))
    edges: Edges = {1: []}
    for number in range(2, size + 1):
        edges[number] = draw(st.lists(st.integers(1, number - 1), max_size=4, unique=True))
    return edges


@st.composite
def forks(draw: st.DrawFn) -> tuple[Edges, list[set[int]], set[int]]:
    """Draw (edges, disputed events of each state, undisputed events)."""
    edges = draw(rooms())
    numbers = st.sampled_from(sorted(edges))
    undisputed = draw(st.sets(numbers, max_size=8))
    states = draw(st.lists(st.sets(numbers, max_size=5), min_size=2, max_size=4))
    states = [state - undisputed for state in states]
    if not any(states):
        states[0] = {max(edges)}
    return edges, states, undisputed - set().union(*states)


def chain_of(edges: Edges, numbers: Collection[int]) -> set[int]:
    """Return the auth chain of these events."""
    chain: set[int] = set()
    todo = list(numbers)
    while todo:
        for cited in edges[todo.pop()]:
            if cited not in chain:
                chain.add(cited)
                todo.append(cited)
    return chain


def difference_of(edges: Edges, states: list[set[int]], undisputed: set[int]) -> set[int]:
    chains = [chain_of(edges, state | undisputed) for state in states]
    return {n for chain in chains for n in chain if not all(n in other for other in chains)}


def between(edges: Edges, conflicted: set[int]) -> set[int]:
    """Return the conflicted state subgraph."""
    above = chain_of(edges, conflicted)
    return conflicted | {n for n in above if chain_of(edges, [n]) & conflicted}


def nearest_of(edges: Edges, number: int, chosen: set[int]) -> set[int]:
    """Return the first chosen events on each path back."""
    found: set[int] = set()
    for cited in edges[number]:
        found |= {cited} if cited in chosen else nearest_of(edges, cited, chosen)
    return found


def resolve(
    edges: Edges, states: list[set[int]], undisputed: set[int], *, with_subgraph: bool
) -> dict[int, set[int]]:
    graph = auth_chains.full_conflicted_set(
        states,
        lambda lowest: {number for number in undisputed if number >= lowest},
        lambda wanted: {number: edges[number] for number in wanted},
        lambda lowest: [(n, edges[n]) for n in sorted(edges, reverse=True) if n >= lowest],
        with_subgraph=with_subgraph,
    )
    return {number: set(near) for number, near in graph.items()}


@given(forks())
def test_version_2_has_the_conflicted_events_and_the_auth_difference(
    fork: tuple[Edges, list[set[int]], set[int]],
) -> None:
    edges, states, undisputed = fork

    graph = resolve(edges, states, undisputed, with_subgraph=False)

    assert graph.keys() == set().union(*states) | difference_of(edges, states, undisputed)


@given(forks())
def test_version_2_1_has_the_conflicted_subgraph_as_well(
    fork: tuple[Edges, list[set[int]], set[int]],
) -> None:
    edges, states, undisputed = fork
    conflicted = set().union(*states)

    graph = resolve(edges, states, undisputed, with_subgraph=True)

    difference = difference_of(edges, states, undisputed)
    assert graph.keys() == between(edges, conflicted) | difference


@given(forks(), st.booleans())
def test_each_event_is_linked_to_the_nearest_in_its_chain(
    fork: tuple[Edges, list[set[int]], set[int]], with_subgraph: bool
) -> None:
    edges, states, undisputed = fork

    graph = resolve(edges, states, undisputed, with_subgraph=with_subgraph)

    chosen = set(graph)
    assert graph == {number: nearest_of(edges, number, chosen) for number in chosen}


def test_an_undisputed_event_counts_only_if_another_cites_it() -> None:
    edges: Edges = {1: [], 2: [1], 3: [1], 4: [1, 2], 5: [1, 3]}

    assert resolve(edges, [{4}, {3}], {2}, with_subgraph=False).keys() == {2, 3, 4}
    assert resolve(edges, [{4}, {3}], {2, 5}, with_subgraph=False).keys() == {2, 3, 4}

    edges[5] = [2]
    assert resolve(edges, [{4}, {3}], {2, 5}, with_subgraph=False).keys() == {3, 4}


def test_chains_are_not_walked_below_where_they_meet() -> None:
    edges: Edges = {number: [number - 1] for number in range(2, 1000)} | {1: []}
    edges[1000] = edges[1001] = [990]
    asked: set[int] = set()

    def cites(wanted: Collection[int]) -> Edges:
        asked.update(wanted)
        return {number: edges[number] for number in wanted}

    def not_needed(lowest: int) -> set[Any]:
        raise AssertionError(lowest)

    graph = auth_chains.full_conflicted_set(
        [{1000}, {1001}], not_needed, cites, not_needed, with_subgraph=True
    )

    assert graph == {1000: set(), 1001: set()}
    assert asked == {1000, 1001}


def test_an_event_without_known_auth_events_is_an_error() -> None:
    with pytest.raises(LookupError, match="number 7"):
        auth_chains.full_conflicted_set(
            [{7}, {8}], lambda _: (), lambda _: {8: []}, lambda _: (), with_subgraph=False
        )
