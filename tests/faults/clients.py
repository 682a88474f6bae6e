"""Clients of a server that is about to have an accident."""

from __future__ import annotations

import http.client
import itertools
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tests.helpers.server import RunningServer

Json = dict[str, Any]
V3 = "/_matrix/client/v3"
SECONDS = 30.0
GONE = (OSError, http.client.HTTPException)
"""What a request raises when the server has died."""


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    body: Json

    def __getitem__(self, key: str) -> Any:
        """Return a value of the body. Raises AssertionError with the response if it is an error."""
        assert self.status == 200, self
        return self.body[key]


class Person:
    """An account with one device; it survives a restart of the server."""

    _numbers = itertools.count()

    def __init__(self, server: RunningServer, name: str) -> None:
        self.server = server
        self.token = ""
        account = {"username": name, "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
        session = self.request("POST", "/register", account)
        self.token = session["access_token"]
        self.user_id: str = session["user_id"]
        self.device_id: str = session["device_id"]

    def request(
        self, method: str, path: str, body: Json | bytes | None = None, timeout: float = SECONDS
    ) -> Answer:
        """Send a request on a connection of its own. Raises one of GONE if there is no server."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        netloc = urlsplit(self.server.url).netloc
        with closing(http.client.HTTPConnection(netloc, timeout=timeout)) as connection:
            data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            url = path if path.startswith("/_matrix") else V3 + path
            connection.request(method, url, None if method == "GET" else data, headers)
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))

    def create_room(self, *invited: Person) -> str:
        """Create a room with these members; return its ID."""
        invite = [person.user_id for person in invited]
        room_id: str = self.request("POST", "/createRoom", {"invite": invite})["room_id"]
        for person in invited:
            person.request("POST", f"/rooms/{quote(room_id)}/join")["room_id"]
        return room_id

    def send(self, room_id: str, transaction: str = "") -> Answer:
        """Send a message whose text is its transaction ID."""
        transaction = transaction or f"{self.device_id}-{next(self._numbers)}"
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{transaction}"
        return self.request("PUT", path, {"msgtype": "m.text", "body": transaction})

    def sync(self, since: str = "", timeout_ms: int = 0, **query: str) -> Answer:
        """Sync, with up to 1,000 messages of each room."""
        lots = json.dumps({"room": {"timeline": {"limit": 1000}}})
        asked = {"timeout": timeout_ms, "filter": lots, **({"since": since} if since else {})}
        return self.request("GET", f"/sync?{urlencode(asked | query)}")

    def history(self, room_id: str) -> list[tuple[str, str]]:
        """Return (event ID, text) of every message in a room, in order."""
        found: list[tuple[str, str]] = []
        start = ""
        while True:
            page = self.request("GET", f"/rooms/{quote(room_id)}/messages?dir=f&limit=500{start}")
            found += messages(page["chunk"])
            if "end" not in page.body:
                return found
            start = f"&from={page['end']}"


class Sender(threading.Thread):
    """Sends message after message until it is stopped or a request fails."""

    def __init__(self, person: Person, room_id: str, name: str) -> None:
        super().__init__(daemon=True)
        self.person = person
        self.room_id = room_id
        self.name = name
        self.acknowledged: dict[str, str] = {}
        """{transaction ID: event ID}"""
        self.refused: list[Answer] = []
        self.in_doubt = ""
        """The last transaction ID, if it got no answer."""
        self.is_to_stop = False

    def run(self) -> None:
        for number in range(100_000):
            transaction = f"{self.name}-{number}"
            try:
                answer = self.person.send(self.room_id, transaction)
            except (*GONE, ValueError):
                self.in_doubt = transaction
                return
            if answer.status == 200:
                self.acknowledged[transaction] = answer["event_id"]
            else:
                self.refused.append(answer)
            if self.is_to_stop:
                return

    def send_again(self, transaction: str) -> str:
        """Repeat a transaction ID that the server may know; return the event ID."""
        event_id: str = self.person.send(self.room_id, transaction)["event_id"]
        return event_id


class Follower(threading.Thread):
    """Follows a room by /sync, and keeps its token when the server dies."""

    def __init__(self, person: Person, room_id: str, since: str) -> None:
        super().__init__(daemon=True)
        self.person = person
        self.room_id = room_id
        self.since = since
        self.seen: list[tuple[str, str]] = []
        """(event ID, text)"""
        self.has_gap = False
        self.refused: list[Answer] = []

    def run(self) -> None:
        while True:
            try:
                if not self.look(10_000):
                    return
            except (*GONE, ValueError):
                return

    def look(self, timeout_ms: int = 0) -> bool:
        """Sync once; return whether there was a response."""
        answer = self.person.sync(self.since, timeout_ms)
        if answer.status != 200:
            self.refused.append(answer)
            return False
        room = answer.body.get("rooms", {}).get("join", {}).get(self.room_id, {})
        timeline = room.get("timeline", {})
        self.has_gap |= timeline.get("limited", False)
        self.seen += messages(timeline.get("events", ()))
        self.since = answer["next_batch"]
        return True


def messages(events: Any) -> list[tuple[str, str]]:
    """Return (event ID, text) of the messages among events."""
    return [
        (event["event_id"], event["content"]["body"])
        for event in events
        if event["type"] == "m.room.message"
    ]


@contextmanager
def database(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a server from another process: this one."""
    with closing(sqlite3.connect(data_dir / "homebody.db", isolation_level=None)) as connection:
        yield connection


def waiting_devices(data_dir: Path, user_id: str) -> int:
    """Return how many devices of a user have messages waiting."""
    statement = "SELECT count(DISTINCT device_id) FROM to_device_messages WHERE user_id = ?"
    with database(data_dir) as connection:
        count: int = connection.execute(statement, (user_id,)).fetchone()[0]
    return count


def problems(data_dir: Path) -> list[str]:
    """Return what SQLite finds wrong with the database, and inconsistencies between tables."""
    with database(data_dir) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        wrong = [] if found == ["ok"] else found
        return wrong + [
            name
            for name, statement in CONTRADICTIONS.items()
            if connection.execute(statement).fetchall()
        ]


CONTRADICTIONS = {
    "a position beyond the clock": (
        "SELECT 1 FROM events, clock WHERE events.position > clock.position LIMIT 1"
    ),
    "a number beyond the clock": (
        "SELECT 1 FROM events, clock WHERE events.number > clock.event_number LIMIT 1"
    ),
    "more notifications than the unread count says": (  # of an invite there is a note only
        "SELECT 1 FROM unread_counts AS kept WHERE notification_count <"
        " (SELECT count(*) FROM notifications AS it JOIN events ON position = event_position"
        " AND events.room_id = it.room_id"
        " WHERE it.user_id = kept.user_id AND it.room_id = kept.room_id"
        " AND it.thread_id = kept.thread_id AND NOT it.is_read AND type != 'm.room.member')"
    ),
    "a notification of no event": (
        "SELECT 1 FROM notifications AS it WHERE NOT EXISTS (SELECT 1 FROM events"
        " WHERE events.room_id = it.room_id AND position = event_position)"
    ),
    "a state interval of no event": (
        "SELECT 1 FROM state_intervals WHERE event_number NOT IN (SELECT number FROM events)"
        " AND event_number != 0"
    ),
    "a state interval of no room": (
        "SELECT 1 FROM state_intervals WHERE room_number NOT IN (SELECT number FROM rooms)"
    ),
    "a row of the outbox for no event": (
        "SELECT 1 FROM outbox WHERE payload ->> '$.number' IS NOT NULL AND"
        " payload ->> '$.number' NOT IN (SELECT number FROM events)"
        " OR payload ->> '$.position' IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events"
        "  WHERE position = payload ->> '$.position' AND room_id = payload ->> '$.room_id')"
    ),
}


def failures(data_dir: Path) -> int:
    """Return how often the next delivery has failed."""
    with database(data_dir) as connection:
        (tries,) = connection.execute("SELECT max(tries) FROM outbox").fetchone()
        return tries or 0
