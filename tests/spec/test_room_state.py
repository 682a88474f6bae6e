import math

import pytest

from homebody.spec import room_state
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import V1, V10, V11, V12
from tests.spec import dag
from tests.spec.dag import ALICE, BOB, CAROL


def test_without_power_levels_the_creator_has_100_and_the_defaults_apply() -> None:
    levels = room_state.power_levels(dag.room(V11))

    assert (levels.of_user(ALICE), levels.of_user(BOB)) == (100, 0)
    assert (levels.to_ban, levels.to_kick, levels.to_redact, levels.to_invite) == (50, 50, 50, 0)
    assert levels.to_send("m.room.topic", is_state=True) == 50
    assert levels.to_send("m.room.message", is_state=False) == 0
    assert levels.notification("room") == 50


def test_with_power_levels_that_do_not_name_them_a_creator_has_the_default_of_all() -> None:
    levels = room_state.power_levels(dag.room(V11, levels={"users_default": 7}))

    assert levels.of_user(ALICE) == 7


def test_power_levels_say_what_everybody_may() -> None:
    content = {
        "users": {BOB: 40},
        "users_default": 3,
        "events": {"m.room.topic": 10, "org.example.dance": 20},
        "events_default": 1,
        "state_default": 60,
        "ban": 51,
        "kick": 52,
        "redact": 53,
        "invite": 54,
        "notifications": {"room": 55},
    }

    levels = room_state.power_levels(dag.room(V11, levels=content))

    assert (levels.of_user(BOB), levels.of_user(CAROL)) == (40, 3)
    assert (levels.to_ban, levels.to_kick, levels.to_redact, levels.to_invite) == (51, 52, 53, 54)
    assert levels.to_send("m.room.topic", is_state=True) == 10
    assert levels.to_send("org.example.dance", is_state=False) == 20
    assert levels.to_send("m.room.name", is_state=True) == 60
    assert levels.to_send("m.room.message", is_state=False) == 1
    assert levels.notification("room") == 55


def test_since_version_12_all_creators_have_infinite_power() -> None:
    state = dag.room(V12, levels={"users_default": 5}, created_with={"additional_creators": [BOB]})

    levels = room_state.power_levels(state)

    assert levels.of_user(ALICE) == levels.of_user(BOB) == math.inf
    assert levels.of_user(CAROL) == 5


def test_the_create_event_may_come_beside_the_state() -> None:
    state = dag.room(V12)
    create = state.pop(room_state.CREATE)

    assert room_state.power_levels(state, create).of_user(ALICE) == math.inf
    assert room_state.power_levels(state).of_user(ALICE) == 0


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (50, 50),
        (-1, -1),
        ("100", 100),
        ("000100", 100),
        (" +100 ", 100),
        ("-100", -100),
        ("\t7\n", 7),
        (50.57, 50),
        (5.114698e4, 51146),
        (-0.5, 0),
        ("1_000", None),
        ("1e2", None),
        ("5.0", None),
        ("٣", None),
        ("", None),
        ("9" * 5000, None),
        (math.inf, None),
        (math.nan, None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_a_level_may_be_written_in_the_ways_of_old_rooms(value: object, level: int | None) -> None:
    assert room_state.read_level(value) == level


def test_strings_count_in_the_power_levels_of_old_rooms() -> None:
    content = {"users": {BOB: " 40"}, "ban": "60", "events": {"m.room.topic": "0"}}

    levels = room_state.power_levels(dag.room(V1, levels=content))

    assert (levels.of_user(BOB), levels.to_ban) == (40, 60)
    assert levels.to_send("m.room.topic", is_state=True) == 0


@pytest.mark.parametrize(
    ("create", "expected"),
    [
        (dag.create(V1, BOB, {"creator": ALICE}), {ALICE}),
        (dag.create(V1, BOB, {"creator": 7}), set()),
        (dag.create(V10, BOB, {"creator": ALICE}), {ALICE}),
        (dag.create(V11, BOB, {"creator": ALICE}), {BOB}),
        (dag.create(V11, BOB, {"additional_creators": [ALICE]}), {BOB}),
        (dag.create(V12, BOB), {BOB}),
        (dag.create(V12, BOB, {"additional_creators": [ALICE, BOB]}), {ALICE, BOB}),
    ],
)
def test_who_the_creators_are_depends_on_the_version(create: Event, expected: set[str]) -> None:
    assert room_state.creators(create) == expected


def test_a_stranger_counts_as_having_left() -> None:
    state = dag.room(V11, {BOB: "ban"})

    assert room_state.membership(state, ALICE) == "join"
    assert room_state.membership(state, BOB) == "ban"
    assert room_state.membership(state, CAROL) == "leave"


@pytest.mark.parametrize("content", [None, {}, {"join_rule": None}, {"join_rule": ["public"]}])
def test_a_room_without_a_join_rule_is_by_invitation(content: Json | None) -> None:
    state = dag.room(V11, join_rule=None)
    if content is not None:
        rules = dag.event(V11, "m.room.join_rules", ALICE, content, "")
        state[room_state.JOIN_RULES] = rules

    assert room_state.join_rule(state) == "invite"


def test_a_join_rule_is_given_as_it_stands() -> None:
    assert room_state.join_rule(dag.room(V11, join_rule="org.example.dance")) == "org.example.dance"
