from typing import Any

import pytest

from homebody.spec import event_auth, room_state
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import V1, V2, V3, V5, V7, V11, V12, VERSIONS, RoomVersion
from tests.spec import dag, versions
from tests.spec.dag import ALICE, BOB, CAROL

CREATE = room_state.CREATE
LEVELS = room_state.POWER_LEVELS
RULES = room_state.JOIN_RULES

ALL = [VERSIONS[str(number)] for number in range(1, 13)]
every_version = versions.of_each(ALL)


def member_of(user_id: str) -> tuple[str, str]:
    return ("m.room.member", user_id)


# Auth events selection


@pytest.mark.parametrize(
    ("version", "event_type", "state_key", "content", "expected"),
    [
        (V11, "m.room.create", "", {}, []),
        (V11, "m.room.message", None, {}, [CREATE, LEVELS, member_of(ALICE)]),
        (V12, "m.room.message", None, {}, [LEVELS, member_of(ALICE)]),
        (V11, "m.room.topic", "", {}, [CREATE, LEVELS, member_of(ALICE)]),
        (V12, "m.room.member", ALICE, {"membership": "leave"}, [LEVELS, member_of(ALICE)]),
        (V12, "m.room.member", ALICE, {"membership": "join"}, [LEVELS, member_of(ALICE), RULES]),
        (
            V12,
            "m.room.member",
            BOB,
            {"membership": "ban"},
            [LEVELS, member_of(ALICE), member_of(BOB)],
        ),
        (
            V12,
            "m.room.member",
            BOB,
            {"membership": "invite"},
            [LEVELS, member_of(ALICE), member_of(BOB), RULES],
        ),
        (V12, "m.room.member", ALICE, {"membership": "knock"}, [LEVELS, member_of(ALICE), RULES]),
        (
            V12,
            "m.room.member",
            BOB,
            {"membership": "invite", "third_party_invite": {"signed": {"token": "abc"}}},
            [
                LEVELS,
                member_of(ALICE),
                member_of(BOB),
                RULES,
                ("m.room.third_party_invite", "abc"),
            ],
        ),
        (
            V12,
            "m.room.member",
            ALICE,
            {"membership": "join", "join_authorised_via_users_server": CAROL},
            [LEVELS, member_of(ALICE), member_of(CAROL), RULES],
        ),
        (
            V7,
            "m.room.member",
            ALICE,
            {"membership": "join", "join_authorised_via_users_server": CAROL},
            [CREATE, LEVELS, member_of(ALICE), RULES],
        ),
        (
            V12,
            "m.room.member",
            ALICE,
            {"membership": "leave", "join_authorised_via_users_server": CAROL},
            [LEVELS, member_of(ALICE)],
        ),
        (
            V12,
            "m.room.member",
            ALICE,
            {"membership": "join", "join_authorised_via_users_server": ALICE},
            [LEVELS, member_of(ALICE), RULES],
        ),
        (V12, "m.room.member", None, {"membership": ["join"]}, [LEVELS, member_of(ALICE)]),
        (
            V12,
            "m.room.member",
            ALICE,
            {"membership": "invite", "third_party_invite": {"signed": []}},
            [LEVELS, member_of(ALICE), RULES],
        ),
        (
            V12,
            "m.room.member",
            ALICE,
            {"membership": "join", "join_authorised_via_users_server": 5},
            [LEVELS, member_of(ALICE), RULES],
        ),
    ],
)
def test_the_auth_events_are_those_that_the_rules_look_at(
    version: RoomVersion,
    event_type: str,
    state_key: str | None,
    content: Json,
    expected: list[tuple[str, str]],
) -> None:
    types = event_auth.auth_types(version, event_type, state_key, ALICE, content)

    assert sorted(types) == sorted(expected)


# Rule 2 (3 since version 12): the event's auth_events


@every_version
def test_the_right_auth_events_are_accepted(version: RoomVersion) -> None:
    state = dag.room(version, levels={})
    message = dag.event(version, "m.room.message", ALICE)
    types = event_auth.auth_types(version, message.type, None, ALICE, {})

    event_auth.check_auth_events(message, [state[key] for key in types])


def test_auth_events_may_not_have_an_entry_twice() -> None:
    state = dag.room(V11)
    cited = [state[CREATE], state[member_of(ALICE)], dag.member(V11, ALICE, "leave")]

    with pytest.raises(AuthError, match="twice"):
        event_auth.check_auth_events(dag.event(V11, "m.room.message", ALICE), cited)


@pytest.mark.parametrize(
    "stray",
    [
        dag.member(V11, BOB, "join"),
        dag.event(V11, "m.room.join_rules", ALICE, {}, ""),
        dag.event(V11, "m.room.power_levels", ALICE, {}),
        dag.event(V11, "m.room.power_levels", ALICE, {}, "other"),
    ],
)
def test_auth_events_may_not_have_what_is_no_matter_of_the_event(stray: Event) -> None:
    cited = [dag.create(V11), stray]

    with pytest.raises(AuthError, match="does not belong there"):
        event_auth.check_auth_events(dag.event(V11, "m.room.message", ALICE), cited)


def test_since_version_12_auth_events_do_not_have_the_create_event() -> None:
    with pytest.raises(AuthError, match="does not belong there"):
        event_auth.check_auth_events(dag.event(V12, "m.room.message", ALICE), [dag.create(V12)])


def test_until_version_11_auth_events_need_the_create_event() -> None:
    message = dag.event(V11, "m.room.message", ALICE)

    with pytest.raises(AuthError, match="lacks the create event"):
        event_auth.check_auth_events(message, [dag.member(V11, ALICE, "join")])


def test_rejected_auth_events_reject_the_event() -> None:
    joined = dag.member(V12, ALICE, "join")

    with pytest.raises(AuthError, match="was rejected"):
        event_auth.check_auth_events(
            dag.event(V12, "m.room.message", ALICE), [joined], {joined.event_id}
        )


def test_auth_events_of_another_room_reject_the_event() -> None:
    content = {"membership": "join"}
    elsewhere = dag.event(V12, "m.room.member", ALICE, content, ALICE, room_id="!elsewhere")

    with pytest.raises(AuthError, match="of another room"):
        event_auth.check_auth_events(dag.event(V12, "m.room.message", ALICE), [elsewhere])


def test_a_create_event_needs_no_auth_events() -> None:
    event_auth.check_auth_events(dag.create(V11), [])


# Rule 1: m.room.create


@every_version
def test_a_create_event_begins_a_room(version: RoomVersion) -> None:
    event_auth.check(dag.create(version), {})


@every_version
def test_a_create_event_may_follow_nothing(version: RoomVersion) -> None:
    late = dag.event(version, "m.room.create", ALICE, dag.create(version).content, "")

    with pytest.raises(AuthError, match="must not have prev_events"):
        event_auth.check(late, {})


@versions.of_each(ALL[:-1])
def test_until_version_11_the_room_id_is_of_the_creators_server(version: RoomVersion) -> None:
    with pytest.raises(AuthError, match="does not belong to the creator's server"):
        event_auth.check(dag.create(version, BOB), {})


def test_since_version_12_the_room_id_is_not_in_the_create_event() -> None:
    create = dag.create(V12)
    create.pdu["room_id"] = "!room:one.example"

    with pytest.raises(AuthError, match="must not have a room_id"):
        event_auth.check(create, {})


def test_since_version_12_anybodys_server_may_create() -> None:
    event_auth.check(dag.create(V12, BOB), {})


@every_version
@pytest.mark.parametrize("named", ["0", "org.example.mine", 5, None, ["1"]])
def test_an_unknown_room_version_is_refused(version: RoomVersion, named: object) -> None:
    with pytest.raises(AuthError, match="Unknown room version"):
        event_auth.check(dag.create(version, content={"room_version": named}), {})


def test_version_1_need_not_be_named() -> None:
    create = dag.event(V1, "m.room.create", ALICE, {"creator": ALICE}, "", prev=())

    event_auth.check(create, {})


@versions.of_each(ALL[:10])
def test_until_version_10_the_create_event_names_a_creator(version: RoomVersion) -> None:
    create = dag.create(version)
    del create.content["creator"]

    with pytest.raises(AuthError, match="has no creator"):
        event_auth.check(create, {})


@pytest.mark.parametrize("others", [None, BOB, {BOB: 1}, [BOB, 7], ["bob"], ["@bob"], ["@b:"]])
def test_additional_creators_are_user_ids(others: object) -> None:
    create = dag.create(V12, content={"additional_creators": others})

    with pytest.raises(AuthError, match="not a list of user ids"):
        event_auth.check(create, {})


@pytest.mark.parametrize(("version", "others"), [(V12, []), (V12, [BOB]), (V11, "who cares")])
def test_fitting_additional_creators_are_allowed(version: RoomVersion, others: object) -> None:
    event_auth.check(dag.create(version, content={"additional_creators": others}), {})


# The room itself: rule 2 since version 12, and m.federate


@every_version
def test_nothing_is_allowed_without_a_create_event(version: RoomVersion) -> None:
    with pytest.raises(AuthError, match="no create event"):
        event_auth.check(dag.event(version, "m.room.message", ALICE), {})


def test_since_version_12_the_room_id_is_that_of_the_create_event() -> None:
    state = dag.room(V12)
    elsewhere = dag.event(V12, "m.room.message", ALICE, room_id="!elsewhere")

    with pytest.raises(AuthError, match="no create event"):
        event_auth.check(elsewhere, state)


def test_the_create_event_may_come_beside_the_state() -> None:
    state = dag.room(V12)
    create = state.pop(CREATE)

    event_auth.check(dag.event(V12, "m.room.message", ALICE), state, create)


@every_version
def test_a_room_that_does_not_federate_is_closed_to_other_servers(version: RoomVersion) -> None:
    state = dag.room(version, {BOB: "join"}, created_with={"m.federate": False})

    event_auth.check(dag.event(version, "m.room.message", ALICE), state)
    with pytest.raises(AuthError, match="restricted to users"):
        event_auth.check(dag.event(version, "m.room.message", BOB), state)


def test_only_the_boolean_false_ends_federation() -> None:
    state = dag.room(V11, {BOB: "join"}, created_with={"m.federate": 0})

    event_auth.check(dag.event(V11, "m.room.message", BOB), state)


# Rule 4 until version 5: m.room.aliases


@pytest.mark.parametrize("version", [V1, V5])
@pytest.mark.parametrize(
    ("state_key", "is_allowed"), [("two.example", True), ("one.example", False), (None, False)]
)
def test_until_version_5_a_server_lists_its_own_aliases(
    version: RoomVersion, state_key: str | None, is_allowed: bool
) -> None:
    aliases = dag.event(version, "m.room.aliases", BOB, {}, state_key)

    assert dag.allows(dag.room(version), aliases) is is_allowed


@versions.of_each(ALL[5:])
def test_since_version_6_aliases_are_state_like_any_other(version: RoomVersion) -> None:
    state = dag.room(version, {BOB: "join"}, levels={"users": {ALICE: 100}})

    assert not dag.allows(state, dag.event(version, "m.room.aliases", BOB, {}, "two.example"))
    assert dag.allows(state, dag.event(version, "m.room.aliases", ALICE, {}, "two.example"))


# Rules 6 to 9: the sender, and what is required of them


@every_version
@pytest.mark.parametrize("membership", [None, "invite", "leave", "ban", "knock"])
def test_who_is_not_in_the_room_sends_nothing(version: RoomVersion, membership: str | None) -> None:
    state = dag.room(version, {BOB: membership} if membership else {}, join_rule="public")

    with pytest.raises(AuthError, match="is not in this room"):
        event_auth.check(dag.event(version, "m.room.message", BOB), state)


@every_version
@pytest.mark.parametrize(
    ("levels", "is_allowed"),
    [
        ({}, True),
        ({"events_default": 1}, False),
        ({"events_default": 1, "users_default": 1}, True),
        ({"events_default": 1, "users": {BOB: 1}}, True),
        ({"events_default": 1, "events": {"m.room.message": 0}}, True),
        ({"events": {"m.room.message": 1}}, False),
        ({"users_default": -1}, False),
    ],
)
def test_a_message_needs_the_level_of_its_type(
    version: RoomVersion, levels: Json, is_allowed: bool
) -> None:
    state = dag.room(version, {BOB: "join"}, levels=levels)

    assert dag.allows(state, dag.event(version, "m.room.message", BOB)) is is_allowed


@every_version
@pytest.mark.parametrize(
    ("levels", "is_allowed"),
    [
        (None, False),
        ({}, False),
        ({"users": {BOB: 49}}, False),
        ({"users": {BOB: 50}}, True),
        ({"state_default": 0}, True),
        ({"events": {"m.room.topic": 0}}, True),
    ],
)
def test_state_needs_50_unless_said_otherwise(
    version: RoomVersion, levels: Json | None, is_allowed: bool
) -> None:
    state = dag.room(version, {BOB: "join"}, levels=levels)

    assert dag.allows(state, dag.event(version, "m.room.topic", BOB, {}, "")) is is_allowed


@every_version
def test_without_power_levels_the_creator_may_set_state(version: RoomVersion) -> None:
    event_auth.check(dag.event(version, "m.room.topic", ALICE, {}, ""), dag.room(version))


def test_since_version_12_a_creator_has_any_power() -> None:
    state = dag.room(V12, levels={"state_default": 2**53 - 1})

    event_auth.check(dag.event(V12, "m.room.topic", ALICE, {}, ""), state)


@every_version
@pytest.mark.parametrize(
    ("state_key", "is_allowed"),
    [("", True), (ALICE, True), (BOB, False), ("@", False), ("bob@two.example", True)],
)
def test_state_with_a_users_name_is_that_users(
    version: RoomVersion, state_key: str, is_allowed: bool
) -> None:
    location = dag.event(version, "org.example.location", ALICE, {}, state_key)

    assert dag.allows(dag.room(version), location) is is_allowed


@every_version
@pytest.mark.parametrize(("own", "invite", "is_allowed"), [(0, 0, True), (49, 50, False)])
def test_a_third_party_invite_needs_the_invite_level_and_no_other(
    version: RoomVersion, own: int, invite: int, is_allowed: bool
) -> None:
    levels = {"users": {BOB: own}, "invite": invite, "events": {"m.room.third_party_invite": 0}}
    state = dag.room(version, {BOB: "join"}, levels=levels)
    by_mail = dag.event(version, "m.room.third_party_invite", BOB, {}, "token")

    assert dag.allows(state, by_mail) is is_allowed


# Redactions: rule 11 until version 2, "handling redactions" since version 3


def redaction(version: RoomVersion, sender: str, target: str, event_id: str = "$r") -> Event:
    if version.has_redacts_in_content:
        return dag.event(
            version, "m.room.redaction", sender, {"redacts": target}, event_id=event_id
        )
    return dag.event(version, "m.room.redaction", sender, event_id=event_id, redacts=target)


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize(
    ("level", "target", "is_allowed"),
    [
        (0, "$m:two.example", True),
        (0, "$m:one.example", False),
        (49, "$m:one.example", False),
        (50, "$m:one.example", True),
        (0, None, False),
        (50, None, True),
    ],
)
def test_until_version_2_redaction_needs_power_or_the_same_server(
    version: RoomVersion, level: int, target: str, is_allowed: bool
) -> None:
    state = dag.room(version, {BOB: "join"}, levels={"users": {BOB: level}})

    assert dag.allows(state, redaction(version, BOB, target, "$r:two.example")) is is_allowed


@versions.of_each(ALL[2:])
def test_since_version_3_redaction_is_allowed_like_any_event(version: RoomVersion) -> None:
    levels = {"redact": 100}
    state = dag.room(version, {BOB: "join"}, levels=levels)
    strict = dag.room(version, {BOB: "join"}, levels={"events": {"m.room.redaction": 1}})

    of_another_server = redaction(version, BOB, "$m:one.example", "$r:two.example")
    assert dag.allows(state, of_another_server)
    assert not dag.allows(strict, of_another_server)


@pytest.mark.parametrize("version", [V3, V11, V12])
@pytest.mark.parametrize(
    ("level", "author", "takes_effect"),
    [
        (0, BOB, True),
        (0, "@barbara:two.example", True),
        (0, ALICE, False),
        (49, ALICE, False),
        (50, ALICE, True),
    ],
)
def test_since_version_3_redaction_takes_effect_by_power_or_for_the_same_server(
    version: RoomVersion, level: int, author: str, takes_effect: bool
) -> None:
    target = dag.event(version, "m.room.message", author, event_id="$m")
    levels = room_state.power_levels(dag.room(version, levels={"users": {BOB: level}}))

    assert event_auth.may_redact(redaction(version, BOB, "$m"), target, levels) is takes_effect


def test_until_version_2_the_ids_tell_the_server() -> None:
    target = dag.event(V1, "m.room.message", ALICE, event_id="$m:two.example")
    levels = room_state.power_levels(dag.room(V1))

    assert event_auth.may_redact(
        redaction(V1, BOB, target.event_id, "$r:two.example"), target, levels
    )
    assert not event_auth.may_redact(redaction(V1, BOB, target.event_id, "$r:x"), target, levels)


@pytest.mark.parametrize("other", [{"event_id": "$other"}, {"room_id": "!elsewhere"}])
def test_a_redaction_has_no_effect_on_what_it_does_not_name(other: dict[str, Any]) -> None:
    target = dag.event(V11, "m.room.message", ALICE, **{"event_id": "$m", **other})
    levels = room_state.power_levels(dag.room(V11))

    assert not event_auth.may_redact(redaction(V11, ALICE, "$m"), target, levels)
