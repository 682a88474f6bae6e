"""Take measurements on servers that differ only in their history."""

from __future__ import annotations

import http.client
import itertools
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click

from tests.bench import samples, storage
from tests.bench.fill import SERVER_NAME, Home, Session, Step
from tests.helpers import server
from tests.helpers.server import RunningServer

S = TypeVar("S")

V3 = "/_matrix/client/v3"
PAGE = 100
STARTS = 3
SECOND_LOOKS = 2
_NUMBERS = itertools.count()


@dataclass(slots=True)
class Subject:
    """A server with the history of one step."""

    data_dir: Path
    home: Home
    step: Step
    running: RunningServer
    connection: http.client.HTTPConnection
    since: dict[str, str] = field(default_factory=dict)
    """Sync tokens by user ID."""

    def ask(
        self, who: Session, method: str, path: str, body: object = None, **query: object
    ) -> tuple[Any, float]:
        """Return (response, ms until it was complete). Raises AssertionError unless it is 200."""
        headers = {"Authorization": f"Bearer {who.token}"}
        url = f"{V3}/{path}?{urlencode(query)}"
        sent = None if method == "GET" else json.dumps(body or {}).encode()
        began = time.perf_counter()
        self.connection.request(method, url, sent, headers)
        answer = self.connection.getresponse()
        found = answer.read()
        took = 1000 * (time.perf_counter() - began)
        assert answer.status == 200, (url, found[:500])
        return json.loads(found), took

    def say(self, who: Session, room_id: str) -> float:
        """Return the ms for sending a message."""
        path = f"rooms/{quote(room_id)}/send/m.room.message/b{next(_NUMBERS)}"
        body = {"msgtype": "m.text", "body": self.home.words()}
        return self.ask(who, "PUT", path, body)[1]

    def sync(self, who: Session) -> float:
        """Return the ms for the next /sync of a user who is up to date."""
        answer, took = self.ask(who, "GET", "sync", since=self.since[who.user_id], timeout=0)
        self.since[who.user_id] = answer["next_batch"]
        return took

    def forget(self) -> None:
        """Clear the server's caches, which it does when another process has written."""
        database = sqlite3.connect(self.data_dir / storage.NAME, timeout=10)
        database.execute("PRAGMA user_version = 0")
        database.close()
        self.say(self.home.talker, self.home.rooms[-1])


def send(subject: Subject) -> float:
    """Send a message to a room of two."""
    return subject.say(subject.home.talker, subject.home.rooms[-1])


def send_to_deep_room(subject: Subject) -> float:
    """Send a message to the room with most of the history."""
    return subject.say(subject.home.talker, subject.home.rooms[0])


def send_to_big_room(subject: Subject) -> float:
    """Send a message that notifies thousands."""
    return subject.say(subject.home.host, subject.home.big_room)


def nothing_new_wide(subject: Subject) -> float:
    """Sync a user who is in all rooms."""
    subject.sync(subject.home.wide)
    return subject.sync(subject.home.wide)


def nothing_new_narrow(subject: Subject) -> float:
    """Sync a user who is in ten rooms."""
    subject.sync(subject.home.narrow)
    return subject.sync(subject.home.narrow)


def one_event_wide(subject: Subject) -> float:
    """Sync a user who is in all rooms, after one message."""
    subject.sync(subject.home.wide)
    subject.say(subject.home.talker, subject.home.rooms[1])
    return subject.sync(subject.home.wide)


def one_event_narrow(subject: Subject) -> float:
    """Sync a user who is in ten rooms, after one message."""
    subject.sync(subject.home.narrow)
    subject.say(subject.home.talker, subject.home.rooms[1])
    return subject.sync(subject.home.narrow)


def newest_page(subject: Subject) -> float:
    """Read the latest page of the first room."""
    return _page(subject, {})


def middle_page(subject: Subject) -> float:
    """Read a page from the middle of the first room."""
    return _page(subject, {"from": _before(subject, subject.step.said // 2)})


def oldest_page(subject: Subject) -> float:
    """Read the oldest page of the first room."""
    return _page(subject, {"from": _before(subject, PAGE)})


def members(subject: Subject) -> float:
    """List the members of the big room."""
    path = f"rooms/{quote(subject.home.big_room)}/members"
    answer, took = subject.ask(subject.home.host, "GET", path)
    assert len(answer["chunk"]) >= len(subject.home.members)
    return took


def join(subject: Subject) -> float:
    """Join the big room."""
    path = f"rooms/{quote(subject.home.big_room)}"
    _, took = subject.ask(subject.home.guest, "POST", f"{path}/join")
    subject.ask(subject.home.guest, "POST", f"{path}/leave")
    return took


def initial_sync(subject: Subject) -> float:
    """Sync a user in all rooms without a token."""
    # a different request each time: the server would repeat its response
    answer, took = subject.ask(subject.home.wide, "GET", "sync", number=next(_NUMBERS))
    assert len(answer["rooms"]["join"]) == len(subject.home.rooms)
    subject.since[subject.home.wide.user_id] = answer["next_batch"]
    return took


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the table, and how often it is measured."""

    name: str
    take: Callable[[Subject], float]
    times: int


def measures(home: Home) -> list[Measure]:
    """Return all measures of running servers."""
    rooms, people = len(home.rooms), len(home.members) + 1
    return [
        Measure("send, room of 2", send, 41),
        Measure("send, room with half of all messages", send_to_deep_room, 41),
        Measure(f"send, room of {people}", send_to_big_room, 7),
        Measure("sync, nothing new, 10 rooms", nothing_new_narrow, 41),
        Measure(f"sync, nothing new, {rooms} rooms", nothing_new_wide, 41),
        Measure("sync, one event, 10 rooms", one_event_narrow, 41),
        Measure(f"sync, one event, {rooms} rooms", one_event_wide, 41),
        Measure(f"page of {PAGE}, newest, nothing cached", newest_page, 15),
        Measure(f"page of {PAGE}, in the middle, nothing cached", middle_page, 15),
        Measure(f"page of {PAGE}, oldest, nothing cached", oldest_page, 15),
        Measure(f"members of a room of {people}", members, 9),
        Measure(f"join of a room of {people}", join, 9),
        Measure(f"initial sync of {rooms} rooms", initial_sync, 7),
    ]


def take_turns(subjects: Sequence[S], take: Callable[[S], float], times: int) -> list[float]:
    """Return the lower quartile of one measure, by subject. Each round has another order.

    Not the median: under other load, half of all times may include waiting.
    """
    found: list[list[float]] = [[] for _ in subjects]
    order = list(range(len(subjects)))
    for it in subjects:
        take(it)  # warm up, not counted
    for _ in range(times):
        order.reverse()
        for at in order:
            found[at].append(take(subjects[at]))
    return [sorted(them)[len(them) // 4] for them in found]


def without_noise(
    subjects: Sequence[S], take: Callable[[S], float], times: int, limit: float
) -> list[float]:
    """Take a measure, and repeat it if it seems to grow beyond the limit, which may be noise.

    Returns the repetition in which it grew least.
    """
    looks = [take_turns(subjects, take, times)]
    while looks[-1][-1] > limit * looks[-1][0] and len(looks) <= SECOND_LOOKS:
        looks.append(take_turns(subjects, take, times))
    return min(looks, key=lambda values: values[-1] / values[0])


def start_all(folders: list[tuple[Path, Step]], home: Home) -> tuple[list[Subject], list[float]]:
    """Start all servers; return them, and the ms of their fastest start to the first response."""
    times: list[list[float]] = [[] for _ in folders]
    subjects = []
    for number in range(STARTS):
        for at, (data_dir, step) in enumerate(folders):
            began = time.perf_counter()
            running = server.start(data_dir, server_name=SERVER_NAME, registration="closed")
            times[at].append(1000 * (time.perf_counter() - began))
            if number < STARTS - 1:
                running.stop()
            else:
                connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=60)
                subjects.append(Subject(data_dir, home, step, running, connection))
    return subjects, [min(it) for it in times]


def get_up(subject: Subject) -> None:
    """Get the first sync tokens."""
    for who in (subject.home.wide, subject.home.narrow):
        answer, _ = subject.ask(who, "GET", "sync")
        subject.since[who.user_id] = answer["next_batch"]


def memory_mb(running: RunningServer) -> float:
    """Return the memory of a server's processes as PSS; 0 without /proc."""
    return sum(pss for pss, _ in samples.memory_kb(running.process.pid)) / 1024


def run(subjects: list[Subject], home: Home, limit: float) -> list[tuple[str, list[float]]]:
    """Take all measures; return (name, times by subject in ms) of each."""
    for it in subjects:
        get_up(it)
    with click.progressbar(measures(home), label="measuring", file=sys.stderr) as bar:
        return [(it.name, without_noise(subjects, it.take, it.times, limit)) for it in bar]


def _page(subject: Subject, start: dict[str, str]) -> float:
    subject.forget()
    path = f"rooms/{quote(subject.home.rooms[0])}/messages"
    answer, took = subject.ask(subject.home.wide, "GET", path, dir="b", limit=PAGE, **start)
    assert len(answer["chunk"]) >= min(PAGE, subject.step.said // 2)
    return took


def _before(subject: Subject, number: int) -> str:
    """Return the token of the position before a message of the first room."""
    path = f"rooms/{quote(subject.home.rooms[0])}/context/{quote(subject.home.said[number])}"
    answer, _ = subject.ask(subject.home.wide, "GET", path, limit=0)
    return str(answer["start"])
