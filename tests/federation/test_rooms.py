"""Rooms that homebody and Synapse share: each has the room once, the other takes part."""

from __future__ import annotations

import pytest

from tests.federation.users import User

VERSIONS = ["1", "6", "10", "11", "12"]


@pytest.mark.parametrize("version", VERSIONS)
def test_users_of_both_servers_talk_in_a_public_room(alice: User, bob: User, version: str) -> None:
    room_id = alice.create_room(preset="public_chat", room_version=version)

    bob.join_via(room_id, alice.home)
    alice.sees_member(room_id, bob)
    alice.send(room_id, "from the host")
    bob.sees(room_id, "from the host")
    bob.send(room_id, "from the guest")

    alice.sees(room_id, "from the guest")
    assert alice.members(room_id) == bob.members(room_id) == {alice.user_id, bob.user_id}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_invited_user_joins_a_private_room(alice: User, bob: User, version: str) -> None:
    room_id = alice.create_room(preset="private_chat", room_version=version, name="Tea")

    alice.invite(room_id, bob)
    invite = bob.sees_invite(room_id)
    bob.join(room_id)
    bob.send(room_id, "thanks")

    names = [
        it["content"] for it in invite["invite_state"]["events"] if it["type"] == "m.room.name"
    ]
    assert names == [{"name": "Tea"}]
    assert alice.sees(room_id, "thanks")["sender"] == bob.user_id


def test_a_rejected_invite_is_gone_on_both_sides(alice: User, bob: User) -> None:
    room_id = alice.create_room(preset="private_chat")
    alice.invite(room_id, bob)
    bob.sees_invite(room_id)

    bob.act(room_id, "leave")

    alice.sees_member(room_id, bob, "leave")


def test_a_withdrawn_invite_is_gone_on_both_sides(alice: User, bob: User) -> None:
    room_id = alice.create_room(preset="private_chat")
    alice.invite(room_id, bob)
    bob.sees_invite(room_id)

    alice.act(room_id, "kick", user_id=bob.user_id)

    bob.sees_member(room_id, bob, "leave")


@pytest.mark.parametrize("version", ["7", "11", "12"])
def test_a_user_knocks_and_is_let_in(alice: User, bob: User, version: str) -> None:
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = alice.create_room(room_version=version, initial_state=[rule])

    bob.knock(room_id, alice.home)
    alice.sees_member(room_id, bob, "knock")
    alice.invite(room_id, bob)
    bob.sees_invite(room_id)
    bob.join(room_id)

    alice.sees_member(room_id, bob, "join")


@pytest.mark.parametrize("version", ["8", "10", "12"])
def test_a_member_of_one_room_joins_a_restricted_one(alice: User, bob: User, version: str) -> None:
    space_id = alice.create_room(preset="public_chat", room_version=version)
    allow = [{"type": "m.room_membership", "room_id": space_id}]
    content = {"join_rule": "restricted", "allow": allow}
    rule = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room_id = alice.create_room(room_version=version, initial_state=[rule])
    bob.join_via(space_id, alice.home)
    alice.sees_member(space_id, bob)

    bob.join_via(room_id, alice.home)

    alice.sees_member(room_id, bob)


def test_a_stranger_does_not_join_a_restricted_room(alice: User, bob: User) -> None:
    space_id = alice.create_room(preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": space_id}]
    content = {"join_rule": "restricted", "allow": allow}
    rule = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room_id = alice.create_room(initial_state=[rule])

    with pytest.raises(AssertionError, match="M_FORBIDDEN"):
        bob.join_via(room_id, alice.home)


def test_a_kick_a_ban_and_a_leave_reach_the_other_server(
    alice: User, bob: User, shared_room: str
) -> None:
    alice.act(shared_room, "kick", user_id=bob.user_id, reason="noise")
    kicked = bob.sees_member(shared_room, bob, "leave")
    bob.join_via(shared_room, alice.home)
    alice.sees_member(shared_room, bob)
    bob.act(shared_room, "leave")
    alice.sees_member(shared_room, bob, "leave")
    alice.act(shared_room, "ban", user_id=bob.user_id)

    assert kicked["reason"] == "noise"
    with pytest.raises(AssertionError, match="M_FORBIDDEN"):
        bob.join_via(shared_room, alice.home)


def test_state_is_changed_from_both_sides(alice: User, bob: User, shared_room: str) -> None:
    levels = {"users": {alice.user_id: 100, bob.user_id: 50}, "state_default": 50}

    alice.set_state(shared_room, "m.room.topic", {"topic": "cats"})
    bob.sees_state(shared_room, "m.room.topic", {"topic": "cats"})
    alice.set_state(shared_room, "m.room.name", {"name": "Tea"})
    creators_are_privileged = alice.state[shared_room, "m.room.create", ""]["room_version"] == "12"
    if creators_are_privileged:
        levels["users"] = {bob.user_id: 50}
    alice.set_state(shared_room, "m.room.power_levels", levels)
    bob.sees_state(shared_room, "m.room.power_levels", levels)
    bob.set_state(shared_room, "m.room.topic", {"topic": "dogs"})

    alice.sees_state(shared_room, "m.room.topic", {"topic": "dogs"})
    bob.sees_state(shared_room, "m.room.name", {"name": "Tea"})


def test_a_redaction_reaches_the_other_server(alice: User, bob: User, shared_room: str) -> None:
    event_id = bob.send(shared_room, "regrettable")
    alice.sees(shared_room, "regrettable")

    bob.ask("PUT", f"/rooms/{shared_room}/redact/{event_id}/1", {})
    path = f"/rooms/{shared_room}/event/{event_id}"

    alice.until(lambda: alice.ask("GET", path)["content"] == {}, "the redaction")


def test_a_room_is_joined_by_its_alias(alice: User, bob: User) -> None:
    name = f"tea-{alice.name}"
    room_id = alice.create_room(preset="public_chat", room_alias_name=name)

    joined = bob.join_via(f"#{name}:{alice.home.name}", alice.home)

    assert joined == room_id
    alice.sees_member(room_id, bob)


def test_history_from_before_the_join_is_read(alice: User, bob: User) -> None:
    room_id = alice.create_room(preset="public_chat")
    for number in range(30):
        alice.send(room_id, f"before {number}")
    bob.join_via(room_id, alice.home)
    bob.sees_member(room_id, alice)

    def bodies() -> list[str]:
        page = bob.ask("GET", f"/rooms/{room_id}/messages?dir=b&limit=100")["chunk"]
        return [it["content"]["body"] for it in page if it["type"] == "m.room.message"]

    bob.until(lambda: len(bodies()) == 30, "the messages of before")
    assert bodies() == [f"before {number}" for number in reversed(range(30))]


def test_both_sides_send_at_once_and_have_the_same_in_the_end(
    alice: User, bob: User, shared_room: str
) -> None:
    for number in range(10):
        alice.send(shared_room, f"host {number}")
        bob.send(shared_room, f"guest {number}")

    for number in range(10):
        alice.sees(shared_room, f"guest {number}")
        bob.sees(shared_room, f"host {number}")


def test_a_server_that_was_down_catches_up(alice: User, bob: User, shared_room: str) -> None:
    bob.home.stop()
    for number in range(30):
        alice.send(shared_room, f"missed {number}")
    bob.home.start()
    bob.server = bob.home.running

    bob.send(shared_room, "back")
    alice.sees(shared_room, "back")
    bob.sees(shared_room, "missed 29")

    def bodies() -> list[str]:
        page = bob.ask("GET", f"/rooms/{shared_room}/messages?dir=b&limit=100")["chunk"]
        return [it["content"].get("body") for it in page if it["type"] == "m.room.message"]

    bob.until(lambda: {f"missed {n}" for n in range(30)} <= set(bodies()), "all that it missed")
