"""Properties of any room: randomly drawn, with forks, merges, equal timestamps and conflicts."""

from __future__ import annotations

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
from homebody.spec.room_versions import V1, V2, V11, V12, RoomVersion
from tests.spec.dag import ALICE, BOB, CAROL, DAVE, Room

PEOPLE = (ALICE, BOB, CAROL, DAVE)
RULES = ("public", "invite", "knock")

always = pytest.mark.parametrize("version", [V1, V2, V11, V12], ids=["v1", "v2", "v11", "v12"])
with_v2_and_later = pytest.mark.parametrize("version", [V2, V11, V12], ids=["v2", "v11", "v12"])
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

    resolved = state_resolution.resolve(version, states, room.load)

    assert state_resolution.resolve(version, shuffled, in_any_order(room, chance)) == resolved
    assert state_resolution.resolve(version, states * 2, room.load) == resolved


def in_any_order(
    room: Room, chance: random.Random
) -> Callable[[Collection[str]], Mapping[str, Event]]:
    """Load the events of the room, sometimes all of them, in arbitrary order."""

    def load(event_ids: Collection[str]) -> dict[str, Event]:
        wanted = sorted(room.events if chance.random() < 0.2 else event_ids)
        chance.shuffle(wanted)
        return {id_: room.events[id_] for id_ in wanted}

    return load


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
