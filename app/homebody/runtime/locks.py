"""Locks by name, for what must happen one after the other: the events of one room, for example."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from homebody.runtime.event_loop import FairLock


class Locks:
    """A lock for each key that is in use. No code holds two of them at once."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[Hashable, tuple[FairLock, int]] = {}

    @contextmanager
    def own(self, kind: str, key: Hashable) -> Iterator[None]:
        """Hold the lock of this key during the block; waits for it in the order of arrival."""
        name = (kind, key)
        with self._mutex:
            lock, users = self._locks.get(name) or (FairLock(), 0)
            self._locks[name] = (lock, users + 1)
        try:
            lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._mutex:
                lock, users = self._locks[name]
                if users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = (lock, users - 1)
