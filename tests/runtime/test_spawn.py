"""Work beside the caller, and limits of time, with gevent's patches and without."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from homebody.runtime import event_loop

SCRIPT = """
from gevent import monkey
monkey.patch_all()
import time
from homebody.runtime import event_loop

begun = []

def nap(seconds):
    begun.append(seconds)
    time.sleep(seconds)
    return len(begun)

# all have begun before the first ends
assert [it.result() for it in [event_loop.spawn(nap, 0.2) for _ in range(5)]] == [5] * 5
began = time.monotonic()
try:
    with event_loop.time_limit(0.1):
        for _ in range(100):
            time.sleep(0.03)  # each wait is shorter than the limit
except TimeoutError:
    pass
else:
    raise AssertionError("no limit")
assert time.monotonic() - began < 2  # and not 3
with event_loop.time_limit(0.05):
    pass
time.sleep(0.1)  # the limit ended with its block
try:
    event_loop.spawn(nap, None).result()
except TypeError:
    print("good")
"""


def test_in_a_server_work_is_done_in_greenlets_and_waiting_has_an_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout, done.stderr) == ("good\n", "")


def test_elsewhere_work_is_done_in_threads() -> None:
    caller = threading.get_ident()

    found = event_loop.spawn(threading.get_ident).result(5)

    assert found != caller


def test_what_the_work_raises_is_raised_by_its_result() -> None:
    def fail() -> None:
        raise KeyError("a")

    future = event_loop.spawn(fail)

    with pytest.raises(KeyError):
        future.result(5)


def test_elsewhere_a_limit_interrupts_nothing() -> None:
    began = time.monotonic()

    with event_loop.time_limit(0.01):
        time.sleep(0.05)

    assert time.monotonic() - began >= 0.05
