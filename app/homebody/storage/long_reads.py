"""Statements that may take seconds: a few at a time, with a time limit.

They run in threads of the pool, while other requests go on. Each may keep a core busy and holds its
snapshot, so only a few run at a time, some wait, and the rest is refused. One that takes too long
is interrupted: the cost of a search can't be estimated in advance.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from homebody import errors
from homebody.runtime import event_loop

MAX_SECONDS: Final = 5.0
"""Per statement."""
AT_ONCE: Final = 4
"""More than the searches that run at a time, so that these never block all others."""
MAX_WAITING: Final = 20
RETRY_AFTER_MS: Final = 2000
_SECONDS_BETWEEN_INTERRUPTS: Final = 0.1


class Gate:
    """A semaphore with a bounded number of waiting requests."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._most = at_once + waiting
        self.inside = 0
        """The number of running and waiting requests."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and run the block. Raises M_LIMIT_EXCEEDED when too many wait already."""
        if self.inside >= self._most:
            raise errors.limit_exceeded(RETRY_AFTER_MS)
        self.inside += 1
        try:
            with self._free:
                yield
        finally:
            self.inside -= 1


_GATE = Gate(AT_ONCE, MAX_WAITING)


def fetch(
    connection: sqlite3.Connection,
    statement: str,
    values: Mapping[str, object],
    rows: Callable[[sqlite3.Cursor], list[Any]] = sqlite3.Cursor.fetchall,
) -> list[Any]:
    """Return the rows of a statement, as `rows` reads them from its cursor.

    Raises M_LIMIT_EXCEEDED if too many statements wait, 503 M_UNKNOWN for one that takes too long.
    """
    with _GATE.turn(), _time_limit(connection):
        return event_loop.offload(lambda: rows(connection.execute(statement, values)))


@contextmanager
def _time_limit(connection: sqlite3.Connection) -> Iterator[None]:
    """Interrupt the block's statement on a connection when it takes too long."""
    is_done = threading.Event()
    threading.Thread(target=_interrupt, args=(connection, is_done), daemon=True).start()
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise errors.unavailable("This takes too long: search for something rarer") from error
    finally:
        is_done.set()


def _interrupt(connection: sqlite3.Connection, is_done: threading.Event) -> None:
    if is_done.wait(MAX_SECONDS):
        return
    connection.interrupt()
    # repeatedly: a statement that has just begun does not notice the first
    while not is_done.wait(_SECONDS_BETWEEN_INTERRUPTS):
        connection.interrupt()
