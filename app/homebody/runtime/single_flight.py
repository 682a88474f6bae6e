"""Share one result between a slow request and its repetitions.

A client that loses patience with a slow request hangs up and repeats it. Doing the same work again
would never end; so the second request gets the first one's result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

SLOW_SECONDS = 1.0
"""A result that took longer may have come too late, and is kept for a repetition."""
KEPT_SECONDS = 60.0
MAX_KEPT = 5
"""Results of tens of megabytes each."""


class _Work:
    """One result, under way or done."""

    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.result: Any = None
        self.good_until = 0.0


class Repeats:
    """The results that are being made, and the slow ones of the last minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[Hashable, _Work] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, called once for all that use this key at the same time.

        A call that raises, or returns None, is repeated by the next caller that waits for it.
        """
        while True:
            with self._lock:
                self._forget_old()
                work = self._works.get(key)
                is_mine = work is None
                if work is None:
                    work = self._works[key] = _Work()
            if is_mine:
                return self._make(key, work, make)
            work.is_done.wait()
            if work.result is not None:
                result: T = work.result
                return result

    def _make(self, key: Hashable, work: _Work, make: Callable[[], T]) -> T:
        began = time.monotonic()
        result = None
        try:
            work.result = result = make()
        finally:
            now = time.monotonic()
            with self._lock:
                if result is None or now - began < SLOW_SECONDS:
                    del self._works[key]
                else:
                    work.good_until = now + KEPT_SECONDS
            work.is_done.set()
        return result

    def _forget_old(self) -> None:
        now = time.monotonic()
        done = [key for key, work in self._works.items() if work.is_done.is_set()]
        for number, key in enumerate(reversed(done)):
            if self._works[key].good_until < now or number >= MAX_KEPT:
                del self._works[key]
