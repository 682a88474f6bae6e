"""How far other servers have got: kept in memory, and written once a second for all of them.

Servers that accept what they are sent share one place in the log. One that fails or is late has its
own, so that it doesn't hold back that of the others.

The log may have rows that another process has written. Each write of progress compares the log with
the events that have been given to their destinations, and finds those.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from homebody.background.federation.destination import Destination
from homebody.core import outbox, outgoing
from homebody.core.outgoing import Progress
from homebody.storage.database import Database

DEAD_AFTER_MS: Final = 30 * 24 * 3_600_000
"""How long the log is kept for a server that fails."""
_SWEPT_AT_ONCE: Final = 1_000


class ProgressWriter:
    """Writes what has changed. `lock` is that of the destinations."""

    def __init__(
        self, db: Database, lock: threading.Lock, destinations: Mapping[str, Destination]
    ) -> None:
        self._db = db
        self._lock = lock
        self._destinations = destinations
        self.upto = 0
        """The position up to which events have been given to their destinations."""
        self._checked_upto = 0
        self._given: set[int] = set()
        """The positions of those above `_checked_upto`."""
        self._delivered: list[int] = []
        """The ids of rows of the outbox that have been accepted."""
        self._saved_to_all: int | None = None
        self.has_unseen = False
        """Whether another process may have logged events."""

    def begin(self, sent_to_all: int) -> None:
        """Begin with what the database has. Called with the lock."""
        self.upto = self._checked_upto = self._saved_to_all = sent_to_all

    def is_new(self, position: int) -> bool:
        """Return whether the event at a position is to be given to its destinations now.

        Called with the lock, in the order of positions.
        """
        if position <= self.upto:
            return False
        self.upto = position
        return True

    def given(self, position: int) -> None:
        """Note that an event was given to its destinations. Called with the lock."""
        self._given.add(position)

    def recovered(self, upto: int) -> None:
        """Note that all events up to a position are with their destinations. Called with the lock.

        What memory has of them is passed over.
        """
        self.upto = max(self.upto, upto)
        self._checked_upto = max(self._checked_upto, upto)
        self._given = {it for it in self._given if it > upto}

    def note_delivered(self, row_ids: Iterable[int]) -> None:
        """Have rows of the outbox removed. Called with the lock."""
        self._delivered += row_ids

    def save(self) -> tuple[int, int] | None:
        """Write what has changed; return a part of the log (after, upto) with unseen events."""
        if self._saved_to_all is None:
            return None  # not begun
        with self._lock:
            upto, delivered = self.upto, self._delivered
            changed, to_all = self._changed()
            has_unseen, self.has_unseen = self.has_unseen, False
            is_same = not changed and not delivered and to_all == self._saved_to_all
            if is_same and not has_unseen and upto == self._checked_upto:
                return None
            given, self._delivered = set(self._given), []
        try:
            with self._db.write() as tx:
                end = max(upto, outgoing.last_position(tx)) if has_unseen else upto
                logged = outgoing.positions(tx, self._checked_upto, end)
                unseen = [position for position in logged if position not in given]
                to_all = min([to_all, *(position - 1 for position in unseen)])
                outbox.remove(tx, delivered)
                outgoing.save(tx, to_all, changed)
        except BaseException:
            with self._lock:
                self._delivered += delivered
                self.has_unseen = self.has_unseen or has_unseen
            raise
        with self._lock:
            self._saved_to_all = to_all
            for progress in changed:
                self._destinations[progress.server].saved = progress
            if unseen:
                return unseen[0] - 1, unseen[-1]
            self._checked_upto = max(self._checked_upto, upto)
            self._given = {it for it in self._given if it > upto}
        return None

    def sweep(self) -> None:
        """Delete the part of the log that all servers have got.

        Servers that have failed for a month get the newest event of each room, if they come back.
        """
        before_ms = time.time_ns() // 1_000_000 - DEAD_AFTER_MS
        with self._lock:
            upto = self._saved_to_all or 0
            own = [it for it in self._destinations.values() if it.saved.sent_upto is not None]
            dead = [it for it in own if (it.failing_since_ts or before_ms) < before_ms]
            upto = min([upto, *(it.saved.sent_upto or 0 for it in own if it not in dead)])
            for destination in dead:
                destination.forget_place(upto)
        self.save()
        count = _SWEPT_AT_ONCE
        while count == _SWEPT_AT_ONCE:
            with self._db.write() as tx:
                count = outgoing.sweep(tx, upto, _SWEPT_AT_ONCE)

    def _changed(self) -> tuple[Collection[Progress], int]:
        """Return what the database does not have yet, and the place that the others share."""
        now, to_all = time.monotonic(), self.upto
        changed = []
        for destination in self._destinations.values():
            progress = destination.progress(now)
            if progress != destination.saved:
                changed.append(progress)
            if progress.sent_upto is None and destination.lacks_events:
                to_all = min(to_all, destination.cursor)
        return changed, to_all
