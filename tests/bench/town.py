"""The users of the mixed traffic, with their devices and rooms, and how they are created."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

V3 = "/_matrix/client/v3"
SECONDS = 60.0
PASSWORD = "correct horse battery staple"
ROOMS = 40
MOST_MEMBERS = 15
HISTORY = 10
"""Messages in each room before the traffic starts."""
REMEMBERED = 30
"""How many recent messages of a room users reply to."""
MOST_FAULTS = 20
"""How many are kept for the report."""
_VOCABULARY = 3000


class UnexpectedAnswerError(Exception):
    """An unexpected response."""


class Faults:
    """Failures, counted by all threads."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[str] = []
        self._lock = threading.Lock()

    def note(self, fault: str) -> None:
        """Count a failure; keep the first ones."""
        with self._lock:
            self.count += 1
            if len(self.told) < MOST_FAULTS:
                self.told.append(fault)


class Device:
    """An access token and a persistent connection, for one thread at a time."""

    def __init__(self, url: str, user_id: str = "", token: str = "", device_id: str = "") -> None:
        self.url = url
        self.user_id = user_id
        self.token = token
        self.device_id = device_id
        self.since = ""
        self.inbox = ""
        """The position of to-device messages in sliding sync."""
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)

    def again(self) -> Device:
        """Return the same device with a connection of its own."""
        return Device(self.url, self.user_id, self.token, self.device_id)

    def raw(self, method: str, path: str, body: bytes | None = None, *, expect: int = 200) -> bytes:
        """Return the response's body. Raises UnexpectedAnswerError for any other status."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = path if path.startswith("/") else f"{V3}/{path}"
        self.connection.request(method, url, body, headers)
        answer = self.connection.getresponse()
        found = answer.read()
        if answer.status != expect:
            raise UnexpectedAnswerError(f"{method} {url}: {answer.status} {found[:200]!r}")
        return found

    def ask(
        self, method: str, path: str, body: object = None, *, expect: int = 200, **query: Any
    ) -> Any:
        """Send JSON and return the JSON of the response."""
        asked = f"{path}?{urlencode(query)}" if query else path
        sent = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        return json.loads(self.raw(method, asked, sent, expect=expect))

    def sync(self, timeout_ms: int = 0, **query: Any) -> Any:
        """Return what is new since the last call."""
        query |= {"since": self.since} if self.since else {}
        answer = self.ask("GET", "sync", timeout=timeout_ms, **query)
        self.since = answer["next_batch"]
        return answer

    def hang_up(self) -> None:
        """Close the connection; the next request opens another."""
        self.connection.close()


@dataclass(slots=True)
class Room:
    """A permanent room, with its members."""

    room_id: str
    members: list[str]
    is_public: bool
    said: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """(event ID, user ID) of the last plain messages."""

    @property
    def path(self) -> str:
        """The start of its paths."""
        return f"rooms/{quote(self.room_id)}"


@dataclass(slots=True)
class Person:
    """A user, acting in one thread with `desk`, and waiting in another one with `phone`."""

    user_id: str
    phone: Device
    desk: Device
    random: Random
    rooms: list[Room] = field(default_factory=list)
    elsewhere: list[Room] = field(default_factory=list)
    """Public rooms of other users."""
    invites: deque[str] = field(default_factory=deque)
    """Rooms to which the user is invited, by ID."""
    stays: deque[str] = field(default_factory=deque)
    """Rooms in which the user stays for a while."""
    reacted: deque[str] = field(default_factory=lambda: deque(maxlen=2 * ROOMS * REMEMBERED))
    files: deque[str] = field(default_factory=lambda: deque(maxlen=10))
    """Uploaded files: server name and media ID."""
    back: dict[str, str] = field(default_factory=dict)
    """How far the user has scrolled back, by room ID."""
    backup: str = ""
    """The version of the user's key backup."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def words(self) -> str:
        """Return a message text; most are short."""
        count = 2 + int(38 * self.random.random() ** 3)
        ranks = (int(_VOCABULARY ** self.random.random()) for _ in range(count))
        return " ".join(f"word{rank}" for rank in ranks)

    def room(self) -> Room:
        """Return one of the user's rooms; some are busier than others."""
        return self.rooms[int(len(self.rooms) * self.random.random() ** 2)]

    def send(self, room: Room, event_type: str, content: object) -> str:
        """Send an event and return its ID."""
        path = f"{room.path}/send/{event_type}/t{next(self.numbers)}"
        return str(self.desk.ask("PUT", path, content)["event_id"])

    def say(self, room: Room, text: str, **more: object) -> str:
        """Send a message and return its ID."""
        return self.send(room, "m.room.message", {"msgtype": "m.text", "body": text, **more})


@dataclass(slots=True)
class Town:
    """All users, and the permanent rooms."""

    people: list[Person]
    rooms: list[Room]
    faults: Faults = field(default_factory=Faults)
    by_id: dict[str, Person] = field(default_factory=dict)

    def hang_up(self) -> None:
        """Close all connections."""
        for person in self.people:
            person.desk.hang_up()
            person.phone.hang_up()


def settle(url: str, users: int, seed: int, rooms: int = ROOMS) -> Town:
    """Create accounts with two devices each, and rooms of 2 to 15 users with some messages."""
    random = Random(seed)  # noqa: S311 - choices that are the same in every run
    people = [_arrive(url, at, Random(f"{seed} {at}")) for at in range(users)]  # noqa: S311 - as above
    town = Town(people, [], by_id={it.user_id: it for it in people})
    for at in range(rooms):
        most = min(MOST_MEMBERS, users)
        count = 2 + int((most - 1) * random.random() ** 2)
        town.rooms.append(_found(random.sample(people, count), at))
    for person in people:
        _know(person, town, random)
    for room in town.rooms:
        for _ in range(HISTORY):
            who = town.by_id[random.choice(room.members)]
            room.said.append((who.say(room, who.words()), who.user_id))
    return town


def log_in(url: str, user_id: str) -> Device:
    """Log in with a new device."""
    device = Device(url)
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": PASSWORD,
    }
    answer = device.ask("POST", "login", login)
    device.user_id, device.token = answer["user_id"], answer["access_token"]
    device.device_id = answer["device_id"]
    return device


def _arrive(url: str, at: int, random: Random) -> Person:
    account = {"username": f"p{at}", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    phone = Device(url)
    answer = phone.ask("POST", "register", account)
    phone.user_id, phone.token = answer["user_id"], answer["access_token"]
    phone.device_id = answer["device_id"]
    return Person(phone.user_id, phone, log_in(url, phone.user_id), random)


def _found(people: Sequence[Person], at: int) -> Room:
    """Create a room with these members; the first one is its creator."""
    is_public = len(people) > 4
    wishes = {
        "name": f"Room {at}",
        "preset": "public_chat" if is_public else "private_chat",
        "visibility": "public" if is_public else "private",
        "invite": [] if is_public else [it.user_id for it in people[1:]],
    }
    room_id = str(people[0].desk.ask("POST", "createRoom", wishes)["room_id"])
    room = Room(room_id, [it.user_id for it in people], is_public)
    for person in people[1:]:
        person.desk.ask("POST", f"{room.path}/join")
    return room


def _know(person: Person, town: Town, random: Random) -> None:
    person.rooms = [it for it in town.rooms if person.user_id in it.members]
    if not person.rooms:  # every user is in a room
        other = random.choice([it for it in town.people if it is not person])
        town.rooms.append(_found([person, other], len(town.rooms)))
        person.rooms = [town.rooms[-1]]
    away = [it for it in town.rooms if person.user_id not in it.members]
    person.elsewhere = [it for it in away if it.is_public]
