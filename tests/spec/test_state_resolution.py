"""The scenarios for which the algorithms were designed. Forks are events with `after`."""

from collections.abc import Collection, Mapping

import pytest

from homebody.spec.events import Event, StateKey
from homebody.spec.room_state import CREATE, JOIN_RULES, POWER_LEVELS
from homebody.spec.room_versions import V1, V2, V11, V12, RoomVersion
from tests.spec import full_state_resolution, resolution
from tests.spec.dag import ALICE, BOB, CAROL, DAVE, Room

TOPIC = ("m.room.topic", "")
with_v2 = pytest.mark.parametrize("version", [V2, V11], ids=["v2", "v11"])
with_v2_and_later = pytest.mark.parametrize("version", [V2, V11, V12], ids=["v2", "v11", "v12"])
always = pytest.mark.parametrize("version", [V1, V2, V11, V12], ids=["v1", "v2", "v11", "v12"])


def member(user_id: str) -> StateKey:
    return ("m.room.member", user_id)


def users(room: Room, **levels: int) -> dict[str, int]:
    """Return levels by first name; Alice has 100 or, since version 12, needs no entry."""
    named = {"bob": BOB, "carol": CAROL, "dave": DAVE}
    alice = {} if room.version.has_privileged_creators else {ALICE: 100}
    return {**alice, **{named[name]: level for name, level in levels.items()}}


def room_of(version: RoomVersion, *joined: str, join_rule: str = "public", **levels: int) -> Room:
    """Return a room of Alice with these members and levels."""
    room = Room(version)
    room.start({"users": users(room, **levels)}, join_rule)
    for user_id in joined:
        room.member(user_id, "join")
    return room


def last(room: Room) -> Event:
    return list(room.events.values())[-1]


# All algorithms


@always
def test_one_state_or_equal_states_are_their_own_resolution(version: RoomVersion) -> None:
    room = room_of(version, BOB)
    state = room.states[room.topic(ALICE, "cats").event_id]

    assert room.resolve([state]) == state
    assert room.resolve([state, dict(state), dict(state)]) == state


def test_no_event_is_loaded_where_nothing_conflicts() -> None:
    room = room_of(V11, BOB)
    before = room.asked

    room.resolve([room.states[last(room).event_id]] * 3)

    assert room.asked == before


@always
def test_what_the_states_agree_on_stays(version: RoomVersion) -> None:
    room = room_of(version, BOB, CAROL)
    fork = last(room)
    cats = room.topic(ALICE, "cats", [fork])
    dogs = room.topic(ALICE, "dogs", [fork])

    resolved = room.state_after(cats, dogs)

    assert {k: v for k, v in resolved.items() if k != TOPIC} == room.states[fork.event_id]
    assert resolved[TOPIC] in {cats.event_id, dogs.event_id}


@always
def test_changes_that_do_not_touch_each_other_all_stay(version: RoomVersion) -> None:
    room = room_of(version)
    fork = last(room)
    bob = room.member(BOB, "join", after=[fork])
    carol = room.member(CAROL, "join", after=[fork])
    topic = room.topic(ALICE, "cats", [fork])

    resolved = room.state_after(bob, carol, topic)

    assert resolved[member(BOB)] == bob.event_id
    assert resolved[member(CAROL)] == carol.event_id
    assert resolved[TOPIC] == topic.event_id


def test_an_event_that_is_not_there_is_an_error_and_no_answer() -> None:
    room = room_of(V11, BOB, bob=50)
    fork = last(room)
    topics = [room.topic(ALICE, "cats", [fork]), room.topic(BOB, "dogs", [fork])]
    states = [room.states[topic.event_id] for topic in topics]

    for lost in (topics[0].event_id, states[0][member(BOB)]):

        def load(event_ids: Collection[str], lost: str = lost) -> Mapping[str, Event]:
            return {id_: room.events[id_] for id_ in event_ids if id_ != lost}

        with pytest.raises(LookupError, match="lacks the events"):
            resolution.resolve(V11, states, room.events, load=load)


def test_loading_more_than_asked_for_spares_questions() -> None:
    room = room_of(V11, BOB, bob=50)
    fork = last(room)
    heads = [room.topic(ALICE, "cats", [fork]), room.topic(BOB, "dogs", [fork])]
    states = [room.states[head.event_id] for head in heads]
    asked = []

    def load_everything(event_ids: object) -> Mapping[str, Event]:
        asked.append(event_ids)
        return room.events

    resolved = resolution.resolve(V11, states, room.events, load=load_everything)

    assert resolved == room.resolve(states)
    assert len(asked) == 1


# Versions 2 and 2.1


@with_v2_and_later
def test_a_ban_comes_before_what_the_banned_do_to_the_power_levels(version: RoomVersion) -> None:
    room = room_of(version, BOB, bob=50)
    fork = last(room)
    raised = room.levels(BOB, users(room, bob=50, carol=50), [fork], ts=1)
    ban = room.member(ALICE, "ban", BOB, [fork], ts=2)

    resolved = room.state_after(raised, ban)

    assert resolved[member(BOB)] == ban.event_id
    assert resolved[POWER_LEVELS] == room.states[fork.event_id][POWER_LEVELS]


@with_v2_and_later
def test_a_ban_undoes_what_the_banned_did_meanwhile(version: RoomVersion) -> None:
    room = room_of(version, BOB)
    cats = room.topic(ALICE, "cats")
    room.levels(ALICE, users(room, bob=50))
    dogs = room.topic(BOB, "dogs")
    ban = room.member(ALICE, "ban", BOB)

    resolved = room.state_after(ban, cats)

    assert room.states[ban.event_id][TOPIC] == dogs.event_id
    assert resolved[TOPIC] == cats.event_id
    assert resolved[member(BOB)] == ban.event_id


@with_v2_and_later
def test_who_has_lost_power_meanwhile_does_not_set_the_topic(version: RoomVersion) -> None:
    room = room_of(version, BOB)
    room.topic(ALICE, "cats")
    given = room.levels(ALICE, users(room, bob=50))
    room.levels(ALICE, users(room, bob=0), [given])
    taken = last(room)
    dogs = room.topic(ALICE, "dogs")
    room.levels(BOB, users(room, bob=50, carol=1), [given])
    mice = room.topic(BOB, "mice")

    resolved = room.state_after(dogs, mice)

    assert resolved[POWER_LEVELS] == taken.event_id
    assert resolved[TOPIC] == dogs.event_id


@with_v2_and_later
def test_who_joins_while_the_room_closes_is_not_in_it(version: RoomVersion) -> None:
    room = room_of(version)
    fork = last(room)
    closed = room.join_rule(ALICE, "invite", [fork])
    room.member(BOB, "join", after=[fork], ts=1)

    resolved = room.state_after(closed, last(room))

    assert resolved[JOIN_RULES] == closed.event_id
    assert member(BOB) not in resolved


@with_v2_and_later
def test_power_levels_that_build_on_each_other_are_played_in_their_order(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB, CAROL)
    given = room.levels(ALICE, users(room, bob=50))
    room.levels(BOB, users(room, bob=50, carol=50), ts=3)
    resigned = room.levels(CAROL, users(room, bob=50, carol=0), ts=1)

    resolved = room.state_after(resigned, given)

    assert resolved[POWER_LEVELS] == resigned.event_id


@with_v2_and_later
def test_of_two_power_levels_that_of_the_mightier_comes_first(version: RoomVersion) -> None:
    room = room_of(version, BOB, bob=50)
    fork = last(room)
    by_alice = room.levels(ALICE, users(room, bob=50, carol=60), [fork], ts=2)
    by_bob = room.levels(BOB, users(room, bob=50, carol=10), [fork], ts=1)

    # Bob's, played second, would take power from Carol, who has more than he by then
    assert room.state_after(by_alice, by_bob)[POWER_LEVELS] == by_alice.event_id


@with_v2_and_later
@pytest.mark.parametrize(("cats_ts", "dogs_ts"), [(1, 2), (2, 1), (1, 1)])
def test_of_two_topics_made_under_the_same_power_the_later_wins_then_the_greater_id(
    version: RoomVersion, cats_ts: int, dogs_ts: int
) -> None:
    room = room_of(version, BOB, bob=50)
    fork = last(room)
    cats = room.topic(ALICE, "cats", [fork], ts=cats_ts)
    dogs = room.topic(BOB, "dogs", [fork], ts=dogs_ts)

    winner = max(cats, dogs, key=lambda e: (e.origin_server_ts, e.event_id))
    assert room.state_after(cats, dogs)[TOPIC] == winner.event_id


@with_v2
def test_a_topic_made_under_newer_power_levels_wins_whatever_its_clock_says(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB, bob=50)
    fork = last(room)
    cats = room.topic(BOB, "cats", [fork], ts=9000)
    room.levels(ALICE, users(room, bob=50, carol=1), [fork])
    dogs = room.topic(ALICE, "dogs", ts=1)

    assert room.state_after(cats, dogs)[TOPIC] == dogs.event_id


@with_v2
def test_an_offshoot_of_the_power_levels_counts_from_where_it_left_the_mainline(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB, bob=50)
    old = room.levels(ALICE, users(room, bob=50, carol=1))
    new = room.levels(ALICE, users(room, bob=50, carol=60))
    cats = room.topic(BOB, "cats", [new], ts=1)
    room.levels(BOB, users(room, bob=50, carol=10), [old])  # refused after `new`
    dogs = room.topic(BOB, "dogs", ts=9000)

    resolved = room.state_after(cats, dogs)

    assert resolved[POWER_LEVELS] == new.event_id
    assert resolved[TOPIC] == cats.event_id


@with_v2_and_later
def test_a_kick_comes_before_the_new_name_that_the_kicked_took_meanwhile(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB)
    room.join_rule(ALICE, "invite")
    fork = last(room)
    kick = room.member(ALICE, "leave", BOB, [fork])
    renamed = room.send(
        BOB, "m.room.member", {"membership": "join", "displayname": "B"}, BOB, after=[fork]
    )

    assert room.state_after(kick, renamed)[member(BOB)] == kick.event_id


@with_v2_and_later
def test_an_invite_and_a_leaving_of_ones_own_accord_go_by_time(version: RoomVersion) -> None:
    room = room_of(version, BOB, CAROL, join_rule="public")
    left = room.member(CAROL, "leave")
    invite = room.member(BOB, "invite", CAROL, [left])
    refused = room.member(CAROL, "leave")

    assert room.state_after(left, invite, refused)[member(CAROL)] == refused.event_id


@with_v2_and_later
def test_the_room_stays_with_its_creator(version: RoomVersion) -> None:
    room = room_of(version, BOB, bob=99)
    fork = last(room)
    coup = room.levels(BOB, users(room, bob=99), [fork], ts=1, ban=99, kick=99, state_default=99)
    ban = room.member(ALICE, "ban", BOB, [fork], ts=9000)

    resolved = room.state_after(coup, ban)

    assert resolved[member(BOB)] == ban.event_id
    assert resolved[POWER_LEVELS] != coup.event_id
    assert resolved[member(ALICE)] == room.states[fork.event_id][member(ALICE)]


@with_v2_and_later
def test_power_events_come_in_the_order_of_their_chain_also_where_it_is_undisputed(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB, bob=50)
    by_bob = room.levels(BOB, users(room, bob=50, carol=10))
    room.levels(ALICE, users(room, bob=50))
    room.member(CAROL, "join")  # cites the power levels in between, in both states
    by_alice = room.levels(ALICE, users(room, bob=50, dave=5))
    state = room.states[by_alice.event_id]
    stale = {**state, POWER_LEVELS: by_bob.event_id}

    # Power alone would play Alice's first, and Bob's, which is allowed then, would undo it
    assert room.resolve([state, stale])[POWER_LEVELS] == by_alice.event_id


@with_v2
def test_positions_in_the_mainline_hold_for_all_events_of_an_offshoot(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB, bob=50)
    for event_type in ("m.room.topic", "m.room.name"):
        room.send(BOB, event_type, {}, "", ts=9000)
    old = room.levels(ALICE, users(room, bob=50, carol=1))
    new = room.levels(ALICE, users(room, bob=50, carol=60))
    room.levels(BOB, users(room, bob=50, carol=10), [old])
    topic = room.topic(BOB, "dogs", ts=1)
    name = room.send(BOB, "m.room.name", {}, "", ts=1)

    resolved = room.state_after(new, name)

    assert resolved[TOPIC] == topic.event_id
    assert resolved["m.room.name", ""] == name.event_id


@with_v2_and_later
def test_who_leaves_of_ones_own_accord_keeps_the_topic_set_before(version: RoomVersion) -> None:
    room = room_of(version, BOB, bob=50)
    fork = last(room)
    cats = room.topic(ALICE, "cats", [fork], ts=1)
    dogs = room.topic(BOB, "dogs", [fork], ts=2)
    left = room.member(BOB, "leave", after=[dogs], ts=3)

    assert room.state_after(cats, left)[TOPIC] == dogs.event_id


@with_v2_and_later
def test_an_old_rule_that_is_played_again_does_not_stay(version: RoomVersion) -> None:
    room = room_of(version, BOB)
    closed = room.join_rule(ALICE, "invite")
    state = room.states[closed.event_id]
    stale = {key: id_ for key, id_ in state.items() if key != member(BOB)}

    # Only Bob's join has the old rule in its auth chain, which makes that a difference
    assert room.resolve([state, stale]) == state


@with_v2
def test_rejected_auth_events_do_not_help_an_event_through(version: RoomVersion) -> None:
    room = room_of(version, bob=50)
    invite = room.member(ALICE, "invite", BOB)
    room.join_rule(ALICE, "invite")
    join = room.member(BOB, "join")
    cites_join = room.send(BOB, "org.example.location", {}, BOB)  # so both chains have the invite
    state = room.states[cites_join.event_id]
    without = {key: id_ for key, id_ in state.items() if key != member(BOB)}

    assert room.resolve([state, without])[member(BOB)] == join.event_id
    resolved = room.resolve([state, without], rejected={invite.event_id})
    assert member(BOB) not in resolved


def test_events_in_a_circle_end_nothing_but_themselves() -> None:
    """In versions 1 and 2 servers choose the ids, so auth events may form cycles."""
    room = room_of(V2, BOB, bob=50)
    fork = last(room)
    cats = room.topic(BOB, "cats", [fork])
    dogs = room.topic(ALICE, "dogs", [fork])
    one = room.levels(BOB, users(room, bob=50, carol=1), [cats])
    two = room.levels(BOB, users(room, bob=50, carol=2))
    mice = room.topic(BOB, "mice")
    one.auth_event_ids.append(two.event_id)
    one.auth_event_ids.remove(room.states[fork.event_id][POWER_LEVELS])

    resolved = room.resolve([room.states[mice.event_id], room.states[dogs.event_id]])

    assert resolved[TOPIC] == dogs.event_id
    assert resolved[POWER_LEVELS] not in {one.event_id, two.event_id}


@with_v2_and_later
def test_an_undisputed_event_is_in_the_chain_of_all_states_only_if_another_cites_it(
    version: RoomVersion,
) -> None:
    room = room_of(version, BOB, bob=50)
    fork = last(room)
    carol = room.member(CAROL, "join", after=[fork])
    renamed = room.send(
        CAROL, "m.room.member", {"membership": "join", "displayname": "C"}, CAROL, after=[carol]
    )
    # Both states have Bob's join, which only the chain of his topic has
    dogs = room.topic(BOB, "dogs", [renamed])
    cats = room.topic(ALICE, "cats", [renamed])
    states = [room.states[topic.event_id] for topic in (cats, dogs)]
    bob = states[0][member(BOB)]

    agreed, conflicts = resolution.split(states)
    sets = [{ids[index] or "" for ids in conflicts.values()} for index in range(2)]
    graph = resolution.full_conflicted_set_of(version, sets, agreed.values(), room.events)

    assert agreed[member(BOB)] == bob
    assert graph.keys() == {cats.event_id, dogs.event_id, bob}


@with_v2_and_later
def test_a_key_that_no_state_has_may_be_added(version: RoomVersion) -> None:
    room = room_of(version, carol=50)
    before = room.states[last(room).event_id]
    join = room.member(CAROL, "join")
    after = room.states[room.topic(CAROL, "dogs").event_id]
    lost = {key: event_id for key, event_id in after.items() if key != member(CAROL)}

    # Neither state has Carol's join, but the auth chain of her topic has
    resolved = room.resolve([before, lost])

    assert resolved == after
    assert resolved[member(CAROL)] == join.event_id
    assert full_state_resolution.resolve(version, [before, lost], room.load) == after


# What version 2.1 corrects


def test_what_was_right_in_its_time_is_not_judged_by_newer_rules() -> None:
    room = room_of(V12, CAROL)
    room.member(BOB, "join")
    closed = room.join_rule(ALICE, "invite")
    state = room.states[closed.event_id]
    stale = {key: id_ for key, id_ in state.items() if key != member(BOB)}

    reset = room.resolve([state, stale], by=V11)
    resolved = room.resolve([state, stale])

    assert member(BOB) not in reset
    assert resolved == state


def test_the_events_between_conflicting_ones_are_played_too() -> None:
    room = room_of(V12, BOB, bob=50)
    old = room.state_after(last(room))[POWER_LEVELS]
    room.levels(ALICE, users(room, bob=100))
    room.member(CAROL, "join")  # cites the power levels in between, in both states
    new = room.levels(BOB, users(room, bob=100, carol=60))
    state = room.states[new.event_id]
    stale = {**state, POWER_LEVELS: old}

    reset = room.resolve([state, stale], by=V11)
    resolved = room.resolve([state, stale])

    assert reset[POWER_LEVELS] == old
    assert resolved[POWER_LEVELS] == new.event_id


# Version 1


def test_v1_plays_conflicting_power_levels_by_depth_until_one_is_refused() -> None:
    room = room_of(V1, BOB, bob=50)
    fork = last(room)
    taken = room.levels(ALICE, users(room, bob=0), [fork])
    room.topic(BOB, "cats", [fork])
    room.topic(BOB, "dogs")
    deeper = room.levels(BOB, users(room, bob=50, carol=50))

    assert room.state_after(taken, deeper)[POWER_LEVELS] == taken.event_id


def test_v1_looks_at_no_power_levels_after_one_that_was_refused() -> None:
    room = room_of(V1, BOB, bob=50)
    fork = last(room)
    taken = room.levels(ALICE, users(room, bob=0), [fork])
    room.topic(BOB, "cats", [fork])
    deeper = room.levels(BOB, users(room, bob=50, carol=50))
    room.topic(ALICE, "dogs", [fork])
    room.topic(ALICE, "mice")
    deepest = room.levels(ALICE, users(room, bob=1))

    assert room.state_after(taken, deeper, deepest)[POWER_LEVELS] == taken.event_id
    assert room.state_after(taken, deepest)[POWER_LEVELS] == deepest.event_id


def test_v1_prefers_the_deeper_of_two_allowed_events() -> None:
    room = room_of(V1, BOB, bob=50)
    fork = last(room)
    shallow = room.topic(ALICE, "cats", [fork], ts=9000)
    room.topic(ALICE, "dogs", [fork])
    deep = room.topic(BOB, "mice", ts=1)

    assert room.state_after(shallow, deep)[TOPIC] == deep.event_id


def test_v1_breaks_ties_by_the_sha1_of_the_id() -> None:
    room = room_of(V1, BOB, CAROL, bob=50)
    fork = last(room)
    topics = [room.topic(ALICE, text, [fork]) for text in ("cats", "dogs", "mice", "bats")]

    # sha1sum of "$006 m.room.topic:one.example" b017…, of 007 d5bc…, 008 264b…, 009 c4c3…
    assert room.state_after(*topics)[TOPIC] == topics[2].event_id


def test_v1_takes_no_topic_of_somebody_who_lost_the_power() -> None:
    room = room_of(V1, BOB, bob=50)
    fork = last(room)
    cats = room.topic(ALICE, "cats", [fork])
    room.levels(ALICE, users(room, bob=0))
    room.topic(BOB, "dogs", [fork])
    mice = room.topic(BOB, "mice")

    assert room.state_after(last_levels(room), mice)[TOPIC] == cats.event_id


def test_v1_resolves_members_by_the_power_levels_and_join_rule_resolved_before() -> None:
    room = room_of(V1, BOB, CAROL, bob=50)
    fork = last(room)
    room.member(CAROL, "leave", after=[fork])
    closed = room.join_rule(ALICE, "invite")
    ban = room.member(BOB, "ban", CAROL, [fork])

    resolved = room.state_after(closed, ban)

    assert resolved[JOIN_RULES] == closed.event_id
    assert resolved[member(CAROL)] == ban.event_id


def test_v1_leaves_a_key_empty_where_no_event_is_allowed() -> None:
    room = room_of(V1, BOB, CAROL, bob=50, carol=50)
    fork = last(room)
    cats = room.topic(BOB, "cats", [fork])
    dogs = room.topic(CAROL, "dogs", [fork])
    taken = room.levels(ALICE, users(room), [fork])
    levels = room.states[taken.event_id]
    states = [
        room.states[topic.event_id] | {POWER_LEVELS: levels[POWER_LEVELS]} for topic in (cats, dogs)
    ]

    assert TOPIC not in room.resolve(states)
    assert CREATE in room.resolve(states)


def last_levels(room: Room) -> Event:
    return [e for e in room.events.values() if e.type == "m.room.power_levels"][-1]
