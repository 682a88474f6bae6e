"""Deliver the rows of the outbox, with one greenlet for each destination that has rows.

A row's kind determines the function that delivers it. The function gets the oldest rows of one
destination and returns how many of them are done; when the destination can't accept them now, it
raises `outside.RemoteError`, and the greenlet waits: one second, then two, four, up to the longest
wait of the kind. Rows older than the kind keeps them are dropped. For kinds that never drop rows,
the log warns of a failing destination at least once an hour.

Rows are delivered at least once: again after a crash between the delivery and its commit. As they
are in the database, only the greenlets are lost by a restart.

A greenlet is a `threading.Thread` under gevent's patches; without them (tests) it is a real thread.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homebody import outside
from homebody.core import outbox
from homebody.core.outbox import Row
from homebody.errors import MatrixError
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

FIRST_WAIT_MS: Final = 1_000
_SPREAD: Final = 1.2
"""The largest random factor of a wait, so that retries are spread over time."""
_SECONDS_TO_STOP: Final = 1.0
_SECONDS_AFTER_AN_ERROR: Final = 30.0
_WARN_AT: Final = frozenset({5, 10, 20, 40})
_WARN_EVERY: Final = 60
"""Numbers of attempts; a bridge that is restarted soon needs no attention."""

Deliver = Callable[[Database, str, Sequence[Row]], int]
"""(db, destination, its oldest rows) → how many of them, from the first, are done: at least one.

Raises outside.RemoteError when the first can't be delivered now.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """How rows of one kind are delivered."""

    deliver: Deliver
    max_rows: int = 1
    """The maximum number of rows per call."""
    max_wait_ms: int = 3_600_000
    """The longest wait between two attempts."""
    kept_ms: int | None = None
    """The age at which an undelivered row is dropped; None: never."""


class Delivery:
    """The greenlets of one process. `start` after fork; `stop` before closing the database."""

    def __init__(
        self,
        db: Database,
        kinds: Mapping[str, Kind],
        elsewhere: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        """Take the kinds that are delivered here.

        `elsewhere` has functions for kinds that are not: called with a destination that has rows.
        """
        self._db = db
        self._kinds = kinds
        self._elsewhere = elsewhere or {}
        self._is_running = False
        self._stopping = threading.Event()
        self._queue: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._greenlets: dict[tuple[str, str], threading.Thread] = {}
        self._notified: set[tuple[str, str]] = set()
        """Destinations with rows that their greenlet may not have seen."""
        self._interrupt = threading.Condition()
        self._rescans = 0
        db.deliver = self.notify

    def start(self) -> None:
        """Deliver existing rows, and new ones from now on."""
        self._is_running = True
        threading.Thread(target=self._start_greenlets, daemon=True).start()
        self.rescan()

    def rescan(self) -> None:
        """Find rows that were added without `notify`: before a restart, or by the command line.

        Greenlets that wait for the next attempt read their rows again: the administrator may have
        skipped a failing one.
        """
        with self._interrupt:
            self._rescans += 1
            self._interrupt.notify_all()
        with self._db.read() as tx:
            waiting = outbox.destinations(tx)
        for kind, destination in waiting:
            self.notify(kind, destination)

    def notify(self, kind: str, destination: str) -> None:
        """Start delivery of new rows of this destination.

        Returns at once, as it is called between a COMMIT and the wake-ups that follow it.
        """
        if self._is_running and kind in self._kinds:
            self._queue.put((kind, destination))
        elif kind in self._elsewhere:
            self._elsewhere[kind](destination)

    def stop(self) -> None:
        """Start no more deliveries, and give running ones a moment to commit their result."""
        self._is_running = False
        self._stopping.set()
        self._queue.put(None)
        with self._interrupt:
            self._interrupt.notify_all()
        until = time.monotonic() + _SECONDS_TO_STOP
        with self._lock:
            greenlets = list(self._greenlets.values())
        for greenlet in greenlets:
            greenlet.join(max(until - time.monotonic(), 0))

    def _start_greenlets(self) -> None:
        """Start a greenlet for each destination with rows. Run by one greenlet."""
        while (key := self._queue.get()) is not None:
            with self._lock:
                self._notified.add(key)
                if key not in self._greenlets:
                    greenlet = threading.Thread(target=self._run, args=key, daemon=True)
                    self._greenlets[key] = greenlet
                    greenlet.start()

    def _run(self, kind: str, destination: str) -> None:
        """Deliver until no rows are left. Run by the destination's greenlet."""
        while not self._stopping.is_set():
            try:
                if not self._deliver_first(kind, destination) and self._may_end(kind, destination):
                    return
            except MatrixError as problem:  # such as a full disk; the rows are still there
                LOG.warning("deliveries to %s pause: %s", destination, problem)
                self._stopping.wait(_SECONDS_AFTER_AN_ERROR)
            except Exception:
                LOG.exception("deliveries to %s pause", destination)
                self._stopping.wait(_SECONDS_AFTER_AN_ERROR)

    def _deliver_first(self, kind: str, destination: str) -> bool:
        """Try to deliver the oldest rows if their time has come; return whether there were any."""
        self._notified.discard((kind, destination))
        rescans = self._rescans
        with self._db.read() as tx:
            rows = outbox.first(tx, kind, destination, self._kinds[kind].max_rows)
        if not rows:
            return False
        seconds = rows[0].next_try_ts / 1000 - time.time()
        longest = self._kinds[kind].max_wait_ms * _SPREAD / 1000
        # A longer wait than possible means that the clock was set back: then try as well.
        # After a wait the rows are read again, as they may be others by then.
        if 0 < seconds < longest:
            with self._interrupt:
                self._interrupt.wait_for(lambda: self._is_disturbed(rescans), seconds)
        else:
            self._try(kind, destination, rows)
        return True

    def _is_disturbed(self, rescans: int) -> bool:
        """Return whether a wait for the next attempt should end early."""
        return self._rescans != rescans or self._stopping.is_set()

    def _may_end(self, kind: str, destination: str) -> bool:
        """End a greenlet without rows; return False if rows were added since it looked."""
        with self._lock:
            if (kind, destination) in self._notified:
                return False
            del self._greenlets[kind, destination]
            return True

    def _try(self, kind: str, destination: str, rows: Sequence[Row]) -> None:
        if self._stopping.is_set():
            return
        try:
            count = self._kinds[kind].deliver(self._db, destination, rows)
        except outside.RemoteError as problem:
            self._postpone(kind, destination, rows, str(problem))
        except Exception as problem:  # a bug must not be repeated in a busy loop
            LOG.exception("a delivery to %s failed", destination)
            self._postpone(kind, destination, rows, str(problem))
        else:
            with self._db.write() as tx:
                outbox.remove(tx, [row.id for row in rows[:count]])
            if rows[0].tries >= min(_WARN_AT) and self._kinds[kind].kept_ms is None:
                LOG.warning("%s %s accepts deliveries again", kind, destination)

    def _postpone(self, name: str, destination: str, rows: Sequence[Row], problem: str) -> None:
        oldest, kind = rows[0], self._kinds[name]
        spread = random.uniform(2 - _SPREAD, _SPREAD)  # noqa: S311 - no secret
        wait_ms = min(FIRST_WAIT_MS * 2 ** min(oldest.tries, 30), kind.max_wait_ms)
        wait_ms = round(wait_ms * spread)
        with self._db.write() as tx:
            if kind.kept_ms is not None and oldest.created_ts + kind.kept_ms < tx.now_ms:
                LOG.warning("dropped after %d attempts: %s", oldest.tries + 1, problem)
                outbox.remove(tx, [oldest.id])
                return
            LOG.info("attempt %d failed, next in %d ms: %s", oldest.tries + 1, wait_ms, problem)
            outbox.record_failure(tx, rows, tx.now_ms + wait_ms, problem)
        if kind.kept_ms is None and _is_worth_a_warning(oldest.tries + 1):
            self._warn(name, destination, problem)

    def _warn(self, kind: str, destination: str, problem: str) -> None:
        with self._db.read() as tx:
            found = [it for it in outbox.queues(tx, kind) if it.destination == destination]
        for it in found:  # empty when the administrator has just skipped them
            since_ts = it.first.failing_since_ts or it.first.created_ts
            LOG.warning(
                "%s %s has accepted nothing for %d minutes (attempts: %d, waiting: %d): %s",
                kind,
                destination,
                (time.time() - since_ts / 1000) / 60,
                it.first.tries,
                it.count,
                problem,
            )


def _is_worth_a_warning(tries: int) -> bool:
    return tries in _WARN_AT or tries % _WARN_EVERY == 0
