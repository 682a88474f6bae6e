"""Rooms of two real servers under gunicorn, which also are killed on the way."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from tests.helpers.live import Person
from tests.helpers.network import Network
from tests.helpers.waiting import wait_for

Json = dict[str, Any]


def state(person: Person, room_id: str) -> dict[tuple[str, str], Json]:
    """Return {(type, state_key): content}."""
    events = person.ask("GET", f"/rooms/{quote(room_id)}/state")
    return {(it["type"], it["state_key"]): it["content"] for it in events}


def membership(person: Person, room_id: str, user_id: str) -> str | None:
    content = state(person, room_id).get(("m.room.member", user_id), {})
    return content.get("membership")


def bodies(person: Person, room_id: str) -> list[str]:
    """Return the texts of the messages that /sync shows."""
    rooms = person.ask("GET", "/sync")["rooms"]["join"]
    events = rooms.get(room_id, {"timeline": {"events": []}})["timeline"]["events"]
    return [it["content"]["body"] for it in events if it["type"] == "m.room.message"]


def section(person: Person, name: str) -> Json:
    found: Json = person.ask("GET", "/sync")["rooms"].get(name, {})
    return found


def has_joined(person: Person, room_id: str) -> bool:
    return room_id in section(person, "join")


def test_a_user_finds_a_room_by_its_alias_joins_talks_and_leaves(two_servers: Network) -> None:
    a, b = two_servers
    alice, bob = a.person("alice"), b.person("bob")
    alias = f"#{alice.name}:a.test"
    room_id = alice.create_room(preset="public_chat", room_alias_name=alice.name, name="Room")

    bob.ask("POST", f"/join/{quote(alias)}")
    bob.send(room_id, "from b")
    wait_for(lambda: "from b" in bodies(alice, room_id), "the message of bob")
    alice.send(room_id, "from a")
    wait_for(lambda: "from a" in bodies(bob, room_id), "the message of alice")

    assert state(alice, room_id) == state(bob, room_id)
    bob.ask("POST", f"/rooms/{quote(room_id)}/leave")
    wait_for(lambda: membership(alice, room_id, bob.user_id) == "leave", "the leave")
    alice.send(room_id, "without bob")
    bob.ask("POST", f"/join/{quote(alias)}")
    bob.send(room_id, "again")
    wait_for(lambda: "again" in bodies(alice, room_id), "the message after the return")
    assert state(alice, room_id) == state(bob, room_id)


def test_a_user_is_invited_rejects_is_invited_again_and_accepts(two_servers: Network) -> None:
    a, b = two_servers
    alice, bob = a.person("alice"), b.person("bob")
    room_id = alice.create_room(preset="private_chat", name="Private")
    invite = f"/rooms/{quote(room_id)}/invite"

    alice.ask("POST", invite, {"user_id": bob.user_id})
    assert room_id in section(bob, "invite")
    bob.ask("POST", f"/rooms/{quote(room_id)}/leave")
    assert room_id not in section(bob, "invite")
    wait_for(lambda: membership(alice, room_id, bob.user_id) == "leave", "the rejection")
    alice.ask("POST", invite, {"user_id": bob.user_id})
    assert room_id in section(bob, "invite")
    bob.join(room_id)

    assert state(alice, room_id) == state(bob, room_id)
    bob.send(room_id, "here")
    wait_for(lambda: "here" in bodies(alice, room_id), "the message")


def test_an_invite_is_taken_back(two_servers: Network) -> None:
    a, b = two_servers
    alice, bob = a.person("alice"), b.person("bob")
    room_id = alice.create_room(preset="private_chat")
    alice.ask("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": bob.user_id})

    alice.ask("POST", f"/rooms/{quote(room_id)}/kick", {"user_id": bob.user_id})

    wait_for(lambda: room_id not in section(bob, "invite"), "the end of the invite")


def test_a_user_knocks_and_is_let_in(two_servers: Network) -> None:
    a, b = two_servers
    alice, bob = a.person("alice"), b.person("bob")
    room_id = alice.create_room(
        initial_state=[
            {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
        ]
    )

    bob.ask("POST", f"/knock/{quote(room_id)}?via=a.test")
    assert room_id in section(bob, "knock")
    assert membership(alice, room_id, bob.user_id) == "knock"
    alice.ask("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": bob.user_id})
    bob.join(room_id)

    assert state(alice, room_id) == state(bob, room_id)


def test_a_restricted_room_is_joined_by_way_of_its_space(two_servers: Network) -> None:
    a, b = two_servers
    alice, bob = a.person("alice"), b.person("bob")
    space = alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
    allow = [{"type": "m.room_membership", "room_id": space}]
    rules = {"join_rule": "restricted", "allow": allow}
    room_id = alice.create_room(
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rules}]
    )
    path = f"/join/{quote(room_id)}?via=a.test"

    assert bob.raw("POST", path, {})[0] == 403
    bob.ask("POST", f"/join/{quote(space)}?via=a.test")
    bob.ask("POST", path)

    own = state(alice, room_id)["m.room.member", bob.user_id]
    assert own["join_authorised_via_users_server"] == alice.user_id
    assert state(bob, room_id) == state(alice, room_id)


def test_a_server_that_is_killed_while_a_user_joins_ends_in_the_room(two_servers: Network) -> None:
    a, b = two_servers
    alice, bob = a.person("alice"), b.person("bob")
    room_id = alice.create_room(preset="public_chat")
    link = two_servers.link(b, a)
    link.delay_s = 0.3

    def join() -> None:
        with suppress(OSError, AssertionError, HTTPException):  # it is killed meanwhile
            bob.again().ask("POST", f"/join/{quote(room_id)}?via=a.test")

    joining = threading.Thread(target=join)
    joining.start()
    wait_for(lambda: membership(alice, room_id, bob.user_id) == "join", "the join")
    b.restart(kill=True)
    joining.join()
    link.delay_s = 0.0
    bob.server = b.running

    wait_for(lambda: has_joined(bob, room_id), "the room")
    assert state(alice, room_id) == state(bob, room_id)
    bob.send(room_id, "here I am")
    wait_for(lambda: "here I am" in bodies(alice, room_id), "the message")
