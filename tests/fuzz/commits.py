"""Requests during a COMMIT, when a write has changed the caches but is not on the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from homebody.storage.database import Database


class Commits:
    """Wraps the writer's connection of a server to run a request during the next COMMIT.

    The request has a thread of its own. If it writes, it waits for the COMMIT, as in a running
    server.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._raw: sqlite3.Connection = database.writer.raw
        self._look: Callable[[], None] | None = None
        self._is_after = False
        self._lock = threading.Lock()
        """Held while a look begins, as the COMMIT may be that of a timer's write."""
        self._threads: list[threading.Thread] = []
        self._problems: list[BaseException] = []
        database.writer.raw = self  # type: ignore[assignment]  # nothing else sees a COMMIT

    def look_into_next(self, look: Callable[[], None], *, is_after: bool) -> None:
        """Call `look` during the next COMMIT: before it is done, or after it but before it is
        known."""
        self._look, self._is_after = look, is_after

    def finish(self) -> None:
        """Wait for all looks, and raise their exceptions."""
        with self._lock:
            self._look = None
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()
        if self._problems:
            raise self._problems.pop()

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """Run a statement of the writer."""
        if sql != "COMMIT":
            return self._raw.execute(sql, *args)
        with self._lock:
            look, self._look = self._look, None
            if look is not None and not self._is_after:
                self._begin(look)
            done = self._raw.execute(sql, *args)
            if look is not None and self._is_after:
                self._begin(look)
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def _begin(self, look: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guarded, args=(look,))
        self._threads.append(thread)
        thread.start()
        waiting = self._database.writer.turn._queue  # noqa: SLF001 - shows whether the look wants to write
        while thread.is_alive() and not waiting:
            thread.join(0.001)

    def _guarded(self, look: Callable[[], None]) -> None:
        try:
            look()
        except BaseException as problem:  # noqa: BLE001 - raised by finish()
            self._problems.append(problem)
