"""What nobody can ever do in a room, whatever its state says and whatever they send.

The states here need not be reachable: the rules must hold, and answer, for any of them.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from homebody.spec import event_auth, identifiers, room_state
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_versions import V1, V6, V9, V11, V12, RoomVersion
from tests.fuzz import examples
from tests.spec import dag
from tests.spec.dag import ALICE, BOB, CAROL, DAVE
from tests.spec.pdus import versions

PEOPLE = [ALICE, BOB, CAROL, DAVE, "@alice:two.example", "@:one.example"]
MEMBERSHIPS = ["join", "invite", "leave", "ban", "knock", "", "JOIN"]
RULES = ["public", "invite", "knock", "restricted", "knock_restricted", "private", ""]
NAMED = ["ban", "kick", "redact", "invite", "events_default", "state_default", "users_default"]
TYPES = [
    *("m.room.message", "m.room.name", "m.room.member", "m.room.power_levels", "m.room.aliases"),
    *("m.room.redaction", "m.room.third_party_invite", "m.room.join_rules", "m.room.create", ""),
]
people = st.sampled_from(PEOPLE)
levels = st.sampled_from([-1, 0, 1, 49, 50, 51, 99, 100, 101, 2**53 - 1])
many_digits = st.builds(
    lambda: "9" * 5000
)  # more than int() reads; built, so that no repr has them
junk: st.SearchStrategy[Any] = many_digits | st.sampled_from(
    [None, True, 1.5, 1e300, "100", " 7 ", "x", [], {}, 2**63, "٣"]
)
texts = st.text(max_size=4)


def maps(keys: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.dictionaries(keys, values, max_size=4)


def power_levels(values: st.SearchStrategy[Any] = levels) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {},
        optional={
            "users": maps(people, values),
            "events": maps(st.sampled_from(TYPES), values),
            "notifications": maps(st.sampled_from(["room", "x"]), values),
            **dict.fromkeys(NAMED, values),
        },
    )


any_power_levels = power_levels(levels | junk) | st.fixed_dictionaries(
    {}, optional={"users": junk, "events": junk, "notifications": junk, "ban": junk}
)
signed = st.fixed_dictionaries(
    {},
    optional={
        "mxid": people | junk,
        "token": st.just("token") | junk,
        "signatures": junk | maps(texts, junk | maps(st.just("ed25519:0") | texts, texts | junk)),
    },
)
member_contents = st.fixed_dictionaries(
    {},
    optional={
        "membership": st.sampled_from(MEMBERSHIPS) | junk,
        "join_authorised_via_users_server": people | junk,
        "third_party_invite": st.fixed_dictionaries({}, optional={"signed": signed | junk}) | junk,
    },
)
create_contents = st.fixed_dictionaries(
    {},
    optional={
        "creator": people | junk,
        "m.federate": st.booleans() | junk,
        "additional_creators": st.lists(people, max_size=2),
        "room_version": st.sampled_from(["1", "11", "12", "99"]) | junk,
    },
)
contents = st.one_of(
    any_power_levels,
    member_contents,
    create_contents,
    maps(texts, junk),
    st.fixed_dictionaries({"public_key": texts | junk, "public_keys": junk}),
    st.fixed_dictionaries({"join_rule": st.sampled_from(RULES) | junk, "redacts": texts | junk}),
)


@st.composite
def states(
    draw: st.DrawFn, version: RoomVersion, values: st.SearchStrategy[Json] = any_power_levels
) -> dict[StateKey, Event]:
    """Any state in which each event has the shape that the rules give it."""
    content = draw(create_contents)
    content.pop("room_version", None)
    members = draw(st.dictionaries(people, st.sampled_from([*MEMBERSHIPS, *["join"] * 9])))
    state = dag.room(version, members, created_with=content, join_rule=draw(st.sampled_from(RULES)))
    if draw(st.booleans()):
        entry = dag.event(version, "m.room.power_levels", ALICE, draw(values), "")
        state["m.room.power_levels", ""] = entry
    if draw(st.booleans()):
        invite: Json = {"public_key": draw(texts | junk), "public_keys": draw(junk | st.just([{}]))}
        by = draw(people)
        entry = dag.event(version, "m.room.third_party_invite", by, invite, "token")
        state["m.room.third_party_invite", "token"] = entry
    return state


@st.composite
def events(draw: st.DrawFn, version: RoomVersion) -> Event:
    """Anything that somebody may try."""
    event_type = draw(st.sampled_from([*TYPES, "m.room.member", "m.room.power_levels"]))
    content, state_key = draw(contents), draw(st.none() | st.just("") | people | texts)
    if event_type == "m.room.member" and draw(st.integers(0, 3)):
        content = draw(member_contents) | {"membership": draw(st.sampled_from(MEMBERSHIPS))}
        state_key = draw(people)
    elif event_type == "m.room.power_levels" and draw(st.integers(0, 3)):
        content = draw(any_power_levels)
    return dag.event(
        version,
        event_type,
        draw(people),
        content,
        state_key,
        event_id=draw(st.sampled_from(["$x:one.example", "$x", "$x:two.example"])),
        prev=draw(st.sampled_from([["$before"], [], ["$create"], ["$create", "$x"]])),
        redacts=draw(texts | st.just("$y:one.example")),
    )


def is_allowed(event: Event, state: dict[StateKey, Event]) -> bool:
    try:
        event_auth.check(event, state)
    except AuthError:
        return False
    return True


@st.composite
def attempts(
    draw: st.DrawFn, values: st.SearchStrategy[Json] = any_power_levels
) -> tuple[dict[StateKey, Event], Event]:
    version = draw(versions)
    return draw(states(version, values)), draw(events(version))


@examples(90)
@given(attempts())
@example(
    (
        dag.room(V9, {}, levels={"users": {ALICE: "9" * 5000}}),
        dag.event(V9, "m.room.power_levels", ALICE, {"users": {ALICE: 1e300}}, ""),
    )
)
@example(
    (
        dag.room(V1, {}, created_with={"creator": []}),
        dag.event(V1, "m.room.member", ALICE, {"membership": []}, ALICE, prev=["$create"]),
    )
)
@example(
    (
        dag.room(V12, {}, levels={"users": []}),
        dag.event(V12, "m.room.power_levels", ALICE, {"users": {BOB: 1}}, ""),
    )
)
@example(
    (
        dag.room(V6, {}, levels={"notifications": None, "events": [], "users": None}),
        dag.event(V6, "m.room.power_levels", ALICE, {"notifications": {"room": 1}}, ""),
    )
)
@example(
    (
        dag.room(V6, {}, levels={"notifications": "100"}),
        dag.event(V6, "m.room.power_levels", ALICE, {"notifications": {"room": 1}}, ""),
    )
)
def test_every_event_is_allowed_or_refused_and_always_the_same(
    attempt: tuple[dict[StateKey, Event], Event],
) -> None:
    state, event = attempt

    first = is_allowed(event, state)

    assert is_allowed(event, dict(reversed(state.items()))) == first
    keys = event_auth.auth_types(
        event.version, event.type, event.state_key, event.sender, event.content
    )
    cited = {key: state[key] for key in keys if key in state}
    create = state["m.room.create", ""]
    if event.type != "m.room.create" and create.room_id == event.room_id:
        # the events that it has to cite are all that the rules look at
        cited["m.room.create", ""] = create
        assert is_allowed(event, cited) == first


@examples(60)
@given(attempts())
def test_who_is_not_in_the_room_says_nothing_in_it(
    attempt: tuple[dict[StateKey, Event], Event],
) -> None:
    state, event = attempt
    assume(event.type not in {"m.room.create", "m.room.member"})
    assume(event.type != "m.room.aliases" or not event.version.has_alias_events_rule)

    if event_auth.membership(state, event.sender) != "join":
        assert not is_allowed(event, state)


@examples(60)
@given(attempts())
def test_who_is_banned_can_change_no_membership_not_even_their_own(
    attempt: tuple[dict[StateKey, Event], Event],
) -> None:
    state, event = attempt
    content = event.content if "membership" in event.content else {"membership": "join"}
    event = dag.event(event.version, "m.room.member", event.sender, content, event.state_key)
    state["m.room.member", event.sender] = dag.member(event.version, event.sender, "ban", ALICE)

    is_third_party = content["membership"] == "invite" and "third_party_invite" in content
    if not is_third_party:  # its rule asks for the sender of the invite, not for a member
        assert not is_allowed(event, state)


@examples(80)
@given(attempts())
def test_whatever_is_allowed_the_sender_had_the_power_for(
    attempt: tuple[dict[StateKey, Event], Event],
) -> None:
    state, event = attempt
    apart = {"m.room.create", "m.room.member", "m.room.third_party_invite"}
    if event.version.has_alias_events_rule:
        apart.add("m.room.aliases")
    assume(event.type not in apart)
    power = event_auth.power_levels(state)

    if is_allowed(event, state):
        needed = power.to_send(event.type, is_state=event.state_key is not None)
        assert power.of_user(event.sender) >= needed
        assert not (event.state_key or "").startswith("@") or event.state_key == event.sender


def is_within(own: float, *levels_named: int | None) -> bool:
    """As the rules have it: what isn't there is not compared, also not as its default."""
    return all(level is None or level <= own for level in levels_named)


@st.composite
def changes_of_levels(draw: st.DrawFn) -> tuple[dict[StateKey, Event], Event]:
    """Somebody in the room changes some of its levels, which are in force."""
    version = draw(versions)
    old = draw(power_levels())
    new = old | draw(power_levels())
    if draw(st.booleans()):
        new["users"] = old.get("users", {}) | {draw(people): draw(levels)}
    state = dag.room(version, dict.fromkeys(PEOPLE, "join"), levels=old)
    return state, dag.event(version, "m.room.power_levels", draw(people), new, "")


@examples(90)
@given(changes_of_levels())
@example(
    (
        dag.room(V11, {BOB: "join"}, levels={"users": {ALICE: 50, BOB: 50}, "events": {}}),
        dag.event(V11, "m.room.power_levels", ALICE, {"users": {ALICE: 50}, "events": {}}, ""),
    )
)
def test_nobody_gives_or_takes_more_power_than_they_have(
    attempt: tuple[dict[StateKey, Event], Event],
) -> None:
    state, event = attempt
    before = event_auth.power_levels(state)
    own = before.of_user(event.sender)
    if not is_allowed(event, state):
        return

    state["m.room.power_levels", ""] = event
    after = event_auth.power_levels(state)

    old, new = before.content, after.content
    for user_id in PEOPLE:
        was, will_be = old.get("users", {}).get(user_id), new.get("users", {}).get(user_id)
        if was != will_be:
            assert will_be is None or will_be <= own
            assert was is None or was < own or user_id == event.sender
    for key in {*old.get("events", {}), *new.get("events", {})}:
        was, will_be = old.get("events", {}).get(key), new.get("events", {}).get(key)
        assert was == will_be or is_within(own, was, will_be)
    for name in NAMED:
        was, will_be = old.get(name), new.get(name)
        assert was == will_be or is_within(own, was, will_be)
    if 0 <= own < math.inf:  # who is below zero may take away the level that is said to be theirs
        assert after.of_user(event.sender) <= own


@examples(60)
@given(attempts(power_levels()), levels)
def test_more_power_never_takes_away_what_one_may_do(
    attempt: tuple[dict[StateKey, Event], Event], more: int
) -> None:
    state, event = attempt
    current = state.get(("m.room.power_levels", ""))
    assume(current is not None and event.type != "m.room.create")
    assume(event.state_key != event.sender or event.type != "m.room.member")
    # the levels that the event sets are those of the state it is judged by
    assume(event.type != "m.room.power_levels")
    assert current is not None
    users = current.content.get("users", {})
    own = event_auth.power_levels(state).of_user(event.sender)

    raised = {**current.content, "users": {**users, event.sender: max(own, more)}}
    stronger = {**state, ("m.room.power_levels", ""): levels_event(event.version, raised)}

    if is_allowed(event, state):
        assert is_allowed(event, stronger)


def levels_event(version: RoomVersion, content: Json) -> Event:
    return dag.event(version, "m.room.power_levels", ALICE, content, "")


@examples(40)
@given(versions, people, people, st.sampled_from(["leave", "ban"]), power_levels(), st.data())
def test_nobody_is_kicked_or_banned_by_who_has_no_more_power(
    version: RoomVersion, by: str, target: str, membership: str, content: Json, data: st.DataObject
) -> None:
    assume(by != target)
    creators = data.draw(st.lists(people, max_size=2))
    created_with = {"additional_creators": creators}
    state = dag.room(
        version, dict.fromkeys(PEOPLE, "join"), levels=content, created_with=created_with
    )
    event = dag.member(version, target, membership, by)
    power = event_auth.power_levels(state)
    needed = power.to_kick if membership == "leave" else power.to_ban

    may = power.of_user(by) >= needed and power.of_user(target) < power.of_user(by)

    assert is_allowed(event, state) == may
    if version.has_privileged_creators and target in {ALICE, *creators}:
        assert not may  # nobody is above a creator


@examples(40)
@given(versions, people, st.sampled_from(MEMBERSHIPS), st.sampled_from(RULES), power_levels())
def test_joining_depends_on_the_rule_and_on_the_invite(
    version: RoomVersion, who: str, was: str, rule: str, content: Json
) -> None:
    state = dag.room(version, {who: was}, join_rule=rule, levels=content)
    event = dag.member(version, who, "join")

    by_invite = {"invite"}
    by_invite |= {"knock"} if version.may_knock else set()
    by_invite |= {"restricted"} if version.may_restrict_joins else set()
    by_invite |= {"knock_restricted"} if version.may_knock_restricted else set()
    may = was != "ban" and (rule == "public" or (rule in by_invite and was in {"invite", "join"}))

    assert is_allowed(event, state) == may
    event = dag.member(version, who, "join", DAVE if who != DAVE else BOB)
    assert not is_allowed(event, state)


@examples(40)
@given(
    st.lists(people | st.sampled_from(["alice", "", "@a", "@a:b c"]), max_size=3), people, levels
)
def test_creators_of_version_12_have_all_the_power_and_cannot_be_named(
    others: list[str], who: str, level: int
) -> None:
    create = dag.create(V12, content={"additional_creators": others})

    assert is_allowed(create, {}) == all(map(identifiers.is_user_id, others))

    state = dag.room(V12, {who: "join"}, created_with={"additional_creators": others})
    power = event_auth.power_levels(state)
    is_creator = who in {ALICE, *others}
    assert power.of_user(who) == (math.inf if is_creator else 0)
    named = dag.event(V12, "m.room.power_levels", ALICE, {"users": {who: level}}, "")
    assert is_allowed(named, state) == (not is_creator)


@examples(40)
@given(junk | levels | st.text("0123456789+- \n_.e", max_size=5) | st.floats() | st.integers())
@example("1_0")
@example(" +7\n")
@example("٣")
@example(float("nan"))
def test_any_json_value_is_a_level_or_none(value: Any) -> None:
    level = room_state.read_level(value)

    assert level is None or type(level) is int
    if type(value) is int:
        assert level == value
