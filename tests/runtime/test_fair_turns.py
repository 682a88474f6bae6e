"""Turns: a few at a time, and no user waits for more than one of each other user."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from homebody.client_server import sync
from homebody.runtime import event_loop
from tests.conftest import Login
from tests.helpers.waiting import wait_for

SECONDS = 10.0


def test_users_who_wait_take_turns() -> None:
    turns, served = event_loop.FairSemaphore(1), list[str]()

    def ask(user: str) -> None:
        with turns.turn(user):
            served.append(user)

    threads = []
    with turns.turn("mallory"):
        for number, user in enumerate(["mallory"] * 4 + ["alice", "bob", "alice"], start=1):
            threads.append(threading.Thread(target=ask, args=(user,)))
            threads[-1].start()
            wait_for(lambda number=number: turns.waiting() == number)  # type: ignore[misc]
    for thread in threads:
        thread.join(SECONDS)

    assert served == ["mallory", "alice", "bob", "mallory", "alice", "mallory", "mallory"]
    assert turns.waiting() == 0


def test_so_many_go_on_at_once() -> None:
    turns, inside, most = event_loop.FairSemaphore(2), list[int](), list[int]()
    two = threading.Barrier(2, timeout=SECONDS)

    def ask() -> None:
        with turns.turn("alice"):
            inside.append(1)
            most.append(len(inside))
            two.wait()
            inside.pop()
            two.wait()

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    assert len(most) == 10
    assert max(most) == 2


def test_what_fails_hands_its_turn_on() -> None:
    turns = event_loop.FairSemaphore(1)

    with pytest.raises(ValueError, match="broken"), turns.turn("alice"):
        raise ValueError("broken")

    with turns.turn("bob"):
        assert turns.waiting() == 0


KILLED = """
from gevent import monkey
monkey.patch_all()
import gevent
from homebody.runtime.locks import Locks

locks = Locks()

def wait():
    with locks.own("room", "!a"):
        pass

with locks.own("room", "!a"):
    waiting = gevent.spawn(wait)
    gevent.sleep(0.01)
    waiting.kill()
with gevent.Timeout(2), locks.own("room", "!a"):
    print("free")
"""


def test_a_lock_is_not_handed_on_to_a_greenlet_that_was_killed() -> None:
    run = [sys.executable, "-c", KILLED]
    assert subprocess.run(run, capture_output=True, check=False).stdout == b"free\n"


@pytest.mark.parametrize("query", ["", "?since={}&full_state=true"])
def test_large_answers_of_sync_wait_for_their_turn(login: Login, query: str) -> None:
    # each has megabytes in memory while it is made
    alice = login("alice")
    path = "sync" + query.format(alice.sync()["next_batch"])
    found: list[int] = []
    request = threading.Thread(target=lambda: found.append(alice.get(path).status_code))

    with sync.LARGE_AT_ONCE, sync.LARGE_AT_ONCE:
        request.start()
        request.join(0.2)  # longer than it takes otherwise; a slow machine lets a fault pass
        assert found == []
    request.join(SECONDS)

    assert found == [200]
