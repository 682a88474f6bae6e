import math

import pytest

from homebody.spec import event_auth
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Json
from homebody.spec.room_versions import V1, V5, V6, V9, V10, V11, V12, VERSIONS, RoomVersion
from tests.spec import dag, versions
from tests.spec.dag import ALICE, BOB, CAROL, DAVE

ALL = [VERSIONS[str(number)] for number in range(1, 13)]
every_version = versions.of_each(ALL)
until_9 = versions.of_each(ALL[:9])
since_10 = versions.of_each(ALL[9:])

SENDER = BOB
"""Has 50, and may set power levels."""


def change(version: RoomVersion, before: Json | None, after: Json, sender: str = SENDER) -> None:
    """Check that the sender may make these levels of those; `users` and `events` may leave out
    what lets Bob try."""
    state = dag.room(version, {BOB: "join"}, levels=None if before is None else able(before))
    event_auth.check(dag.event(version, "m.room.power_levels", sender, able(after), ""), state)


def able(content: Json) -> Json:
    """The same levels, and 50 for Bob, which is what power levels need by default."""
    users = content.get("users", {})
    return {**content, "users": {BOB: 50, **users} if isinstance(users, dict) else users}


def allows(version: RoomVersion, before: Json, after: Json) -> bool:
    try:
        change(version, before, after)
    except AuthError:
        return False
    return True


# What the values may be


@every_version
@pytest.mark.parametrize("name", ["users_default", "state_default", "ban", "redact", "kick"])
@pytest.mark.parametrize("value", ["fifty", True, [], {}, "", "5.0"])
def test_every_level_is_a_number(version: RoomVersion, name: str, value: object) -> None:
    with pytest.raises(AuthError, match=f"'{name}' is not an integer"):
        change(version, {}, {name: value})


@pytest.mark.parametrize("name", ["users_default", "events_default", "kick", "invite"])
@pytest.mark.parametrize(
    ("value", "until"), [("40", 9), (" +040 ", 9), (40.5, 9), (None, 9), (40, 12)]
)
@every_version
def test_since_version_10_every_level_is_an_integer(
    version: RoomVersion, name: str, value: object, until: int
) -> None:
    assert allows(version, {}, {name: value}) is (int(version.name) <= until)


@until_9
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "9" * 5000])
def test_levels_out_of_range_are_refused(version: RoomVersion, value: object) -> None:
    contents: list[Json] = [
        {"ban": value},
        {"users": {CAROL: value}},
        {"events": {"m.x": value}},
    ]
    for content in contents:
        with pytest.raises(AuthError, match="is not an integer"):
            change(version, {}, content)


@every_version
@pytest.mark.parametrize(("value", "refusal"), [(5, "not an object"), ({"m.x": []}, "not an int")])
def test_events_are_an_object_of_levels(version: RoomVersion, value: object, refusal: str) -> None:
    with pytest.raises(AuthError, match=refusal):
        change(version, {}, {"events": value})


@pytest.mark.parametrize(("version", "is_allowed"), [(V1, True), (V9, True), (V10, False)])
def test_null_counts_as_not_given_in_old_rooms(version: RoomVersion, is_allowed: bool) -> None:
    assert allows(version, {}, {"events": None}) is is_allowed
    assert allows(version, {}, {"events": {"m.x": None}}) is is_allowed


@pytest.mark.parametrize(("version", "is_allowed"), [(V1, True), (V5, True), (V6, False)])
def test_since_version_6_notifications_are_levels_too(
    version: RoomVersion, is_allowed: bool
) -> None:
    assert allows(version, {}, {"notifications": {"room": []}}) is is_allowed
    assert allows(version, {}, {"notifications": []}) is is_allowed


@every_version
@pytest.mark.parametrize(
    ("users", "refusal"),
    [
        (5, "not an object"),
        (None, "not an object"),
        ([CAROL], "not an object"),
        ({"carol": 0}, "not a user id"),
        ({"@carol": 0}, "not a user id"),
        ({"#carol:three.example": 0}, "not a user id"),
        ({"@" + "c" * 300 + ":three.example": 0}, "not a user id"),
        ({CAROL: "many"}, "not an integer"),
        ({CAROL: None}, "not an integer"),
        ({CAROL: True}, "not an integer"),
    ],
)
def test_users_are_an_object_of_user_ids_and_levels(
    version: RoomVersion, users: object, refusal: str
) -> None:
    with pytest.raises(AuthError, match=refusal):
        change(version, {}, {"users": users})


@every_version
@pytest.mark.parametrize("historical", ["@Ünnamed:two.example", "@:two.example"])
def test_historical_user_ids_may_have_levels(version: RoomVersion, historical: str) -> None:
    change(version, {}, {"users": {historical: 0}})


@until_9
def test_until_version_9_the_level_of_a_user_may_be_a_string(version: RoomVersion) -> None:
    assert allows(version, {}, {"users": {CAROL: "50"}})
    assert not allows(version, {}, {"users": {CAROL: "51"}})


@since_10
def test_since_version_10_the_level_of_a_user_is_an_integer(version: RoomVersion) -> None:
    assert not allows(version, {}, {"users": {CAROL: "50"}})


@pytest.mark.parametrize("content", [{"users": {CAROL: "many"}}, {"ban": "many"}])
def test_the_first_power_levels_of_a_room_are_levels_too(content: Json) -> None:
    with pytest.raises(AuthError, match="not an integer"):
        change(V1, None, content, sender=ALICE)


# Creators


def test_since_version_12_creators_are_not_named() -> None:
    state = dag.room(V12, created_with={"additional_creators": [CAROL]})

    for users in ({ALICE: 100}, {CAROL: 0}):
        levels = dag.event(V12, "m.room.power_levels", ALICE, {"users": users}, "")
        with pytest.raises(AuthError, match="a creator, can't be set"):
            event_auth.check(levels, state)


@versions.of_each(ALL[:11])
def test_until_version_11_creators_are_named_like_everybody(version: RoomVersion) -> None:
    change(version, None, {"users": {ALICE: 100}}, sender=ALICE)


def test_since_version_12_creators_may_give_any_power() -> None:
    change(V12, {"ban": 70}, {"ban": 2**53 - 1, "users": {CAROL: 2**53 - 1}}, sender=ALICE)


# The first power levels


@every_version
def test_the_first_power_levels_may_be_anything(version: RoomVersion) -> None:
    change(version, None, {"users": {CAROL: 9000}, "ban": 9000, "events": {"m.x": 9000}}, ALICE)


# Changes


@every_version
@pytest.mark.parametrize(
    "name",
    ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"],
)
@pytest.mark.parametrize(
    ("before", "after", "is_allowed"),
    [
        (10, 50, True),
        (10, 51, False),
        (50, 10, True),
        (None, 50, True),
        (None, 51, False),
        (50, None, True),
    ],
)
def test_a_named_level_moves_within_the_senders_own(
    version: RoomVersion, name: str, before: int | None, after: int | None, is_allowed: bool
) -> None:
    old = {} if before is None else {name: before}
    new = {} if after is None else {name: after}

    assert allows(version, old, new) is is_allowed


@every_version
@pytest.mark.parametrize("name", ["ban", "redact", "kick", "invite"])
@pytest.mark.parametrize("after", [{}, {"ban": 0, "redact": 0, "kick": 0, "invite": 0}])
def test_a_named_level_above_the_sender_stays(version: RoomVersion, name: str, after: Json) -> None:
    assert allows(version, {name: 51}, {name: 51})
    assert not allows(version, {name: 51}, after)


@every_version
@pytest.mark.parametrize(
    ("before", "after", "is_allowed"),
    [
        ({}, {"m.x": 50}, True),
        ({}, {"m.x": 51}, False),
        ({"m.x": 50}, {"m.x": 0}, True),
        ({"m.x": 50}, {}, True),
        ({"m.x": 51}, {}, False),
        ({"m.x": 51}, {"m.x": 50}, False),
        ({"m.x": 51}, {"m.x": 51}, True),
        ({"m.x": 10}, {"m.x": 51}, False),
    ],
)
def test_the_level_of_an_event_type_moves_within_the_senders_own(
    version: RoomVersion, before: Json, after: Json, is_allowed: bool
) -> None:
    assert allows(version, {"events": before}, {"events": after}) is is_allowed
    guards_notifications = int(version.name) >= 6
    assert allows(version, {"notifications": before}, {"notifications": after}) is (
        is_allowed or not guards_notifications
    )


@every_version
@pytest.mark.parametrize(
    ("before", "after", "is_allowed"),
    [
        ({}, {CAROL: 50}, True),
        ({}, {CAROL: 51}, False),
        ({CAROL: 49}, {CAROL: 50}, True),
        ({CAROL: 49}, {CAROL: 51}, False),
        ({CAROL: 49}, {}, True),
        ({CAROL: 50}, {CAROL: 49}, False),
        ({CAROL: 50}, {}, False),
        ({CAROL: 50}, {CAROL: 51}, False),
        ({CAROL: 50}, {CAROL: 50}, True),
        ({CAROL: 99}, {CAROL: 99, DAVE: 1}, True),
        ({}, {BOB: 0}, True),
        ({}, {BOB: 51}, False),
    ],
)
def test_users_of_less_power_move_within_the_senders_own(
    version: RoomVersion, before: Json, after: Json, is_allowed: bool
) -> None:
    assert allows(version, {"users": before}, {"users": after}) is is_allowed


def test_one_may_give_up_ones_own_level() -> None:
    state = dag.room(V11, {BOB: "join"}, levels={"users": {ALICE: 100, BOB: 50}})
    resigned = dag.event(V11, "m.room.power_levels", BOB, {"users": {ALICE: 100}}, "")

    event_auth.check(resigned, state)


@until_9
def test_in_old_rooms_another_spelling_is_no_change(version: RoomVersion) -> None:
    assert allows(version, {"ban": 70, "users": {CAROL: 60}}, {"ban": "70", "users": {CAROL: "60"}})


@every_version
def test_setting_power_levels_needs_the_level_of_state(version: RoomVersion) -> None:
    with pytest.raises(AuthError, match="needs power level 51"):
        change(version, {"state_default": 51}, {"state_default": 51})
