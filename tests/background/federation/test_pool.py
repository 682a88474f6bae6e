"""Greenlets that take work from a queue, of which slow work does not keep the others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from homebody.background.federation import pool
from homebody.background.federation.pool import Pool
from tests.helpers.server import ROOT

SECONDS = 10.0
AMONG_CALLS = """
from gevent import monkey
monkey.patch_all()

import socket
import threading
import time

from homebody.background.federation.pool import Pool

ours, theirs = socket.socketpair()
begun, are_done = [], threading.Event()


def echo():
    while data := theirs.recv(1):
        theirs.sendall(data)


def work(number):
    begun.append(number)
    if len(begun) == 50:
        are_done.set()
    until = time.thread_time() + 0.001
    while time.thread_time() < until:
        pass


threading.Thread(target=echo, daemon=True).start()
time.sleep(0.01)
pool = Pool(50, work)
for number in range(50):
    pool.put(number)
begun_before = []
while not are_done.is_set():
    ours.sendall(b"?")
    ours.recv(1)
    begun_before.append(len(begun))
print(max(later - earlier for earlier, later in zip([0, *begun_before], begun_before)))
"""


class Work:
    """Calls that last until they are released."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.release = threading.Event()
        self.changed = threading.Condition()

    def __call__(self, number: int) -> None:
        with self.changed:
            self.begun.append(number)
            self.changed.notify_all()
        if number < 10:
            self.release.wait(SECONDS)
        with self.changed:
            self.ended.append(number)
            self.changed.notify_all()

    def wait(self, begun: int = 0, ended: int = 0) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.begun) >= begun and len(self.ended) >= ended, SECONDS
            )


def test_a_limited_number_of_calls_run_at_once() -> None:
    work = Work()
    tested = Pool(2, work)

    for number in range(4):
        tested.put(number)
    work.wait(begun=2)
    time.sleep(0.05)

    assert len(work.begun) == 2
    assert tested.waiting() == 2
    work.release.set()
    work.wait(ended=4)
    tested.stop(time.monotonic() + SECONDS)


def test_slow_calls_do_not_count() -> None:
    work = Work()
    tested = Pool(2, work)
    for number in (0, 1, 20, 21):
        tested.put(number)
    work.wait(begun=2)

    time.sleep(pool.SLOW_S + 0.1)
    tested.find_slow()
    work.wait(ended=2)

    assert sorted(work.ended) == [20, 21]
    work.release.set()
    work.wait(ended=4)
    for number in range(30, 60):
        tested.put(number)
    work.wait(ended=34)
    tested.stop(time.monotonic() + SECONDS)


def test_the_number_of_slow_calls_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_SLOW", 1)
    work = Work()
    tested = Pool(2, work)
    for number in range(5):
        tested.put(number)
    work.wait(begun=2)

    time.sleep(pool.SLOW_S + 0.1)
    tested.find_slow()
    work.wait(begun=3)
    time.sleep(0.05)

    assert len(work.begun) == 3
    work.release.set()
    work.wait(ended=5)
    tested.stop(time.monotonic() + SECONDS)


def test_all_of_many_calls_are_made() -> None:
    work = Work()
    tested = Pool(5, work)

    def put(numbers: range) -> None:
        for number in numbers:
            tested.put(number)

    threads = [
        threading.Thread(target=put, args=(range(at * 100 + 10, at * 100 + 60),))
        for at in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    work.wait(ended=500)
    tested.stop(time.monotonic() + SECONDS)


def test_the_end_waits_for_a_greenlet_that_is_about_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []
    pool = Pool[int](1, done.append)
    putting = threading.Thread(target=pool.put, args=(1,))
    is_starting, start = threading.Event(), threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread is not putting:
            is_starting.set()
            time.sleep(0.05)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    putting.start()
    is_starting.wait()
    pool.stop(time.monotonic() + 10)

    assert not [it for it in threading.enumerate() if it.name.endswith("(_run)")]


def test_requests_are_answered_between_any_two_calls() -> None:
    command = [sys.executable, "-c", AMONG_CALLS]

    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)

    assert int(done.stdout) <= 3
