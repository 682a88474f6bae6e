"""Another process locks the database: writes wait and fail in time; reads are not affected.

Protects storage/writer.py: Writer.open_batch (it retries while the error says "locked", with a
cooperative sleep, and fails when `until` is over) and Database.write (`until` counts from the
arrival of a writer, so that queued writers do not wait one after the other); and `"timeout": 0` in
storage/engine.py: make_engine (SQLite's own wait would block all requests).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import clients
from tests.faults.clients import Answer, Person
from tests.faults.conftest import Start
from tests.helpers.server import RunningServer

WRITERS = 6


class Write(threading.Thread):
    """A message that is sent while the database is locked, and how long that took."""

    def __init__(self, person: Person, room_id: str) -> None:
        super().__init__(daemon=True)
        self.person = person
        self.room_id = room_id
        self.answer: Answer | None = None
        self.seconds = 0.0

    def run(self) -> None:
        began = time.monotonic()
        self.answer = self.person.send(self.room_id)
        self.seconds = time.monotonic() - began


@contextmanager
def locked(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """Lock the database by this process; `commit()` releases it."""
    with clients.database(data_dir) as connection:
        connection.execute("PRAGMA busy_timeout = 5000")
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def begin_writes(person: Person, room_id: str) -> list[Write]:
    writes = [Write(person, room_id) for _ in range(WRITERS)]
    for write in writes:
        write.start()
    return writes


def refused(running: RunningServer, answer: Answer | None) -> bool:
    """Return whether a response is the Matrix error for failed writes."""
    assert "Traceback" not in running.output()
    return answer == Answer(
        503, {"errcode": "M_UNKNOWN", "error": "The server cannot write at the moment"}
    )


def test_writes_wait_for_who_holds_the_database_for_two_seconds(
    tmp_path: Path, start: Start
) -> None:
    running = start()
    alice = Person(running, "alice")
    room_id = alice.create_room()

    with locked(tmp_path) as other:
        writes = begin_writes(alice, room_id)
        time.sleep(2)
        other.execute("COMMIT")
        for write in writes:
            write.join(clients.SECONDS)

    assert [write.answer and write.answer.status for write in writes] == [200] * WRITERS
    assert min(write.seconds for write in writes) > 1.5
    assert len(alice.history(room_id)) == WRITERS


def test_writes_give_up_after_five_seconds_while_reads_go_on(tmp_path: Path, start: Start) -> None:
    running = start()
    alice, bob = Person(running, "alice"), Person(running, "bob")
    room_id = alice.create_room(bob)
    alice.send(room_id)
    since = bob.sync()["next_batch"]
    slowest = 0.0

    with locked(tmp_path) as other:
        until = time.monotonic() + 10
        writes = begin_writes(alice, room_id)
        while time.monotonic() < until and any(write.is_alive() for write in writes):
            began = time.monotonic()
            assert bob.sync(since, 100).status == 200
            assert len(bob.history(room_id)) == 1
            slowest = max(slowest, time.monotonic() - began)
        still_waiting = [write for write in writes if write.is_alive()]
        other.execute("COMMIT")
    for write in writes:
        write.join(clients.SECONDS)

    assert still_waiting == []
    assert all(refused(running, write.answer) for write in writes)
    assert all(4.5 < write.seconds < 10 for write in writes)
    assert slowest < 4  # reads that waited for the lock would take as long as the writes
    assert alice.send(room_id).status == 200
    assert len(bob.history(room_id)) == 2
    assert clients.problems(tmp_path) == []
