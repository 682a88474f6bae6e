"""Clients that request a large response and don't read it."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from pathlib import Path

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import V3, Person, Process, Watch
from tests.faults_clients.impatient import MAX_UNTAKEN_BYTES, SECONDS
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

DOWNLOAD = "/_matrix/client/v1/media/download/localhost"


@pytest.fixture(scope="module")
def deaf(hasty: RunningServer) -> Person:
    """Register a user whose first sync is 9 MB."""
    person = Person(hasty, "deaf")
    fill(person, 9)
    return person


@pytest.fixture(scope="module")
def medium(hasty: RunningServer) -> Person:
    """Register a user whose first sync is 5 MB."""
    person = Person(hasty, "medium")
    fill(person, 5)
    return person


@pytest.fixture(scope="module")
def film(deaf: Person) -> str:
    """Upload a file of 50 MB; return its path."""
    status, body, _ = deaf.ask("POST", "/_matrix/media/v3/upload", b"film" * 12_500_000)
    assert status == 200, body
    return f"{DOWNLOAD}/{body['content_uri'].rpartition('/')[2]}"


def fill(person: Person, megabytes: int) -> None:
    for number in range(megabytes):
        path = f"/user/{person.user_id}/account_data/org.example.{number}"
        assert person.ask("PUT", path, {"lots": "x" * 1_000_000})[0] == 200


def ask(server: RunningServer, path: str, token: str) -> socket.socket:
    """Send a request on a connection, and read nothing."""
    client = clients.connect(server, receive_bytes=4_096)
    client.sendall(clients.head("GET", path, token))
    return client


def is_cut(client: socket.socket) -> bool:
    """Return whether the server has closed the connection, without reading."""
    poll = select.poll()
    poll.register(client, select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


@pytest.mark.parametrize(
    "count", [40, pytest.param(200, marks=[pytest.mark.big, pytest.mark.timeout(300)])]
)
def test_answers_that_nobody_takes_have_a_limit_together(
    hasty: RunningServer, deaf: Person, count: int
) -> None:
    # Protects server/connection.py: the loop in Backlog.add that closes the slowest; without it all
    # responses stay in memory, 9 MB each.
    process = Process(hasty)
    wait_for(process.is_calm)
    descriptors = process.descriptors()

    with contextlib.ExitStack() as still_open, Watch(process) as watch:
        crowd = [
            still_open.enter_context(ask(hasty, f"{V3}/sync?number={number}", deaf.token))
            for number in range(count)  # else one would do the work for all
        ]
        wait_for(lambda: all(is_cut(client) for client in crowd), seconds=120)

    assert watch.grown_bytes < MAX_UNTAKEN_BYTES + 280_000_000  # of answers that are being made
    assert clients.median(watch.waits) < 0.1
    wait_for(process.is_calm)
    assert process.descriptors() <= descriptors + 3


@pytest.mark.parametrize("what", ["sync", "film"])
def test_who_takes_nothing_is_given_up(
    hasty: RunningServer, deaf: Person, film: str, what: str
) -> None:
    # Protects server/connection.py: the timeout in Connection.setblocking, and its use in _send.
    process = Process(hasty)
    wait_for(process.is_calm)
    descriptors = process.descriptors()

    with ask(hasty, f"{V3}/sync" if what == "sync" else film, deaf.token) as client:
        began = time.monotonic()
        wait_for(lambda: is_cut(client), seconds=10)

        assert SECONDS - 0.1 < time.monotonic() - began < SECONDS + 4

    wait_for(process.is_calm)
    assert process.descriptors() <= descriptors + 3


def test_who_reads_slowly_gets_all_of_it(hasty: RunningServer, deaf: Person) -> None:
    # Protects server/connection.py: Connection._send counts the time from the last progress, not
    # from the start as a socket's sendall does; and _queued_bytes, which detects progress.
    with ask(hasty, f"{V3}/sync", deaf.token) as client:
        taken, slow_until = 0, time.monotonic() + 2.5 * SECONDS
        while taken < 9_000_000:
            piece = client.recv(50_000)
            assert piece, f"cut after {taken} bytes"
            taken += len(piece)
            if time.monotonic() < slow_until:
                time.sleep(0.05)

    assert taken > 9_000_000


def take(client: socket.socket, count: int) -> int:
    """Read so many bytes, or fewer up to the end; return how many."""
    taken = 0
    while taken < count and (piece := client.recv(65_536)):
        taken += len(piece)
    return taken


def test_who_has_taken_some_of_it_stays_when_others_have_to_go(
    hasty: RunningServer, deaf: Person, medium: Person
) -> None:
    # Protects server/connection.py: Backlog.note_progress, which Connection._send calls: without it
    # the oldest connection would be closed.
    with contextlib.ExitStack() as still_open:
        reader = still_open.enter_context(ask(hasty, f"{V3}/sync", deaf.token))
        sleeper = still_open.enter_context(ask(hasty, f"{V3}/sync?number=1", medium.token))
        time.sleep(0.3)  # both responses have started
        taken = take(reader, 3_000_000)
        still_open.enter_context(ask(hasty, f"{V3}/sync?number=2", medium.token))
        wait_for(lambda: is_cut(sleeper), seconds=0.7)

        taken += take(reader, 9_000_000 - taken)

    assert taken >= 9_000_000


def test_an_answer_that_was_taken_counts_no_more(hasty: RunningServer, medium: Person) -> None:
    # Protects server/connection.py: the remove() in Connection.flush, without which clients that
    # have read everything are disconnected.
    with contextlib.ExitStack() as still_open:
        crowd = []
        for _ in range(4):
            crowd.append(still_open.enter_context(ask(hasty, f"{V3}/sync", medium.token)))
            assert take(crowd[-1], 5_000_000) >= 5_000_000

        assert [is_cut(client) for client in crowd] == [False] * 4


def test_deaf_clients_do_not_delay_the_end(tmp_path: Path) -> None:
    # Protects server/worker.py: Worker._close_connections, which closes what is left at last.
    running = clients.start(tmp_path, is_impatient=False)
    with clients.running(running), contextlib.ExitStack() as still_open:
        bob = Person(running, "bob")
        fill(bob, 9)
        crowd = [still_open.enter_context(ask(running, f"{V3}/sync", bob.token)) for _ in range(5)]
        time.sleep(1)
        assert not any(is_cut(client) for client in crowd)

        began = time.monotonic()
        running.stop()
        seconds = time.monotonic() - began

        assert seconds < 4.8
        assert all(is_cut(client) for client in crowd)
