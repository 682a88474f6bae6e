"""What a local user may do in a room, where that is less than what other servers must accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.spec import signing
from homebody.spec.room_versions import VERSIONS
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import Json, act, membership, refusal, state_of, unchanged

Room = Callable[..., str]
FORBIDDEN = (403, "M_FORBIDDEN")
BAD_JSON = (400, "M_BAD_JSON")
BOB, CAROL = "@bob:localhost", "@carol:localhost"
ALL_MAY_SET_STATE = {"state_default": 0, "redact": 50, "events": {}}


def event(person: Person, room_id: str, event_id: str) -> Json:
    found: Json = person.get(f"rooms/{quote(room_id)}/event/{quote(event_id)}").get_json()
    return found


def id_of(person: Person, room_id: str, event_type: str) -> str:
    """The id of an event of the room's state."""
    path = f"rooms/{quote(room_id)}/state/{event_type}/?format=event"
    return str(person.get(path).get_json()["event_id"])


def redact(person: Person, room_id: str, event_id: str) -> Any:
    return person.put(f"rooms/{quote(room_id)}/redact/{quote(event_id)}/1", json={})


# --- redactions


def test_a_moderator_redacts_what_only_other_servers_have(
    login: Login, room: Room, remote: Remotes
) -> None:
    b = remote("b.test")
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, preset="public_chat")
    shared = b.join(room_id)
    late = shared.message("spam")

    answers = [redact(alice, room_id, late.event_id), redact(bob, room_id, late.event_id)]
    b.send(late)

    assert [it.status_code for it in answers] == [200, 403]
    assert event(alice, room_id, late.event_id)["content"] == {}
    assert refusal(redact(alice, room_id, "nothing")) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("version", ["10", "11", "12"])
@pytest.mark.parametrize("state_key", ["", "x", BOB])
def test_a_state_event_is_no_way_to_redact(
    app: Application, login: Login, room: Room, version: str, state_key: str
) -> None:
    alice, bob = login("alice"), login("bob")
    levels = ALL_MAY_SET_STATE
    room_id = room(alice, bob, room_version=version, power_level_content_override=levels)
    said = alice.send(room_id, "dinner at seven")
    own = bob.send(room_id)
    targets = [said, own, id_of(alice, room_id, "m.room.create")]

    with unchanged(app):
        answers = [
            bob.set_state(room_id, "m.room.redaction", {"redacts": target}, state_key)
            for target in targets
        ]

    assert [refusal(answer) for answer in answers] == [FORBIDDEN] * 3
    assert event(alice, room_id, said)["content"]["body"] == "dinner at seven"


def test_a_new_room_can_not_begin_with_a_redaction(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    said = alice.send(room(alice), "dinner at seven")
    redaction = {"type": "m.room.redaction", "content": {"redacts": said}}

    with unchanged(app):
        answer = alice.post("createRoom", json={"room_version": "11", "initial_state": [redaction]})

    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("m.room.server_acl", {"allow": ["*"], "deny": ["evil.example"]}),
        ("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}),
    ],
)
def test_what_protects_a_room_is_not_redacted_away(
    app: Application, login: Login, event_type: str, content: Json
) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    event_id = alice.set_state(room_id, event_type, content).get_json()["event_id"]

    with unchanged(app):
        answer = redact(alice, room_id, event_id)

    assert refusal(answer) == FORBIDDEN


# --- m.room.create and m.room.power_levels


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_a_second_create_event_is_bad(app: Application, login: Login, version: str) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_version=version)

    with unchanged(app):
        answer = alice.set_state(room_id, "m.room.create", {"room_version": version, "a": 1})

    assert refusal(answer) == BAD_JSON


def test_power_levels_that_name_a_creator_are_bad(app: Application, login: Login) -> None:
    alice = login("alice")
    creators = {"additional_creators": [BOB]}
    room_id = alice.create_room(room_version="12", creation_content=creators)

    with unchanged(app):
        answers = [
            alice.set_state(room_id, "m.room.power_levels", {"users": {user_id: 100}})
            for user_id in (alice.user_id, BOB)
        ]

    assert [refusal(answer) for answer in answers] == [BAD_JSON] * 2


def test_who_has_no_power_is_told_so_whatever_they_say(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, room_version="12")

    answer = bob.set_state(room_id, "m.room.power_levels", {"users": {alice.user_id: 100}})

    assert refusal(answer) == FORBIDDEN


# --- m.room.aliases


@pytest.mark.parametrize("version", ["1", "2", "3", "4", "5"])
def test_strangers_and_members_without_power_list_no_aliases(
    app: Application, login: Login, room: Room, version: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, room_version=version)

    with unchanged(app):
        answers = [
            person.set_state(room_id, "m.room.aliases", {"aliases": ["#evil:x"]}, "localhost")
            for person in (carol, bob)
        ]

    assert [refusal(answer) for answer in answers] == [FORBIDDEN] * 2


# --- m.room.third_party_invite

KEY = SigningKey.from_seed("0", b"1" * 32)
INVITE = "m.room.third_party_invite"


def comes_in(person: Person, room_id: str, inviter: str) -> Any:
    signed = {"mxid": person.user_id, "sender": inviter, "token": "token"}
    proof = signing.sign_json(signed, "id.example.org", KEY)
    return act(person, room_id, "join", third_party_signed=proof)


@pytest.mark.parametrize(
    ("verb", "expected"), [("ban", FORBIDDEN), ("kick", FORBIDDEN), (None, None)]
)
def test_an_invite_of_an_address_ends_with_its_sender(
    login: Login, verb: str | None, expected: tuple[int, str] | None
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = alice.create_room(invite=[BOB])
    act(bob, room_id, "join")
    public_key = signing.verify_key_to_base64(KEY.verify_key)
    invite = {"display_name": "c…", "key_validity_url": "https://x", "public_key": public_key}
    assert bob.set_state(room_id, INVITE, invite, "token").status_code == 200
    if verb is not None:
        assert act(alice, room_id, verb, user_id=BOB).status_code == 200

    answer = comes_in(carol, room_id, BOB)

    if expected is None:
        assert answer.status_code == 200
    else:
        assert refusal(answer) == expected
        assert ("m.room.member", CAROL) not in state_of(alice, room_id)


def test_an_invite_of_an_address_ends_with_the_power_to_invite(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = alice.create_room(invite=[BOB])
    act(bob, room_id, "join")
    public_key = signing.verify_key_to_base64(KEY.verify_key)
    invite = {"display_name": "c…", "key_validity_url": "https://x", "public_key": public_key}
    assert bob.set_state(room_id, INVITE, invite, "token").status_code == 200
    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    alice.set_state(room_id, "m.room.power_levels", {**levels, "invite": 50})

    assert refusal(comes_in(carol, room_id, BOB)) == FORBIDDEN


@pytest.mark.parametrize("verb", ["suspend", "lock"])
def test_an_invite_of_an_address_waits_while_its_sender_may_do_nothing(
    login: Login, verb: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")  # the first is administrator
    room_id = bob.create_room()
    public_key = signing.verify_key_to_base64(KEY.verify_key)
    invite = {"display_name": "c…", "key_validity_url": "https://x", "public_key": public_key}
    assert bob.set_state(room_id, INVITE, invite, "token").status_code == 200
    path = f"/_matrix/client/v1/admin/{verb}/{BOB}"
    assert alice.put(path, json={f"{verb}ed": True}).status_code == 200
    while_held_back = comes_in(carol, room_id, BOB)
    assert alice.put(path, json={f"{verb}ed": False}).status_code == 200

    assert refusal(while_held_back) == FORBIDDEN
    assert comes_in(carol, room_id, BOB).status_code == 200


# --- m.room.member


@pytest.mark.parametrize("kind", ["leave", "ban", "invite"])
def test_nobody_is_given_a_name_by_others(login: Login, room: Room, kind: str) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    if kind == "invite":
        act(bob, room_id, "leave")
    names = {"displayname": "Fool", "avatar_url": "mxc://localhost/fool"}

    answer = alice.set_state(
        room_id, "m.room.member", {"membership": kind, "reason": "x", **names}, BOB
    )

    shown = event(alice, room_id, answer.get_json()["event_id"])["content"]
    own = {"displayname": "bob"} if kind == "invite" else {}
    assert shown == {"membership": kind, "reason": "x", **own}


@pytest.mark.parametrize(
    "content", [{"membership": "leave"}, {"membership": "leave", "reason": "x"}]
)
def test_who_never_was_there_is_not_kicked_by_any_way(
    app: Application, login: Login, room: Room, content: Json
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    act(bob, room_id, "leave")

    with unchanged(app):
        answers = [
            alice.set_state(room_id, "m.room.member", content, user_id)
            for user_id in (carol.user_id, BOB, "@nobody:localhost")
        ]

    assert [refusal(answer) for answer in answers] == [FORBIDDEN] * 3


def test_a_ban_is_ended_by_state_too(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    act(alice, room_id, "ban", user_id=BOB)

    answer = alice.set_state(room_id, "m.room.member", {"membership": "leave"}, BOB)

    assert answer.status_code == 200
    assert membership(alice, room_id, BOB)["membership"] == "leave"


# --- what repeats the state


def test_who_has_left_does_not_set_the_same_again(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, power_level_content_override=ALL_MAY_SET_STATE)
    bob.set_state(room_id, "m.room.topic", {"topic": "tea"})
    act(bob, room_id, "leave")

    with unchanged(app):
        left = bob.set_state(room_id, "m.room.topic", {"topic": "tea"})
    act(alice, room_id, "ban", user_id=BOB)
    with unchanged(app):
        banned = bob.set_state(room_id, "m.room.topic", {"topic": "tea"})

    assert [refusal(answer) for answer in (left, banned)] == [FORBIDDEN] * 2


def test_who_lost_the_power_does_not_set_the_same_again(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, power_level_content_override=ALL_MAY_SET_STATE)
    bob.set_state(room_id, "m.room.topic", {"topic": "tea"})
    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    alice.set_state(room_id, "m.room.power_levels", {**levels, "state_default": 50})

    assert refusal(bob.set_state(room_id, "m.room.topic", {"topic": "tea"})) == FORBIDDEN


def test_a_leave_that_is_repeated_is_the_same_leave(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    leave = {"membership": "leave"}
    first = bob.set_state(room_id, "m.room.member", leave, BOB).get_json()

    with unchanged(app):
        again = bob.set_state(room_id, "m.room.member", leave, BOB)

    assert (again.status_code, again.get_json()) == (200, first)


# --- what would break a room for everybody


@pytest.mark.parametrize(
    ("content", "is_refused"),
    [
        ({"allow": ["*"], "deny": ["evil.example"]}, False),
        ({"allow": ["localhost"]}, False),
        ({"allow": ["loc?lhost"], "deny": ["localhost.example"]}, False),
        ({}, True),
        ({"allow": []}, True),
        ({"allow": "*"}, True),
        ({"allow": ["*"], "deny": ["*"]}, True),
        ({"allow": ["*"], "deny": ["LocalHost"]}, True),
        ({"allow": ["*.example"]}, True),
    ],
)
def test_an_access_control_list_does_not_lock_out_its_own_server(
    app: Application, login: Login, content: Json, is_refused: bool
) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answer = alice.set_state(room_id, "m.room.server_acl", content)

    if is_refused:
        assert refusal(answer) == BAD_JSON
    else:
        assert answer.status_code == 200


@pytest.mark.parametrize("content", [{}, {"algorithm": None}, {"algorithm": 1}, {"a": "b"}])
def test_encryption_is_not_turned_off(app: Application, login: Login, content: Json) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    on = {"algorithm": "m.megolm.v1.aes-sha2"}
    alice.set_state(room_id, "m.room.encryption", on)

    with unchanged(app):
        off = alice.set_state(room_id, "m.room.encryption", content)
    other = alice.set_state(room_id, "m.room.encryption", {**on, "rotation_period_msgs": 50})

    assert refusal(off) == FORBIDDEN
    assert other.status_code == 200


def test_a_room_is_not_replaced_by_itself(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answer = alice.set_state(room_id, "m.room.tombstone", {"replacement_room": room_id})

    assert refusal(answer) == BAD_JSON


def test_an_event_has_a_type(app: Application, login: Login) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.post("createRoom", json={"initial_state": [{"type": "", "content": {}}]})

    assert refusal(answer) == (400, "M_INVALID_PARAM")
