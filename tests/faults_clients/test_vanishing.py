"""Clients that vanish while their /sync waits."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import V3, Person, Process
from tests.helpers.server import ROOT, RunningServer
from tests.helpers.waiting import wait_for

ABRUPTLY = struct.pack("ii", 1, 0)
WAIT_OFTEN = """
from gevent import monkey

monkey.patch_all()

import socket
from gevent import get_hub
from homebody.runtime.event_loop import Waiter
from tests.helpers.waiting import wait_for

connection, client = socket.socketpair()
loop = get_hub().loop
Waiter().wait(0.0001, connection)
before = loop.activecnt
for _ in range(100):
    Waiter().wait(0.0001, connection)
print(loop.activecnt - before)
"""


def park(process: Process, alice: Person, count: int) -> None:
    """Let so many requests wait, then disconnect their clients; every other one without FIN."""
    _, answer, _ = alice.ask("GET", "/sync")
    path = f"{V3}/sync?since={answer['next_batch']}&timeout=600000"
    with contextlib.ExitStack() as still_open:
        for number in range(count):
            client = still_open.enter_context(clients.connect(alice.server))
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPTLY)
            client.sendall(clients.head("GET", path, alice.token))
        wait_for(lambda: process.metric("waiting_requests") == count, seconds=60)


@pytest.mark.parametrize(
    "count", [300, pytest.param(5_000, marks=[pytest.mark.big, pytest.mark.timeout(300)])]
)
def test_nothing_is_left_of_clients_that_vanish(server: RunningServer, count: int) -> None:
    # Protects runtime/event_loop.py: the watcher on the connection in Waiter.wait, and waiting,
    # which calls _leave; `waiter.is_gone` in client_server/long_poll.py; the discard() in
    # server/worker.py: Worker.handle; in full size server/startup.py: raise_descriptor_limit.
    clients.raise_descriptor_limit()
    alice = Person(server, f"alice{count}")
    process = Process(server)
    wait_for(process.is_calm)
    descriptors = process.descriptors()
    park(process, alice, count)
    wait_for(process.is_calm)
    after_one_round = process.memory_bytes()

    for _ in range(3):
        park(process, alice, count)
        wait_for(process.is_calm)

    assert process.descriptors() <= descriptors + 3
    most = after_one_round + 3_000_000 + count * 3 * 500  # a greenlet alone takes ten times that
    wait_for(lambda: process.memory_bytes() < most, seconds=20)  # it is trimmed every 5 s


def test_a_wait_that_is_over_leaves_no_watcher() -> None:
    # Protects: watcher.stop() and watcher.close() in runtime/event_loop.py: Waiter.wait. With
    # gevent's loop on Linux, one of them is enough; other loops need both.
    command = [sys.executable, "-c", WAIT_OFTEN]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout.split() == ["0"]
