"""The condition on which /sync waits.

A waiting request costs a greenlet and an entry here; it holds no transaction and no connection to
the database. Whoever changes something names the users whom it concerns; their waiting requests
look again, and nobody else's.

A client that hangs up must not stay parked until its timeout: its connection becoming readable
ends the wait as well.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from gevent import get_hub, monkey


class Waiter:
    """One request that waits."""

    __slots__ = ("_event", "is_gone")

    def __init__(self) -> None:
        self._event = threading.Event()
        self.is_gone = False
        """The client has closed its connection: nobody reads the answer."""

    def look_again(self) -> None:
        """Something concerns this request."""
        self._event.set()

    def rest(self) -> None:
        """Forget former calls to look again; to be called before looking."""
        self._event.clear()

    def wait(self, seconds: float, connection: socket.socket | None) -> None:
        """Return when there is reason to look again, or after `seconds`."""
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
        """Runs in the hub, so it may not wait: either the client hung up, or it sent more."""
        try:
            self.is_gone = not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.is_gone = True
        if self.is_gone:
            self._event.set()
        else:  # its next request waits in the socket; watching on would spin
            watcher.stop()  # type: ignore[attr-defined]  # gevent has no public type for watchers


class Wakeups:
    """Who waits, by user; who looks into a room without being in it, by room as well."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Waiter]] = {}
        self.is_closing = False
        """The server stops: waiting requests answer at once, with the token they came with."""

    @contextmanager
    def waiting(self, *keys: str) -> Iterator[Waiter]:
        """A waiter that hears of all changes for these users or rooms until the block is left."""
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
        """Let the waiting requests of these users look again; a user "*" stands for everybody.

        Takes collections of any size: a room of thousands costs no more than those who wait.
        """
        for user_ids in concerned:
            if "*" in user_ids:
                self._wake_each(list(self._waiting))
            elif len(user_ids) > len(self._waiting):
                self._wake_each([user for user in self._waiting if user in user_ids])
            else:
                self._wake_each(user_ids)

    def close(self) -> None:
        """Let all waiting requests answer now, and no new one wait."""
        self.is_closing = True
        self.wake([("*",)])

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiting.values())

    def _leave(self, key: str, waiter: Waiter) -> None:
        waiters = self._waiting[key]
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[key]

    def _wake_each(self, user_ids: Collection[str]) -> None:
        for user_id in user_ids:
            for waiter in self._waiting.get(user_id, ()):
                waiter.look_again()
