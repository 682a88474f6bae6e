"""The people of the mixed traffic: their devices and rooms, and how they move in."""

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
"""Messages of each room before it begins."""
REMEMBERED = 30
"""How many messages of a room people still talk about."""
MOST_FAULTS = 20
"""How many are kept to be told."""
_VOCABULARY = 3000


class UnexpectedAnswerError(Exception):
    """An answer that was not meant."""


class Faults:
    """What went wrong, counted by all threads."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[str] = []
        self._lock = threading.Lock()

    def note(self, fault: str) -> None:
        """Count it, and keep the first of them."""
        with self._lock:
            self.count += 1
            if len(self.told) < MOST_FAULTS:
                self.told.append(fault)


class Device:
    """An access token, and a connection that is kept open. For one thread at a time."""

    def __init__(self, url: str, user_id: str = "", token: str = "", device_id: str = "") -> None:
        self.url = url
        self.user_id = user_id
        self.token = token
        self.device_id = device_id
        self.since = ""
        self.inbox = ""
        """How far sliding sync has told of messages to the device."""
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)

    def again(self) -> Device:
        """The same on another connection."""
        return Device(self.url, self.user_id, self.token, self.device_id)

    def raw(self, method: str, path: str, body: bytes | None = None, *, expect: int = 200) -> bytes:
        """The answer's body. Raises UnexpectedAnswerError unless the answer has that status."""
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
        """The same for JSON."""
        asked = f"{path}?{urlencode(query)}" if query else path
        sent = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        return json.loads(self.raw(method, asked, sent, expect=expect))

    def sync(self, timeout_ms: int = 0, **query: Any) -> Any:
        """What is new since the last time."""
        query |= {"since": self.since} if self.since else {}
        answer = self.ask("GET", "sync", timeout=timeout_ms, **query)
        self.since = answer["next_batch"]
        return answer

    def hang_up(self) -> None:
        """Close the connection; the next request opens another."""
        self.connection.close()


@dataclass(slots=True)
class Room:
    """A room that lasts, with the people who stay in it."""

    room_id: str
    members: list[str]
    is_public: bool
    said: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """(event id, user id) of the last plain messages."""

    @property
    def path(self) -> str:
        """Where it is."""
        return f"rooms/{quote(self.room_id)}"


@dataclass(slots=True)
class Person:
    """Who acts, in one thread; `desk` is for that, the phone for what waits in another."""

    user_id: str
    phone: Device
    desk: Device
    random: Random
    rooms: list[Room] = field(default_factory=list)
    elsewhere: list[Room] = field(default_factory=list)
    """Public rooms of others."""
    invites: deque[str] = field(default_factory=deque)
    """Rooms that others have asked the person into, by id."""
    stays: deque[str] = field(default_factory=deque)
    """Rooms in which the person is for some time."""
    reacted: deque[str] = field(default_factory=lambda: deque(maxlen=2 * ROOMS * REMEMBERED))
    files: deque[str] = field(default_factory=lambda: deque(maxlen=10))
    """What was uploaded: server name and media id."""
    back: dict[str, str] = field(default_factory=dict)
    """How far the person has scrolled back, by room id."""
    backup: str = ""
    """The version of the person's backup of keys."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def words(self) -> str:
        """Something to say; short as a rule."""
        count = 2 + int(38 * self.random.random() ** 3)
        ranks = (int(_VOCABULARY ** self.random.random()) for _ in range(count))
        return " ".join(f"word{rank}" for rank in ranks)

    def room(self) -> Room:
        """One of the person's rooms; some are livelier than others."""
        return self.rooms[int(len(self.rooms) * self.random.random() ** 2)]

    def send(self, room: Room, event_type: str, content: object) -> str:
        """The id of an event that was sent."""
        path = f"{room.path}/send/{event_type}/t{next(self.numbers)}"
        return str(self.desk.ask("PUT", path, content)["event_id"])

    def say(self, room: Room, text: str, **more: object) -> str:
        """The id of a message."""
        return self.send(room, "m.room.message", {"msgtype": "m.text", "body": text, **more})


@dataclass(slots=True)
class Town:
    """Everybody, and the rooms that last."""

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
    """Accounts with two devices each, rooms of 2 to 15 people, and something said in them."""
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
    """A new device."""
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
    """A room of these; the first makes it."""
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
    if not person.rooms:  # nobody has nobody
        other = random.choice([it for it in town.people if it is not person])
        town.rooms.append(_found([person, other], len(town.rooms)))
        person.rooms = [town.rooms[-1]]
    away = [it for it in town.rooms if person.user_id not in it.members]
    person.elsewhere = [it for it in away if it.is_public]
