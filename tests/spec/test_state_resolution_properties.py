"""Properties of any room: randomly drawn, with forks, merges, equal timestamps and conflicts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homebody.spec import event_auth, state_resolution
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_state import CREATE, POWER_LEVELS
from homebody.spec.room_versions import V1, V2, V11, V12, VERSIONS, RoomVersion
from tests.spec import dag, full_state_resolution, resolution
from tests.spec.dag import ALICE, BOB, CAROL, DAVE, Room

PEOPLE = (ALICE, BOB, CAROL, DAVE)
RULES = ("public", "invite", "knock")

always = pytest.mark.parametrize("version", [V1, V2, V11, V12], ids=["v1", "v2", "v11", "v12"])
with_v2_and_later = pytest.mark.parametrize("version", [V2, V11, V12], ids=["v2", "v11", "v12"])
rarely = st.integers(0, 3).map(lambda number: number == 0)
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Act:
    """An attempt by a user after one or two of the events so far."""

    name: str
    sender: str
    target: str
    level: int
    back: tuple[int, int]
    """How many events ago those are that this one follows."""
    ts: int


def acts(*names: str) -> st.SearchStrategy[list[Act]]:
    act = st.builds(
        Act,
        name=st.sampled_from(names),
        sender=st.sampled_from(PEOPLE),
        target=st.sampled_from(PEOPLE),
        level=st.sampled_from([0, 49, 50, 51, 99]),
        back=st.tuples(st.integers(0, 4), st.integers(0, 4)),
        ts=st.integers(1, 5),
    )
    return st.lists(act, min_size=6, max_size=16)


anything = acts("join", "join", "leave", "kick", "ban", "invite", "topic", "levels", "rule")
without_mercy = acts("join", "join", "leave", "ban", "invite", "topic", "levels", "rule")


def play(version: RoomVersion, script: Sequence[Act]) -> Room:
    """Return the room with all attempts that were allowed."""
    room = Room(version)
    creators = {} if version.has_privileged_creators else {ALICE: 100}
    room.start({"users": {**creators, BOB: 50}, "events": {"m.room.topic": 0}}, "public")
    for user_id in (BOB, CAROL):
        room.member(user_id, "join")
    for act in script:
        so_far = list(room.events.values())[3:]  # since the power levels
        heads = {so_far[-1 - back % len(so_far)].event_id for back in act.back}
        try:
            perform(room, act, [room.events[id_] for id_ in sorted(heads)])
        except AuthError:
            continue
    return room


def perform(room: Room, act: Act, after: Sequence[Event]) -> None:
    event_type, content, state_key = intention(room, act, after)
    room.send(act.sender, event_type, content, state_key, after=after, ts=act.ts)


def intention(room: Room, act: Act, after: Sequence[Event]) -> tuple[str, Json, str]:
    """Return (type, content, state_key) of an attempt."""
    if act.name == "topic":
        return "m.room.topic", {"topic": act.sender}, ""
    if act.name == "rule":
        return "m.room.join_rules", {"join_rule": RULES[act.level % 3]}, ""
    if act.name == "levels":
        state = room.state_after(*after)
        # v2 can lose the levels: of two that conflict neither stands once their sender has left
        current = room.events[state[POWER_LEVELS]].content if POWER_LEVELS in state else {}
        users = {**current.get("users", {}), act.target: act.level}
        return "m.room.power_levels", {**current, "users": users}, ""
    membership = "leave" if act.name == "kick" else act.name
    target = act.sender if act.name in {"join", "leave"} else act.target
    return "m.room.member", {"membership": membership}, target


def heads_of(room: Room) -> list[Event]:
    """Return the events without successors."""
    followed = {id_ for event in room.events.values() for id_ in event.prev_event_ids}
    return [event for id_, event in room.events.items() if id_ not in followed]


def states_of(room: Room) -> list[dict[StateKey, str]]:
    return [room.states[head.event_id] for head in heads_of(room)]


@always
@quickly
@given(anything, st.randoms(use_true_random=False))
def test_the_order_of_states_and_events_makes_no_difference(
    version: RoomVersion, script: list[Act], chance: random.Random
) -> None:
    room = play(version, script)
    states = states_of(room)
    shuffled = [dict(chance.sample(list(s.items()), len(s))) for s in states]
    chance.shuffle(shuffled)

    resolved = room.resolve(states)

    load = in_any_order(room, chance)
    assert resolution.resolve(version, shuffled, room.events, load=load) == resolved
    assert room.resolve(states * 2) == resolved


def in_any_order(
    room: Room, chance: random.Random
) -> Callable[[Collection[str]], Mapping[str, Event]]:
    """Load the events of the room, sometimes all of them, in arbitrary order."""

    def load(event_ids: Collection[str]) -> dict[str, Event]:
        wanted = sorted(room.events if chance.random() < 0.2 else event_ids)
        chance.shuffle(wanted)
        return {id_: room.events[id_] for id_ in wanted}

    return load


@pytest.mark.parametrize("name", ["1", "2", "6", "10", "11", "12"])
@quickly
@given(anything, st.lists(st.integers(0, 18), min_size=2, max_size=4), st.data())
def test_the_result_is_that_of_whole_states(
    name: str, script: list[Act], places: list[int], data: st.DataObject
) -> None:
    """Whatever states are merged, whatever the order in which the events were numbered."""
    room = play(VERSIONS[name], script)
    ids = list(room.events)
    every = [room.states[ids[place % len(ids)]] for place in places] + states_of(room)
    states = data.draw(st.lists(st.sampled_from(every), min_size=2, max_size=4))
    states = [without_some(state, data) for state in states]
    rejected = data.draw(st.sets(st.sampled_from(ids), max_size=2))
    expected = full_state_resolution.resolve(room.version, states, room.load, rejected)

    numbered = in_another_order(room, data)
    resolved = resolution.resolve(room.version, states, numbered, rejected)

    assert resolved == expected


def without_some(state: Mapping[StateKey, str], data: st.DataObject) -> dict[StateKey, str]:
    """Return the state without some of its entries, as a faulty server might send it."""
    keys = sorted(state)
    lost = data.draw(st.sets(st.sampled_from(keys), max_size=2)) if data.draw(rarely) else set()
    return {key: event_id for key, event_id in state.items() if key not in lost}


def in_another_order(room: Room, data: st.DataObject) -> dict[str, Event]:
    """Return the events in some order in which each comes after the events that it cites."""
    ordered: dict[str, Event] = {}
    waiting = dict(room.events)
    while waiting:
        ready = [it for it in waiting.values() if ordered.keys() >= {*it.auth_event_ids}]
        chosen = data.draw(st.sampled_from(ready))
        ordered[chosen.event_id] = waiting.pop(chosen.event_id)
    return ordered


@always
@quickly
@given(anything)
def test_the_result_is_made_of_the_states_and_of_all_that_they_share(
    version: RoomVersion, script: list[Act]
) -> None:
    room = play(version, script)
    states = states_of(room)

    resolved = room.resolve(states)

    known = set(room.events)
    shared = set.intersection(*(set(state.items()) for state in states))
    assert shared <= resolved.items()
    assert set(resolved.values()) <= known
    for key, event_id in resolved.items():
        event = room.events[event_id]
        assert (event.type, event.state_key) == key


@always
@quickly
@given(anything)
def test_each_state_alone_and_each_with_itself_is_its_own_resolution(
    version: RoomVersion, script: list[Act]
) -> None:
    room = play(version, script)

    for state in states_of(room):
        assert room.resolve([state]) == state
        assert room.resolve([state, state]) == state


@always
@quickly
@given(anything)
def test_the_result_passes_the_rules(version: RoomVersion, script: list[Act]) -> None:
    """Every entry is allowed by its auth events, and the next event by the whole state."""
    room = play(version, script)

    resolved = room.as_events(room.resolve(states_of(room)))

    create = resolved[CREATE]
    for event in resolved.values():
        cited = [room.events[id_] for id_ in event.auth_event_ids]
        event_auth.check_auth_events(event, cited)
        event_auth.check(event, {(e.type, e.state_key or ""): e for e in cited}, create)
    topic = room.intended(ALICE, "m.room.topic", {"topic": "cats"}, "", after=heads_of(room))
    if event_auth.membership(resolved, ALICE) == "join":
        event_auth.check(topic, resolved)
    else:
        with pytest.raises(AuthError, match="not in this room"):
            event_auth.check(topic, resolved)


@with_v2_and_later
@quickly
@given(without_mercy)
def test_who_is_banned_in_one_of_the_states_is_not_in_the_room(
    version: RoomVersion, script: list[Act]
) -> None:
    """If bans are never lifted, and only made by Alice, whose power does not change."""
    bans_by_alice = [act for act in script if act.name != "ban" or act.sender == ALICE]
    alice_stays = [act for act in bans_by_alice if not resigns(act)]
    room = play(version, alice_stays)
    states = states_of(room)

    resolved = room.as_events(room.resolve(states))

    for state in states:
        for (event_type, user_id), event_id in state.items():
            if event_type == "m.room.member" and is_ban(room.events[event_id]):
                assert event_auth.membership(resolved, user_id) == "ban"


def resigns(act: Act) -> bool:
    gives_up_power = act.name == "levels" and act.target == ALICE
    return act.sender == ALICE and (act.name == "leave" or gives_up_power)


def is_ban(event: Event) -> bool:
    membership: str = event.content["membership"]
    return membership == "ban"


@quickly
@given(st.lists(st.integers(1, 4), min_size=2, max_size=20), st.data())
def test_positions_in_the_mainline_are_those_of_the_definition(
    backs: list[int], data: st.DataObject
) -> None:
    """However the histories of power levels fork."""
    history: dict[str, str | None] = {}
    pool = {}
    for number, back in enumerate(backs):
        event_id = f"${number}"
        history[event_id] = f"${number - back}" if number >= back else None
        auth = [it for it in [history[event_id]] if it is not None]
        pool[event_id] = dag.event(
            V11, "m.room.power_levels", ALICE, {}, "", event_id=event_id, auth=auth
        )
    first = data.draw(st.sampled_from([None, *pool]))
    starts = data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1))
    events = state_resolution.Events(lambda ids: {id_: pool[id_] for id_ in ids})

    mainline = state_resolution.Mainline(events, first)
    found = [mainline.position(start) for start in starts]

    expected = walk(history, first)
    for start, position in zip(starts, found, strict=True):
        met = [expected.index(it) for it in walk(history, start) if it in expected]
        assert position == (met[0] if met else math.inf)


def walk(history: Mapping[str, str | None], event_id: str | None) -> list[str]:
    """Return these power levels and those before them."""
    found = []
    while event_id is not None:
        found.append(event_id)
        event_id = history[event_id]
    return found
