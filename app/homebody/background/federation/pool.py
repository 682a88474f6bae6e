"""Greenlets that take servers from a queue and send to each of them what it is to get.

A limited number of requests is made at once, and each server has one at most. A request that takes
long does not count: otherwise servers that hang would hold up all others. Requests begin one at a
time, each after what has come in the meantime, so that clients are served while hundreds of servers
are sent an event.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from homebody.runtime import event_loop

SLOW_S: Final = 1.0
"""The time from which on a request does not count."""
MAX_SLOW: Final = 200
"""How many slow requests do not count: each has a socket."""
_IDLE_S: Final = 60.0
"""How long a greenlet waits for work before it ends."""

T = TypeVar("T")


class Pool(Generic[T]):
    """At most `size` greenlets that call `work`, besides those of slow calls."""

    def __init__(self, size: int, work: Callable[[T], None]) -> None:
        self._size = size
        self._work = work
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._greenlets: set[threading.Thread] = set()
        self._since: dict[threading.Thread, float] = {}
        """When the calls that count began."""
        self._slow: set[threading.Thread] = set()
        self._starting = threading.Lock()
        """Held by the greenlet that is next to call."""
        self._is_stopping = False

    def put(self, item: T) -> None:
        """Have `work` called with this item, as soon as there is a greenlet for it."""
        self._queue.put(item)
        self._add_greenlet()

    def waiting(self) -> int:
        """Return the number of items that wait for a greenlet."""
        return self._queue.qsize()

    def find_slow(self) -> None:
        """Stop counting calls that take long; called a few times per second."""
        before = time.monotonic() - SLOW_S
        with self._lock:
            slow = [thread for thread, since in self._since.items() if since < before]
            for thread in slow:
                del self._since[thread]
                self._slow.add(thread)
        for _ in slow:
            self._add_greenlet()

    def stop(self, until: float) -> None:
        """End the greenlets, and wait for their calls up to a time of time.monotonic()."""
        with self._lock:
            self._is_stopping = True
            greenlets = list(self._greenlets)
        for _ in greenlets:
            self._queue.put(None)
        for greenlet in greenlets:
            greenlet.join(max(until - time.monotonic(), 0))

    def _add_greenlet(self) -> None:
        with self._lock:
            counted = len(self._greenlets) - min(len(self._slow), MAX_SLOW)
            if self._is_stopping or counted >= self._size or self._queue.qsize() <= self._idle:
                return
            greenlet = threading.Thread(target=self._run, daemon=True)
            self._greenlets.add(greenlet)
            greenlet.start()  # with the lock, as `stop` can't wait for one that has not started

    def _run(self) -> None:
        """Take items until there are none for a while. Run by each greenlet."""
        this = threading.current_thread()
        while not self._is_stopping:
            item = self._next()
            if item is None:
                break
            self._add_greenlet()  # there may be more than this one was woken for
            self._let_others_go_first()
            with self._lock:
                self._since[this] = time.monotonic()
            self._work(item)
            with self._lock:
                self._since.pop(this, None)
                if this in self._slow:  # another one has taken its place
                    break
        with self._lock:
            self._greenlets.discard(this)
            self._slow.discard(this)
        self._add_greenlet()  # an item may have come while it still seemed to wait

    def _let_others_go_first(self) -> None:
        """Wait until what has come meanwhile is done.

        An event for 200 servers wakes 50 greenlets at once, whose requests take 5 ms before anyone
        else has a turn: the sender's response, other clients, and the servers that have responded.
        """
        with self._starting:
            event_loop.pause()

    def _next(self) -> T | None:
        """Return the next item, or None if there has been none for a while."""
        with self._lock:
            self._idle += 1
        try:
            return self._queue.get(timeout=_IDLE_S)
        except queue.Empty:
            return None
        finally:
            with self._lock:
                self._idle -= 1
