"""Timers: calls that are made later, for timeouts of typing and presence.

One thread for all of them (under gevent a greenlet) sleeps until the next call is due; the first
call starts it. So a timer costs an entry in a heap, and nothing is polled. Only the clock is looked
at each minute: it jumps when the machine wakes up, or when one without a battery learns the time.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final

LOG = logging.getLogger(__name__)

Clock = Callable[[], int]
MAX_WAIT_S: Final = 60.0


class Timers:
    """Scheduled calls, by the time of a clock in ms."""

    def __init__(self, now_ms: Clock) -> None:
        self.now_ms = now_ms
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()  # keeps the order of calls with the same time
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._calls)

    def call_at(self, due_ms: int, call: Callable[[], None]) -> None:
        """Schedule a call for `due_ms`, or as soon as possible after."""
        with self._changed:
            entry = (due_ms, next(self._numbers), call)
            heapq.heappush(self._calls, entry)
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
                self._thread.start()
            elif self._calls[0] is entry:
                self._changed.notify()

    def call_only_at(self, due_ms: int, call: Callable[[], None]) -> None:
        """Schedule a call in place of all others, so that they don't pile up."""
        with self._changed:
            self._calls.clear()
        self.call_at(due_ms, call)

    def run_due(self) -> None:
        """Make the calls that are due now."""
        while (call := self._take_due()) is not None:
            call()

    def close(self) -> None:
        """Cancel all calls, and wait for one that is running.

        Afterwards the database, which calls use, may be closed.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _take_due(self) -> Callable[[], None] | None:
        with self._changed:
            if self._is_closed or not self._calls or self._calls[0][0] > self.now_ms():
                return None
            return heapq.heappop(self._calls)[2]

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                if (seconds := self._seconds_until_next()) is None or seconds > 0:
                    self._changed.wait(seconds)
                    continue
            try:
                self.run_due()
            except Exception:
                LOG.exception("a timer failed")  # the other timers must still run

    def _seconds_until_next(self) -> float | None:
        """Return for how long to wait, None if there is nothing to wait for."""
        if not self._calls:
            return None
        return min((self._calls[0][0] - self.now_ms()) / 1000, MAX_WAIT_S)
