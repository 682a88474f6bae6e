from typing import Any

import pytest

from homebody.spec import event_auth, signing
from homebody.spec.event_auth import AuthError, StateMap
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import V1, V6, V7, V8, V9, V10, V11, V12, VERSIONS, RoomVersion
from tests.spec import dag, versions
from tests.spec.dag import ALICE, BOB, CAROL

ALL = [VERSIONS[str(number)] for number in range(1, 13)]
every_version = versions.of_each(ALL)


def check(state: StateMap, event: Event, refusal: str | None) -> None:
    """Fail unless the event is rejected with this message or, if it is None, allowed."""
    if refusal is None:
        event_auth.check(event, state)
    else:
        with pytest.raises(AuthError, match=refusal):
            event_auth.check(event, state)


def with_power(version: RoomVersion, **levels: Any) -> Json:
    """Return power levels with Bob as moderator, and Alice's level if her version allows one."""
    users = {BOB: 50} if version.has_privileged_creators else {ALICE: 100, BOB: 50}
    return {"users": users, **levels}


# Rule 5.1


@every_version
def test_a_member_event_names_a_user_and_a_membership(version: RoomVersion) -> None:
    state = dag.room(version)

    malformed: list[tuple[Json, str | None]] = [
        ({}, ALICE),
        ({"membership": "join"}, None),
        ({"membership": 1}, ALICE),
    ]
    for content, state_key in malformed:
        with pytest.raises(AuthError, match="needs a state_key"):
            event_auth.check(dag.event(version, "m.room.member", ALICE, content, state_key), state)


@every_version
def test_unknown_memberships_are_refused(version: RoomVersion) -> None:
    with pytest.raises(AuthError, match="no membership 'dance'"):
        event_auth.check(dag.member(version, ALICE, "dance"), dag.room(version))


# Join


@every_version
@pytest.mark.parametrize(
    ("join_rule", "before", "since", "until"),
    [  # the versions in which that join is allowed
        ("public", None, 1, 12),
        ("public", "leave", 1, 12),
        ("public", "invite", 1, 12),
        ("public", "join", 1, 12),
        ("public", "ban", 99, 0),
        ("invite", None, 99, 0),
        ("invite", "leave", 99, 0),
        ("invite", "invite", 1, 12),
        ("invite", "join", 1, 12),
        ("invite", "ban", 99, 0),
        ("invite", "knock", 99, 0),
        (None, "invite", 1, 12),
        (None, None, 99, 0),
        ("private", "invite", 99, 0),
        ("private", "join", 99, 0),
        ("knock", None, 99, 0),
        ("knock", "knock", 99, 0),
        ("knock", "invite", 7, 12),
        ("knock", "join", 7, 12),
        ("restricted", None, 99, 0),
        ("restricted", "invite", 8, 12),
        ("restricted", "join", 8, 12),
        ("restricted", "ban", 99, 0),
        ("knock_restricted", None, 99, 0),
        ("knock_restricted", "knock", 99, 0),
        ("knock_restricted", "invite", 10, 12),
        ("knock_restricted", "join", 10, 12),
    ],
)
def test_who_may_join_depends_on_the_join_rule(
    version: RoomVersion, join_rule: str | None, before: str | None, since: int, until: int
) -> None:
    state = dag.room(version, {BOB: before} if before else {}, join_rule=join_rule)

    is_allowed = since <= int(version.name) <= until
    assert dag.allows(state, dag.member(version, BOB, "join")) is is_allowed


@every_version
def test_nobody_joins_in_the_name_of_another(version: RoomVersion) -> None:
    with pytest.raises(AuthError, match="on behalf of"):
        event_auth.check(
            dag.member(version, BOB, "join", ALICE), dag.room(version, join_rule="public")
        )


@every_version
def test_the_creator_joins_an_empty_room(version: RoomVersion) -> None:
    create = dag.create(version)

    first = dag.member(version, ALICE, "join", prev=[create.event_id])
    event_auth.check(first, dag.state_of(create))


@every_version
@pytest.mark.parametrize(
    ("user_id", "prev"), [(BOB, ["$create"]), (ALICE, ["$create", "$x"]), (ALICE, ["$x"])]
)
def test_nobody_else_joins_an_empty_room_and_nobody_later(
    version: RoomVersion, user_id: str, prev: list[str]
) -> None:
    state = dag.state_of(dag.create(version))

    with pytest.raises(AuthError, match="not invited"):
        event_auth.check(dag.member(version, user_id, "join", prev=prev), state)


@pytest.mark.parametrize(("version", "is_bob"), [(V10, True), (V11, False), (V12, False)])
def test_since_version_11_the_creator_is_the_sender(version: RoomVersion, is_bob: bool) -> None:
    content = {"creator": BOB, "additional_creators": [BOB]}
    state = dag.state_of(dag.create(version, content=content))

    assert dag.allows(state, dag.member(version, BOB, "join", prev=["$create"])) is is_bob
    assert dag.allows(state, dag.member(version, ALICE, "join", prev=["$create"])) is not is_bob


# Restricted joins


@pytest.mark.parametrize(
    ("version", "join_rule"),
    [(V8, "restricted"), (V9, "restricted"), (V12, "restricted"), (V12, "knock_restricted")],
)
@pytest.mark.parametrize(
    ("members", "levels", "refusal"),
    [
        ({BOB: "join"}, {}, None),
        ({BOB: "join"}, {"invite": 50, "users": {BOB: 50}}, None),
        ({BOB: "join"}, {"invite": 51, "users": {BOB: 50}}, "may not invite"),
        ({BOB: "invite"}, {}, "is not in this room"),
        ({}, {}, "is not in this room"),
        ({CAROL: "ban", BOB: "join"}, {}, "banned"),
    ],
)
def test_a_restricted_join_needs_somebody_who_could_invite(
    version: RoomVersion,
    join_rule: str,
    members: dict[str, str],
    levels: Json,
    refusal: str | None,
) -> None:
    state = dag.room(version, members, levels=levels, join_rule=join_rule)
    join = dag.member(version, CAROL, "join", join_authorised_via_users_server=BOB)

    check(state, join, refusal)


@pytest.mark.parametrize(("version", "is_allowed"), [(V8, False), (V9, False), (V10, True)])
def test_knock_restricted_came_with_version_10(version: RoomVersion, is_allowed: bool) -> None:
    state = dag.room(version, join_rule="knock_restricted")
    join = dag.member(version, CAROL, "join", join_authorised_via_users_server=ALICE)

    assert dag.allows(state, join) is is_allowed


@pytest.mark.parametrize("membership", ["join", "leave"])
def test_the_server_of_who_vouches_must_have_signed(membership: str) -> None:
    state = dag.room(V11, {CAROL: "join"}, join_rule="restricted")
    event = dag.member(V11, CAROL, membership, join_authorised_via_users_server=ALICE)

    event_auth.check(event, state, is_signed_by=lambda server: server == "one.example")
    with pytest.raises(AuthError, match="has not signed"):
        event_auth.check(event, state, is_signed_by=lambda server: server == "three.example")


@pytest.mark.parametrize(("version", "is_allowed"), [(V7, True), (V8, False), (V12, False)])
def test_since_version_8_who_vouches_is_a_user(version: RoomVersion, is_allowed: bool) -> None:
    join = dag.member(version, BOB, "join", join_authorised_via_users_server=[ALICE])

    assert dag.allows(dag.room(version, join_rule="public"), join) is is_allowed


# Invite


@every_version
@pytest.mark.parametrize(
    ("members", "levels", "refusal"),
    [
        ({BOB: "join"}, {}, None),
        ({BOB: "join", CAROL: "leave"}, {}, None),
        ({BOB: "join", CAROL: "invite"}, {}, None),
        ({BOB: "join", CAROL: "knock"}, {}, None),
        ({BOB: "join", CAROL: "join"}, {}, "already in this room"),
        ({BOB: "join", CAROL: "ban"}, {}, "banned"),
        ({BOB: "invite"}, {}, "is not in this room"),
        ({}, {}, "is not in this room"),
        ({BOB: "join"}, {"invite": 51}, "needs power level 51"),
        ({BOB: "join"}, {"invite": 50}, None),
    ],
)
def test_who_may_invite(
    version: RoomVersion, members: dict[str, str], levels: Json, refusal: str | None
) -> None:
    state = dag.room(version, members, levels=with_power(version, **levels))
    invite = dag.member(version, CAROL, "invite", BOB)

    check(state, invite, refusal)


# Third-party invites

KEY = signing.SigningKey.from_seed("0", b"1" * 32)
OTHER_KEY = signing.SigningKey.from_seed("0", b"2" * 32)
PUBLIC = signing.verify_key_to_base64(KEY.verify_key)
OTHER_PUBLIC = signing.verify_key_to_base64(OTHER_KEY.verify_key)


def signed(key: signing.SigningKey = KEY, **changes: object) -> Json:
    return signing.sign_json({"mxid": CAROL, "token": "abc", **changes}, "id.example", key)


def invited_by_mail(version: RoomVersion, content: Json, **members: str) -> dict[Any, Event]:
    state = dag.room(version, {ALICE: "join", **members})
    by_mail = dag.event(version, "m.room.third_party_invite", BOB, content, "abc")
    return state | dag.state_of(by_mail)


def check_third_party_invite(
    state: StateMap, third_party_invite: object, sender: str = BOB, target: str = CAROL
) -> None:
    invite = dag.member(V11, target, "invite", sender, third_party_invite=third_party_invite)
    event_auth.check(invite, state)


@every_version
@pytest.mark.parametrize(
    "content",
    [
        {"public_key": PUBLIC},
        {"public_key": OTHER_PUBLIC, "public_keys": [{"public_key": PUBLIC}]},
        {"public_keys": [{"public_key": OTHER_PUBLIC}, 5, {"public_key": PUBLIC}]},
        {"public_key": PUBLIC.replace("+", "-").replace("/", "_")},
        {"public_key": 5, "public_keys": [{"public_key": "?"}, {"public_key": PUBLIC}]},
    ],
)
def test_who_owns_the_address_is_invited_by_a_signature(
    version: RoomVersion, content: Json
) -> None:
    state = invited_by_mail(version, content)
    invite = dag.member(
        version, CAROL, "invite", BOB, third_party_invite={"signed": signed(), "display_name": "C"}
    )

    event_auth.check(invite, state)


@pytest.mark.parametrize(
    ("third_party_invite", "refusal"),
    [
        (None, "not signed for a user and a token"),
        ({}, "not signed for a user and a token"),
        ({"signed": "yes"}, "not signed for a user and a token"),
        ({"signed": {"mxid": CAROL}}, "not signed for a user and a token"),
        ({"signed": {"token": "abc"}}, "not signed for a user and a token"),
        ({"signed": signed(mxid=BOB)}, f"not for {CAROL}"),
        ({"signed": signed(token="xyz")}, "no third-party invite with that token"),
        ({"signed": signed(token=["abc"])}, "no third-party invite with that token"),
        ({"signed": signed(OTHER_KEY)}, "no valid signature"),
        ({"signed": {**signed(), "extra": 1}}, "no valid signature"),
        ({"signed": {**signed(), "extra": "\ud800"}}, "no valid signature"),
        ({"signed": {"mxid": CAROL, "token": "abc"}}, "no valid signature"),
        ({"signed": {**signed(), "signatures": []}}, "no valid signature"),
        ({"signed": {**signed(), "signatures": {"id.example": 5}}}, "no valid signature"),
        (
            {"signed": {**signed(), "signatures": {"id.example": {"ed25519:0": 5}}}},
            "no valid signature",
        ),
        (
            {"signed": {**signed(), "signatures": {"id.example": {"ed25519:0": "?"}}}},
            "no valid signature",
        ),
        (
            {"signed": {**signed(), "signatures": {"id.example": {"ed25519:0": "AA"}}}},
            "no valid signature",
        ),
    ],
)
def test_a_bad_third_party_invite_is_refused(third_party_invite: object, refusal: str) -> None:
    state = invited_by_mail(V11, {"public_key": PUBLIC})

    with pytest.raises(AuthError, match=refusal):
        check_third_party_invite(state, third_party_invite)


def test_only_ed25519_signatures_count() -> None:
    signature = signed()["signatures"]["id.example"]["ed25519:0"]
    state = invited_by_mail(V11, {"public_key": PUBLIC})
    renamed = {**signed(), "signatures": {"id.example": {"rot13:0": signature}}}

    with pytest.raises(AuthError, match="no valid signature"):
        check_third_party_invite(state, {"signed": renamed})


def test_only_the_inviter_may_complete_a_third_party_invite() -> None:
    state = invited_by_mail(V11, {"public_key": PUBLIC})

    with pytest.raises(AuthError, match=f"not by {ALICE}"):
        check_third_party_invite(state, {"signed": signed()}, sender=ALICE)


def test_a_third_party_invite_ends_no_ban() -> None:
    state = invited_by_mail(V11, {"public_key": PUBLIC}, **{CAROL: "ban"})

    with pytest.raises(AuthError, match="banned"):
        check_third_party_invite(state, {"signed": signed()})


def test_a_thousand_keys_and_signatures_do_not_stall_the_server() -> None:
    keys = [{"public_key": OTHER_PUBLIC}] * 1000
    state = invited_by_mail(V11, {"public_keys": [*keys, {"public_key": PUBLIC}]})
    signature = signed()["signatures"]["id.example"]["ed25519:0"]
    many = {
        **signed(),
        "signatures": {f"{n}.example": {"ed25519:0": signature} for n in range(500)},
    }

    with pytest.raises(AuthError, match="no valid signature"):
        check_third_party_invite(state, {"signed": many})  # the right key would come too late


# Leave


@every_version
@pytest.mark.parametrize(
    ("before", "since"),
    [(None, 99), ("leave", 99), ("ban", 99), ("invite", 1), ("join", 1), ("knock", 7)],
)
def test_one_leaves_what_one_is_in(version: RoomVersion, before: str | None, since: int) -> None:
    state = dag.room(version, {BOB: before} if before else {})

    assert dag.allows(state, dag.member(version, BOB, "leave")) is (int(version.name) >= since)


@every_version
@pytest.mark.parametrize(
    ("members", "users", "named", "refusal"),
    [
        ({BOB: "join", CAROL: "join"}, {BOB: 50}, {}, None),
        ({BOB: "join", CAROL: "invite"}, {BOB: 50}, {}, None),
        ({BOB: "join"}, {BOB: 50}, {}, None),
        ({BOB: "join", CAROL: "join"}, {BOB: 49}, {}, "needs power level 50 to kick"),
        ({BOB: "join", CAROL: "join"}, {BOB: 49}, {"kick": 49}, None),
        ({BOB: "join", CAROL: "join"}, {BOB: 50, CAROL: 49}, {}, None),
        ({BOB: "join", CAROL: "join"}, {BOB: 50, CAROL: 50}, {}, "not lower"),
        ({CAROL: "join"}, {BOB: 50}, {}, "is not in this room"),
        ({BOB: "join", CAROL: "ban"}, {BOB: 50}, {}, None),
        ({BOB: "join", CAROL: "ban"}, {BOB: 50}, {"ban": 51}, "to end a ban"),
        ({BOB: "join", CAROL: "ban"}, {BOB: 50}, {"kick": 51}, "to kick"),
    ],
)
def test_who_may_kick_and_end_bans(
    version: RoomVersion,
    members: dict[str, str],
    users: dict[str, int],
    named: Json,
    refusal: str | None,
) -> None:
    state = dag.room(version, members, levels={"users": users, **named})
    kick = dag.member(version, CAROL, "leave", BOB)

    check(state, kick, refusal)


# Ban


@every_version
@pytest.mark.parametrize(
    ("members", "users", "named", "refusal"),
    [
        ({BOB: "join", CAROL: "join"}, {BOB: 50}, {}, None),
        ({BOB: "join"}, {BOB: 50}, {}, None),
        ({BOB: "join", CAROL: "join"}, {BOB: 49}, {}, "needs power level 50 to ban"),
        ({BOB: "join", CAROL: "join"}, {BOB: 49}, {"ban": 49}, None),
        ({BOB: "join", CAROL: "join"}, {BOB: 50, CAROL: 49}, {}, None),
        ({BOB: "join", CAROL: "join"}, {BOB: 50, CAROL: 50}, {}, "not lower"),
        ({BOB: "leave", CAROL: "join"}, {BOB: 50}, {}, "is not in this room"),
    ],
)
def test_who_may_ban(
    version: RoomVersion,
    members: dict[str, str],
    users: dict[str, int],
    named: Json,
    refusal: str | None,
) -> None:
    state = dag.room(version, members, levels={"users": users, **named})
    ban = dag.member(version, CAROL, "ban", BOB)

    check(state, ban, refusal)


@pytest.mark.parametrize("membership", ["ban", "leave"])
def test_since_version_12_no_power_is_enough_against_a_creator(membership: str) -> None:
    levels = {"users": {BOB: 2**53 - 1}}
    state = dag.room(V12, {BOB: "join", CAROL: "join"}, levels=levels)
    with_carol = dag.room(
        V12, {CAROL: "join"}, levels=levels, created_with={"additional_creators": [CAROL]}
    )

    assert not dag.allows(state, dag.member(V12, ALICE, membership, BOB))
    assert dag.allows(state, dag.member(V12, BOB, membership, ALICE))
    assert not dag.allows(with_carol, dag.member(V12, ALICE, membership, CAROL))


# Knock


@every_version
@pytest.mark.parametrize(
    ("join_rule", "before", "since"),
    [
        ("knock", None, 7),
        ("knock", "leave", 7),
        ("knock", "knock", 7),
        ("knock", "invite", 99),
        ("knock", "join", 99),
        ("knock", "ban", 99),
        ("knock_restricted", None, 10),
        ("knock_restricted", "ban", 99),
        ("invite", None, 99),
        ("public", None, 99),
        ("restricted", None, 99),
        (None, None, 99),
    ],
)
def test_who_may_knock(
    version: RoomVersion, join_rule: str | None, before: str | None, since: int
) -> None:
    state = dag.room(version, {BOB: before} if before else {}, join_rule=join_rule)

    assert dag.allows(state, dag.member(version, BOB, "knock")) is (int(version.name) >= since)


def test_nobody_knocks_in_the_name_of_another() -> None:
    with pytest.raises(AuthError, match="on behalf of"):
        event_auth.check(dag.member(V7, BOB, "knock", ALICE), dag.room(V7, join_rule="knock"))


@pytest.mark.parametrize("version", [V1, V6])
def test_until_version_6_nobody_knows_of_knocking(version: RoomVersion) -> None:
    with pytest.raises(AuthError, match="no membership 'knock'"):
        event_auth.check(dag.member(version, BOB, "knock"), dag.room(version, join_rule="knock"))
