"""Two real servers: what one said while the other could not be reached, and before it was there."""

from __future__ import annotations

import functools
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.helpers.live import Person
from tests.helpers.network import Homebody, Network
from tests.helpers.waiting import wait_for

Json = dict[str, Any]


def say(person: Person, room_id: str, count: int) -> list[str]:
    found = []
    for number in range(count):
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{time.monotonic_ns()}"
        body = {"msgtype": "m.text", "body": f"{number}"}
        found.append(str(person.ask("PUT", path, body)["event_id"]))
    return found


def read(person: Person, room_id: str) -> list[str]:
    """Return the ids of all messages, the oldest first, read page by page."""
    found: list[str] = []
    start = ""
    while True:
        path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=50{start}"
        page = person.ask("GET", path)
        some = [it["event_id"] for it in page["chunk"] if it["type"] == "m.room.message"]
        found = some[::-1] + found
        if "end" not in page:
            return found
        start = f"&from={page['end']}"


@pytest.fixture
def servers(two_servers: Network) -> tuple[Homebody, Homebody]:
    return two_servers["a.test"], two_servers["b.test"]


def shared_room(servers: tuple[Homebody, Homebody]) -> tuple[Person, Person, str]:
    a, b = servers
    alice, bob = a.person("alice"), b.person("bob")
    room_id = str(alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"])
    bob.ask("POST", f"/join/{quote(room_id)}?via=a.test", {})
    return alice, bob, room_id


def test_what_was_said_before_a_join_is_read_from_the_other_server(
    servers: tuple[Homebody, Homebody],
) -> None:
    a, b = servers
    alice, bob = a.person("alice"), b.person("bob")
    room_id = str(alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"])
    said = say(alice, room_id, 130)

    bob.ask("POST", f"/join/{quote(room_id)}?via=a.test", {})

    assert read(bob, room_id) == said


def test_both_sides_of_a_partition_have_everything_after_it(
    two_servers: Network, servers: tuple[Homebody, Homebody]
) -> None:
    alice, bob, room_id = shared_room(servers)
    two_servers.partition()
    said = {*say(alice, room_id, 40), *say(bob, room_id, 40)}
    two_servers.heal()
    last = {*say(alice, room_id, 1), *say(bob, room_id, 1)}

    def has_last(person: Person) -> bool:
        return last <= set(read(person, room_id))

    for person in (alice, bob):
        wait_for(functools.partial(has_last, person))
        assert set(read(person, room_id)) == said | last


def test_what_was_said_while_a_server_was_off_comes_when_it_is_back(
    servers: tuple[Homebody, Homebody],
) -> None:
    alice, bob, room_id = shared_room(servers)
    servers[1].stop()
    said = say(alice, room_id, 60)
    servers[1].start()
    bob.server = servers[1].running
    last = say(alice, room_id, 1)

    wait_for(lambda: set(last) <= set(read(bob, room_id)))
    assert read(bob, room_id) == said + last
