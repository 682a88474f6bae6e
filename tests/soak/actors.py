"""Users who do things at random, and what happens to the servers and the links between them.

Each choice follows from the seed; when it is made, and what comes of it, depends on the machine.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.helpers.live import Person
from tests.helpers.network import Homebody, Network
from tests.helpers.relay import Break

Json = dict[str, Any]
PAUSE_S = 0.25
"""Between two actions of the users of one server, on average."""
EXPECTED = {200, 400, 403, 404, 429, 502, 503, 504}
"""Statuses of responses while servers and links fail."""
ACTIONS = {
    "say": 50,
    "set_state": 12,
    "set_level": 6,
    "join": 16,
    "leave": 4,
    "invite": 4,
    "kick": 4,
    "ban": 3,
    "unban": 6,
    "redact": 4,
    "send_to_device": 8,
}


@dataclass
class Place:
    """A room, and whether each server has a user there who never leaves it."""

    room_id: str
    is_anchored: bool


@dataclass
class World:
    """What actors know of each other."""

    network: Network
    places: list[Place] = field(default_factory=list)
    anchors: dict[str, Person] = field(default_factory=dict)
    """By the name of the server."""
    users: list[str] = field(default_factory=list)
    """The ids of the users who come and go."""
    are_faults_over: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each action had each status; 0: no response."""
    to_devices: list[tuple[str, str]] = field(default_factory=list)
    """(user_id, content) of messages to devices that a server has accepted."""
    surprises: list[str] = field(default_factory=list)
    """Responses that no fault explains."""


class Actor:
    """The users of one server. `run` is for a thread."""

    def __init__(self, world: World, home: Homebody, persons: list[Person], seed: str) -> None:
        self.world = world
        self.home = home
        self.persons = persons
        self.random = random.Random(f"{seed} {home.name}")  # noqa: S311 - reproducible
        self.sent: list[tuple[str, str]] = []

    def run(self) -> None:
        """Do one thing after another until the end."""
        names, weights = list(ACTIONS), list(ACTIONS.values())
        while not self.world.ended.wait(self.random.uniform(0, 2 * PAUSE_S)):
            anchor = self.world.anchors[self.home.name]
            person = self.random.choice([*self.persons, anchor, anchor])
            place = self.random.choice(self.world.places)
            action = self.random.choices(names, weights)[0]
            if place.is_anchored and action == "leave" and person not in self.persons:
                continue
            getattr(self, action)(person, place.room_id)

    def ask(self, action: str, person: Person, method: str, path: str, body: Any = None) -> Any:
        """Return the response to a request, or None without one, or with an error."""
        try:
            status, answer = person.raw(method, path, {} if body is None else body)
        except (OSError, http.client.HTTPException):  # the server was killed
            person.close()
            self.world.statuses[action, 0] += 1
            return None
        self.world.statuses[action, status] += 1
        if status not in EXPECTED:
            self.world.surprises.append(f"{method} {path}: {status} {answer!r}")
        return json.loads(answer) if status == 200 else None

    def say(self, person: Person, room_id: str) -> None:
        """Send a message."""
        txn_id = self.random.getrandbits(64)
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{txn_id}"
        body = {"msgtype": "m.text", "body": f"{txn_id} of {person.user_id}"}
        found = self.ask("say", person, "PUT", path, body)
        if found is not None:
            self.sent.append((room_id, found["event_id"]))

    def set_state(self, person: Person, room_id: str) -> None:
        """Change one of a few entries of the state."""
        event_type = self.random.choice(["m.room.topic", "m.room.name", "test.state"])
        state_key = str(self.random.randrange(4)) if event_type == "test.state" else ""
        content = {event_type.rpartition(".")[2]: f"{self.random.random()} of {person.user_id}"}
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{state_key}"
        self.ask("set_state", person, "PUT", path, content)

    def set_level(self, person: Person, room_id: str) -> None:
        """Make a user a moderator, or not any more."""
        path = f"/rooms/{quote(room_id)}/state/m.room.power_levels"
        content = self.ask("get_levels", person, "GET", path)
        if content is not None:
            users = content.setdefault("users", {})
            users[self.random.choice(self.world.users)] = self.random.choice([0, 50, 50])
            self.ask("set_level", person, "PUT", path, content)

    def join(self, person: Person, room_id: str) -> None:
        """Join, by way of servers that may be in the room."""
        names = [home.name for home in self.world.network if home is not self.home]
        self.random.shuffle(names)
        path = f"/join/{quote(room_id)}?" + "&".join(f"via={name}" for name in names)
        self.ask("join", person, "POST", path)

    def leave(self, person: Person, room_id: str) -> None:
        """Leave, or reject an invite."""
        self.ask("leave", person, "POST", f"/rooms/{quote(room_id)}/leave")

    def invite(self, person: Person, room_id: str) -> None:
        """Invite a user."""
        self._about_another("invite", person, room_id)

    def kick(self, person: Person, room_id: str) -> None:
        """Kick a user."""
        self._about_another("kick", person, room_id)

    def ban(self, person: Person, room_id: str) -> None:
        """Ban a user."""
        self._about_another("ban", person, room_id)

    def unban(self, person: Person, room_id: str) -> None:
        """Unban a user."""
        self._about_another("unban", person, room_id)

    def redact(self, person: Person, room_id: str) -> None:
        """Redact one of the last messages of this server's users."""
        recent = [event_id for of_room, event_id in self.sent[-50:] if of_room == room_id]
        if recent:
            event_id, txn_id = self.random.choice(recent), self.random.getrandbits(64)
            path = f"/rooms/{quote(room_id)}/redact/{quote(event_id)}/{txn_id}"
            self.ask("redact", person, "PUT", path)

    def send_to_device(self, person: Person, _room_id: str) -> None:
        """Send a message to all devices of a user, who has one."""
        user_id, text = self.random.choice(self.world.users), str(self.random.getrandbits(64))
        body = {"messages": {user_id: {"*": {"text": text}}}}
        path = f"/sendToDevice/test.soak/{text}"
        if self.ask("send_to_device", person, "PUT", path, body) is not None:
            self.world.to_devices.append((user_id, text))

    def _about_another(self, action: str, person: Person, room_id: str) -> None:
        body = {"user_id": self.random.choice(self.world.users)}
        self.ask(action, person, "POST", f"/rooms/{quote(room_id)}/{action}", body)


class Faults:
    """Kills servers, and interrupts or slows down links. `run` is for a thread."""

    def __init__(self, world: World, seed: str) -> None:
        self.world = world
        self.random = random.Random(f"{seed} faults")  # noqa: S311 - reproducible
        self.log: list[str] = []
        """What has happened, with the seconds since the start."""
        self._began = time.monotonic()

    def run(self) -> None:
        """Do harm until the end."""
        servers = list(self.world.network)
        while not self.world.are_faults_over.wait(self.random.uniform(2, 10)):
            one, other = self.random.sample(servers, 2)
            fault = self.random.choices(
                [self.interrupt, self.isolate, self.slow_down, self.cut, self.heal, self.kill],
                [25, 12, 10, 10, 18, 10],
            )[0]
            fault(one, other)

    def interrupt(self, one: Homebody, other: Homebody) -> None:
        """Interrupt the requests of one server to another."""
        how: Break = self.random.choice(["refuse", "hang"])
        self._note(f"{how} {one.name} → {other.name}")
        self.world.network.link(one, other).interrupt(how)

    def isolate(self, one: Homebody, _other: Homebody) -> None:
        """Interrupt all links of a server."""
        self._note(f"isolate {one.name}")
        self.world.network.partition(one)

    def slow_down(self, one: Homebody, other: Homebody) -> None:
        """Delay what passes a link."""
        self._note(f"slow {one.name} → {other.name}")
        self.world.network.link(one, other).delay_s = self.random.uniform(0.1, 1)

    def cut(self, one: Homebody, other: Homebody) -> None:
        """Close connections in the middle of responses."""
        self._note(f"cut {one.name} → {other.name}")
        self.world.network.link(one, other).cut_after_bytes = self.random.uniform(100, 20_000)

    def heal(self, _one: Homebody, _other: Homebody) -> None:
        """Repair all links."""
        self._note("heal")
        self.world.network.heal()

    def kill(self, one: Homebody, _other: Homebody) -> None:
        """Kill a server, and start it again after a while."""
        is_killed = self.random.random() < 0.8
        self._note(f"{'kill' if is_killed else 'stop'} {one.name}")
        one.stop(kill=is_killed)
        self.world.are_faults_over.wait(self.random.uniform(0, 10))
        one.start()

    def _note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:.1f} {what}")
