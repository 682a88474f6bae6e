"""SIGTERM under load: accepted requests get responses, and the server ends within moments.

Protects server/worker.py: Worker.handle_exit and the _close_connections that it spawns
(`wakeups.close()` ends waiting requests); client_server/long_poll.py: first
(`wakeups.is_closing`); and graceful_timeout in server/gunicorn_config.py. What else could delay the
end: idle connections (server/test_worker.py) and responses that clients don't read
(faults_clients/test_deaf.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.faults import clients
from tests.faults.clients import Answer, Follower, Person, Sender
from tests.faults.conftest import Start
from tests.helpers import server
from tests.helpers.waiting import wait_for

SENDERS = 8
PARKED = 50


class Parked(threading.Thread):
    """A long poll of a minute."""

    def __init__(self, person: Person, since: str) -> None:
        super().__init__(daemon=True)
        self.person = person
        self.since = since
        self.answer: Answer | None = None

    def run(self) -> None:
        self.answer = self.person.sync(self.since, 60_000)


def test_everything_accepted_is_answered_when_the_server_is_told_to_stop(
    tmp_path: Path, start: Start
) -> None:
    running = start()
    alice, bob, carol = (Person(running, name) for name in ("alice", "bob", "carol"))
    room_id = alice.create_room(bob)
    since = bob.sync()["next_batch"]
    parked = [Parked(carol, carol.sync()["next_batch"]) for _ in range(PARKED)]
    follower = Follower(bob, room_id, since)
    senders = [Sender(alice, room_id, f"s{number}") for number in range(SENDERS)]
    for thread in (*parked, follower, *senders):
        thread.start()
    time.sleep(1)

    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(clients.SECONDS)
    seconds = time.monotonic() - began

    assert seconds < 5
    assert running.process.returncode == 0
    assert re.search("Traceback|ERROR", running.output()) is None
    for thread in (*parked, follower, *senders):
        thread.join(clients.SECONDS)
    assert {it.answer and it.answer.status for it in parked} == {200}
    assert follower.refused == []
    assert [it.refused for it in senders] == [[]] * SENDERS
    acknowledged = {text: it for sender in senders for text, it in sender.acknowledged.items()}
    with clients.database(tmp_path) as connection:
        stored = connection.execute(
            "SELECT json_extract(pdu, '$.content.body'), event_id FROM events"
            " WHERE type = 'm.room.message'"
        ).fetchall()
    # every stored write was accepted, and every accepted one got a response
    assert len(acknowledged) > SENDERS
    assert sorted(stored) == sorted(acknowledged.items())
    assert clients.problems(tmp_path) == []


def workers(master: int) -> list[int]:
    """Return the living processes that a master has forked."""
    children = Path(f"/proc/{master}/task/{master}/children")
    return [int(number) for number in children.read_text("ascii").split()]


def quit_until_it_is_gone(process: int) -> None:
    """Send SIGQUIT to a process all through its end, as its master does at some moment."""
    until = time.monotonic() + clients.SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(process, signal.SIGQUIT)
            time.sleep(0.001)


def test_ctrl_c_ends_a_server_without_a_word(start: Start) -> None:
    running = start()
    (worker,) = workers(running.process.pid)

    os.killpg(running.process.pid, signal.SIGINT)
    quit_until_it_is_gone(worker)
    running.process.wait(clients.SECONDS)

    assert running.process.returncode == 0
    assert running.output() == ""


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3, 0.6])
def test_ctrl_c_ends_a_server_that_is_about_to_start(tmp_path: Path, seconds: float) -> None:
    running = server.launch(tmp_path)
    wait_for(lambda: workers(running.process.pid), "a worker")
    time.sleep(seconds)

    began = time.monotonic()
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(clients.SECONDS)

    assert running.process.returncode == 0
    assert running.output() == ""
    assert time.monotonic() - began < 3.5  # its master kills it after 4 s


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15])
def test_ctrl_c_ends_the_checks_before_a_start(tmp_path: Path, seconds: float) -> None:
    running = server.launch(tmp_path)
    wait_for((tmp_path / "homebody.lock").exists, "the beginning of the checks")
    time.sleep(seconds)

    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(clients.SECONDS)

    assert running.process.returncode in {0, -signal.SIGINT}
    assert running.output() == ""
