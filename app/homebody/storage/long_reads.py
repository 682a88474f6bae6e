"""Statements that may take seconds: few at once, and none for ever.

They run in threads of the pool, while other requests go on. Each of them may keep a core busy and
holds its snapshot, so only a few run at a time, some wait, and the rest is refused. One that takes
too long is interrupted: what a search costs depends on what is looked for in how much, which cannot
be told before.
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
"""Of one statement."""
AT_ONCE: Final = 4
"""More than the searches that run at once, so that these never keep out all others."""
MAX_WAITING: Final = 20
RETRY_AFTER_MS: Final = 2000
_SECONDS_BETWEEN_INTERRUPTS: Final = 0.1


class Gate:
    """Lets a few through at a time, and lets a bounded number wait for that."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._most = at_once + waiting
        self.inside = 0
        """Those that run and those that wait."""

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

    Raises M_LIMIT_EXCEEDED when too many statements wait already, 503 M_UNKNOWN for one that takes
    too long.
    """
    with _GATE.turn(), _time_limit(connection):
        return event_loop.offload(lambda: rows(connection.execute(statement, values)))


@contextmanager
def _time_limit(connection: sqlite3.Connection) -> Iterator[None]:
    """Interrupt what the block asks of a connection once it has taken too long."""
    is_done = threading.Event()
    threading.Thread(target=_interrupt, args=(connection, is_done), daemon=True).start()
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise errors.unavailable(
            "That takes the server too long: ask for something rarer"
        ) from error
    finally:
        is_done.set()


def _interrupt(connection: sqlite3.Connection, is_done: threading.Event) -> None:
    if is_done.wait(MAX_SECONDS):
        return
    connection.interrupt()
    # again and again: a statement that begins only now has not noticed the first
    while not is_done.wait(_SECONDS_BETWEEN_INTERRUPTS):
        connection.interrupt()
