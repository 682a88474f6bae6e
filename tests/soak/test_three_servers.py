"""Three servers for an hour, with random events, kills and interrupted links: do they agree?

They have the same state of each room, and the same events, which they judge in the same way; and
each message to a device that was accepted has come once.

SOAK_MINUTES says for how long, SOAK_SEED which choices are made; `make soak` runs it.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from homebody.models.events import ACCEPTED, HISTORY, SOFT_FAILED
from tests.helpers import network as networks
from tests.helpers.live import Person
from tests.helpers.network import Homebody, Network
from tests.soak import databases
from tests.soak.actors import Actor, Faults, Place, World

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SEED = os.environ.get("SOAK_SEED", "1")
AGREED_WITHIN_SECONDS = 60.0
NAMES = ("a.test", "b.test", "c.test")
USERS_PER_SERVER = 3
MAX_SHOWN = 40
"""Differences in the report; one event that servers judge differently makes hundreds."""
VERSIONS = ("1", "6", "10", "11", "12")
"""Of the rooms in which all servers stay."""
pytestmark = [pytest.mark.soak, pytest.mark.timeout(MINUTES * 60 + 600)]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    partial_joins = random.Random(SEED).choice(["true", "false"])  # noqa: S311 - reproducible
    with networks.running(tmp_path, NAMES, partial_joins=partial_joins) as found:
        yield found
        for home in found:
            while home.persons:
                home.persons.pop().close()


def everywhere(world: World, creator: Person, version: str) -> Place:
    """Create a room that the anchors of all servers join."""
    anchors = list(world.anchors.values())
    levels = {it.user_id: 100 for it in anchors if version != "12" or it is not creator}
    room_id = creator.create_room(
        preset="public_chat",
        room_version=version,
        power_level_content_override={"users": levels},
    )
    for anchor in anchors:
        if anchor is not creator:
            anchor.ask("POST", f"/join/{quote(room_id)}?via={creator.user_id.partition(':')[2]}")
    return Place(room_id, is_anchored=True)


def settle(world: World) -> None:
    """Have each server send to each of its rooms, and fetch what it lacks of them."""
    for home in world.network:
        with suppress(AssertionError, OSError):
            for person in home.persons:
                for room_id in person.ask("GET", "/joined_rooms")["joined_rooms"]:
                    with suppress(AssertionError):  # the user may be banned elsewhere
                        person.send(room_id, "is everybody there?")
        for place in world.places:
            if place.is_anchored:
                _page_back(world.anchors[home.name], place.room_id)


def _page_back(person: Person, room_id: str) -> None:
    """Read a room to its beginning, by which older events are fetched from other servers."""
    path, start = f"/rooms/{quote(room_id)}/messages?dir=b&limit=200", ""
    while True:
        page = person.ask("GET", path + start)
        if "end" not in page:
            return
        start = f"&from={page['end']}"


def differences(world: World) -> list[str]:
    """Return in what the servers differ."""
    found: list[str] = []
    for place in world.places:
        there = [it for it in world.network if it.name in databases.members(it, place.room_id)]
        for one, other in itertools.pairwise(there):
            found += _different_state(one, other, place.room_id)
            if place.is_anchored:
                found += _different_events(one, other, place.room_id)
        for one in there:
            others = databases.members(one, place.room_id) - {it.name for it in there}
            found += [f"{one.name} takes {it} for a member of {place.room_id}" for it in others]
        if place.is_anchored and len(there) < len(NAMES):
            found.append(f"of {place.room_id} only {[it.name for it in there]} are members")
    return found


def _different_state(one: Homebody, other: Homebody, room_id: str) -> list[str]:
    mine, yours = databases.state(one, room_id), databases.state(other, room_id)
    return [
        f"{room_id} {key}: {one.name} {mine.get(key)}, {other.name} {yours.get(key)}"
        for key in sorted(mine.keys() | yours.keys())
        if mine.get(key) != yours.get(key)
    ]


def _different_events(one: Homebody, other: Homebody, room_id: str) -> list[str]:
    mine, yours = databases.events(one, room_id), databases.events(other, room_id)
    return [
        f"{room_id} {event_id}: {one.name} {mine.get(event_id)}, {other.name} {yours.get(event_id)}"
        for event_id in sorted(mine.keys() | yours.keys())
        if _kind(mine.get(event_id)) != _kind(yours.get(event_id))
    ]


def _kind(standing: str | None) -> str | None:
    """Return what servers agree in: whether an event soft-fails depends on when it has come."""
    return "allowed" if standing in {ACCEPTED, HISTORY, SOFT_FAILED} else standing


class Inbox:
    """The messages to a user's device, read by /sync and so acknowledged."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.texts: list[str] = []
        self._since = ""

    def read(self) -> None:
        """Read what has come."""
        while True:
            page = self.person.ask("GET", "/sync" + self._since)
            self._since = f"?since={quote(page['next_batch'])}"
            events = page.get("to_device", {}).get("events", [])
            self.texts += [it["content"]["text"] for it in events if it["type"] == "test.soak"]
            if not events:
                return


def lost_messages(world: World, inboxes: list[Inbox]) -> list[str]:
    """Return which messages to devices have not come, or came twice."""
    found: list[str] = []
    for inbox in inboxes:
        inbox.read()
        user_id, counts = inbox.person.user_id, Counter(inbox.texts)
        sent = [text for to_user, text in world.to_devices if to_user == user_id]
        found += [f"{user_id} has not got {text}" for text in sent if text not in counts]
        found += [f"{user_id} got {text} {it} times" for text, it in counts.items() if it > 1]
    return found


def run(world: World, threads: list[threading.Thread]) -> None:
    """Run the threads for the time of the test; then repair everything.

    The first thread makes faults. After it, all servers are apart for a tenth of the time.
    """
    for thread in threads:
        thread.start()
    time.sleep(MINUTES * 54)
    world.are_faults_over.set()
    threads[0].join(120)
    world.network.partition()
    time.sleep(MINUTES * 6)
    world.ended.set()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    world.network.heal()
    for home in world.network:
        if home.running.process.poll() is not None:
            home.start()


def test_three_servers_agree_within_a_minute_after_all_faults(network: Network) -> None:
    world = World(network)
    world.anchors = {home.name: home.person("anchor") for home in network}
    users = {home.name: [home.person("u") for _ in range(USERS_PER_SERVER)] for home in network}
    world.users = [person.user_id for some in users.values() for person in some]
    anchors = list(world.anchors.values())
    for number, version in enumerate(VERSIONS):
        world.places.append(everywhere(world, anchors[number % len(anchors)], version))
    for name, some in users.items():
        for person, place in itertools.product(some, world.places):
            person.ask("POST", f"/join/{quote(place.room_id)}?via={name}")
    for some in users.values():
        room_id = some[0].create_room(preset="public_chat")
        world.places.append(Place(room_id, is_anchored=False))

    actors = [Actor(world, home, users[home.name], SEED) for home in network]
    faults = Faults(world, SEED)
    work = [faults.run, *(actor.run for actor in actors)]
    run(world, [threading.Thread(target=it, daemon=True) for it in work])
    inboxes = [Inbox(person) for some in users.values() for person in some]
    healed, found = time.monotonic(), ["nothing was compared"]
    while found and time.monotonic() < healed + AGREED_WITHIN_SECONDS:
        settle(world)
        time.sleep(2)
        found = differences(world) + lost_messages(world, inboxes)

    lines = [f"after {time.monotonic() - healed:.1f} s", str(dict(world.statuses)), *faults.log]
    sys.stdout.write("\n".join([*lines, ""]))
    assert not found, "\n".join([f"seed {SEED}: {len(found)} differences", *found[:MAX_SHOWN]])
    assert not world.surprises
    for home in network:
        assert "Traceback" not in home.running.output()
