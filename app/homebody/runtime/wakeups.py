"""Long polls: requests that wait until something changes.

A waiting request costs a greenlet and an entry here; it holds no transaction and no connection to
the database. A change names the users concerned, and only their requests query the database again.

When a client hangs up, its connection becomes readable: that ends the wait as well.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from gevent import get_hub, monkey


class Waiter:
    """A waiting request."""

    __slots__ = ("_event", "is_gone")

    def __init__(self) -> None:
        self._event = threading.Event()
        self.is_gone = False
        """Whether the client has closed its connection."""

    def wake(self) -> None:
        """End the wait, as something has changed."""
        self._event.set()

    def clear(self) -> None:
        """Forget earlier changes; call this before looking for changes."""
        self._event.clear()

    def wait(self, seconds: float, connection: socket.socket | None) -> None:
        """Wait for a change, for at most `seconds`, or until the client hangs up."""
        if connection is None or not monkey.is_module_patched("socket"):
            self._event.wait(seconds)
            return
        watcher = get_hub().loop.io(connection.fileno(), 1)
        watcher.start(self._connection_is_readable, connection, watcher)
        try:
            self._event.wait(seconds)
        finally:
            watcher.stop()
            watcher.close()

    def _connection_is_readable(self, connection: socket.socket, watcher: object) -> None:
        """Check whether the client has hung up or sent more; must not block."""
        try:
            self.is_gone = not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.is_gone = True
        if self.is_gone:
            self._event.set()
        else:  # its next request: the socket stays readable, and the loop would spin
            watcher.stop()  # type: ignore[attr-defined]  # gevent has no public type for watchers


class Wakeups:
    """Waiting requests by key: user ID, or room ID for a user who peeks into the room."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Waiter]] = {}
        self.is_closing = False
        """Whether the server is stopping, so that requests no longer wait."""

    @contextmanager
    def waiting(self, *keys: str) -> Iterator[Waiter]:
        """Register a waiter for changes of these users or rooms during the block."""
        waiter = Waiter()
        places = set(keys)
        for key in places:
            self._waiting.setdefault(key, set()).add(waiter)
        try:
            yield waiter
        finally:
            for key in places:
                self._leave(key, waiter)

    def wake(self, concerned: Sequence[Collection[str]]) -> None:
        """Wake the waiting requests of these users; "*" stands for all users.

        The cost depends on the number of waiting requests, not on the size of a room.
        """
        for user_ids in concerned:
            if "*" in user_ids:
                waiting: Collection[str] = list(self._waiting)
            elif len(user_ids) > len(self._waiting):
                waiting = [user for user in self._waiting if user in user_ids]
            else:
                waiting = user_ids
            for user_id in waiting:
                for waiter in self._waiting.get(user_id, ()):
                    waiter.wake()

    def close(self) -> None:
        """Wake all requests, and let new ones respond without waiting."""
        self.is_closing = True
        self.wake([("*",)])

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiting.values())

    def _leave(self, key: str, waiter: Waiter) -> None:
        waiters = self._waiting[key]
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[key]
