"""Servers between which packets are lost: each goes on for its own users, and they agree later.

Protects background/federation/pool.py (a request that hangs holds up no other) and sender.py
(TIMEOUT_S). Only as root, as it needs a network namespace.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.helpers import far_network
from tests.helpers import network as networks
from tests.helpers.far_network import FarNetwork
from tests.helpers.live import Person
from tests.helpers.network import Network
from tests.helpers.waiting import wait_for

CUT_SECONDS = 8.0
AGREED_WITHIN_SECONDS = 60.0
LONGEST_SECONDS = 2.0
"""For a request of a client, on a busy machine."""


@pytest.fixture
def far() -> Iterator[FarNetwork]:
    if problem := far_network.problem():
        pytest.skip(problem)
    with far_network.running("homebody-test") as found:
        yield found


@pytest.fixture
def servers(tmp_path: Path, far: FarNetwork) -> Iterator[Network]:
    with networks.running(tmp_path, listen=far.listener, outside_allowed="10.0.0.0/8") as found:
        yield found
        for server in found:
            while server.persons:
                server.persons.pop().close()


def state(person: Person, room_id: str) -> dict[tuple[str, str], str]:
    events = person.ask("GET", f"/rooms/{quote(room_id)}/state")
    return {(it["type"], it["state_key"]): it["event_id"] for it in events}


def messages(person: Person, room_id: str) -> set[str]:
    path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=500"
    chunk = person.ask("GET", path)["chunk"]
    return {it["content"]["body"] for it in chunk if it["type"] == "m.room.message"}


def set_topic(person: Person, room_id: str, topic: str) -> None:
    path = f"/rooms/{quote(room_id)}/state/m.room.topic"
    person.ask("PUT", path, {"topic": topic})


def test_both_sides_go_on_while_packets_are_lost_and_agree_afterwards(
    far: FarNetwork, servers: Network
) -> None:
    alice, bob = servers["a.test"].person("alice"), servers["b.test"].person("bob")
    room_id = alice.create_room(
        preset="public_chat", power_level_content_override={"users": {alice.user_id: 100}}
    )
    bob.ask("POST", f"/join/{quote(room_id)}?via=a.test")
    levels = {"users": {alice.user_id: 100, bob.user_id: 50}}
    alice.ask("PUT", f"/rooms/{quote(room_id)}/state/m.room.power_levels", levels)
    wait_for(
        lambda: state(alice, room_id) == state(bob, room_id),
        "the same state",
        AGREED_WITHIN_SECONDS,
    )

    far.cut()
    said: set[str] = set()
    longest_s, until = 0.0, time.monotonic() + CUT_SECONDS
    while time.monotonic() < until:
        for person in (alice, bob):
            began, body = time.monotonic(), f"{len(said)} of {person.name}"
            person.send(room_id, body)
            set_topic(person, room_id, body)
            said.add(body)
            longest_s = max(longest_s, time.monotonic() - began)
        time.sleep(0.1)
    heard = [it for it in messages(alice, room_id) if it.endswith(bob.name)]
    far.mend()
    for person in (alice, bob):
        person.send(room_id, "is anybody there?")

    assert not heard
    assert longest_s < LONGEST_SECONDS
    said.add("is anybody there?")
    wait_for(
        lambda: messages(alice, room_id) == messages(bob, room_id) == said,
        "all messages",
        AGREED_WITHIN_SECONDS,
    )
    wait_for(
        lambda: state(alice, room_id) == state(bob, room_id),
        "the same state",
        AGREED_WITHIN_SECONDS,
    )
