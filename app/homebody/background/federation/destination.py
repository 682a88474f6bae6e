"""What one other server is to be sent, and whether it accepts that.

New events are kept in memory, until there are too many or the server fails for some time: then they
are read from the log again, from the server's place in it, and those in memory are dropped.

After a failure the next attempt is made a second later, then after two, four and so on, as long as
that is short beside the time for which the server has failed (`outgoing.wait_ms`). A server that
has failed for a week gets nothing until it makes a request itself.

Nothing here waits or locks: the sender calls these functions while it holds its lock.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Hashable, Iterable
from itertools import islice
from typing import Final

from homebody.background.federation import transactions
from homebody.background.federation.transactions import Entry, Transaction
from homebody.core import outgoing
from homebody.core.federation.catch_up import MAX_EVENTS, Missing
from homebody.core.outgoing import NEVER, Progress

SILENT_AFTER_MS: Final = 7 * 24 * 3_600_000
"""How long a server may fail before it gets nothing until it makes a request."""
MIN_BETWEEN_TRIES_MS: Final = 1_000
"""The least time between two attempts, however many requests a server makes itself."""
LATE_S: Final = 5.0
"""From when on a server that is slow has a place of its own in the log."""
REPEATED_TRIES: Final = 5
"""How many attempts repeat a transaction, as the server may have got it; then memory is freed."""
TRIES_UNTIL_SKIPPED: Final = 80
"""How often a server refuses a transaction with one event before it is left out: two hours."""
MAX_QUEUED_BYTES: Final = 8 * 2**20
MAX_WAITING_EDUS: Final = 1_000
_SPREAD: Final = 1.2
"""The largest random factor of a wait, so that retries are spread over time."""
_HOUR_MS: Final = 3_600_000


class Destination:
    """One other server."""

    def __init__(self, known: Progress) -> None:
        self.server = known.server
        self.saved = known
        """What the database has."""
        self.is_behind = known.sent_upto is not None
        """Whether events have to be read from the log, after `cursor`; the queue is empty then."""
        self.cursor = known.sent_upto or 0
        """Of a server that lacks events: the position up to which it has everything."""
        self.missing: deque[Missing] = deque()
        """What was found to be missing, up to `missing_upto`."""
        self.missing_upto = 0
        self.queue: deque[Entry] = deque()
        self.queued_bytes = 0
        self.waiting_since = 0.0  # of time.monotonic()
        self.edus: dict[tuple[str, Hashable], bytes] = {}
        self.has_rows = False
        """Whether the outbox may have EDUs above `rows_upto`."""
        self.rows_upto = 0
        self.unfinished: Transaction | None = None
        """A transaction that was not accepted yet."""
        self.max_pdus = transactions.MAX_PDUS
        """Less while the server, or a proxy before it, refuses larger transactions."""
        self.failing_since_ts = known.failing_since_ts
        self.tries = known.tries
        self.next_try_ts = known.next_try_ts
        self.tried_ts = 0
        self.problem = known.problem
        self.last_sent_ts = known.last_sent_ts
        self.is_busy = False
        """Whether a greenlet sends to it, or is about to."""

    @property
    def lacks_events(self) -> bool:
        """Whether there are events that the server has not accepted yet."""
        return self.is_behind or bool(self.queue)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to send."""
        return self.lacks_events or self.has_rows or bool(self.edus) or self.unfinished is not None

    def has_own_place(self, now: float) -> bool:
        """Return whether it holds up `sent_to_all` no more; `now` is of time.monotonic()."""
        return self.lacks_events and (
            self.is_behind or self.tries > 0 or now - self.waiting_since > LATE_S
        )

    def progress(self, now: float) -> Progress:
        """Return what the database should have."""
        return Progress(
            self.server,
            self.cursor if self.has_own_place(now) else None,
            self.failing_since_ts,
            self.tries,
            self.next_try_ts,
            self.problem,
            self.last_sent_ts,
        )

    def is_due(self, now_ms: int) -> bool:
        """Return whether it is time for an attempt."""
        left_ms = self.next_try_ts - now_ms
        # a longer wait than possible means that the clock was set back
        return left_ms <= 0 or outgoing.MAX_WAIT_MS * _SPREAD < left_ms < NEVER - now_ms

    def add(self, entry: Entry) -> None:
        """Add a new event of the log."""
        if self.is_behind:
            return
        if not self.queue:
            self.cursor = entry.position - 1
            self.waiting_since = time.monotonic()
        elif len(self.queue) >= MAX_EVENTS or self.queued_bytes > MAX_QUEUED_BYTES:
            self.fall_behind(self.cursor)
            return
        self.queue.append(entry)
        self.queued_bytes += len(entry.pdu)

    def fall_behind(self, cursor: int) -> None:
        """Drop the events in memory: they are read from the log again, after `cursor`."""
        if self.is_behind:
            self.missing_upto = min(self.missing_upto, cursor)
            self.cursor = min(self.cursor, cursor)
        else:
            self.cursor = min(self.cursor, cursor) if self.queue else cursor
        self.is_behind = True
        self.queue.clear()
        self.queued_bytes = 0

    def forget_place(self, log_start: int) -> None:
        """Note that the log is to be deleted up to a position, whether the server has it or not."""
        if self.is_behind and self.cursor < log_start:
            self.cursor = outgoing.NOT_LOGGED
            self.missing.clear()

    def lacks(self, found: Iterable[Missing], upto: int, log_end: int) -> None:
        """Take over what the log has for the server up to a position.

        If that is nothing, and all of the log, it isn't behind any more.
        """
        self.missing.extend(found)
        self.missing_upto = upto
        if not self.missing:
            self.cursor = upto
            self.is_behind = upto < log_end

    def add_edu(self, edu_type: str, key: Hashable, content: bytes) -> None:
        """Add an EDU that may get lost, in place of an older one with the same key."""
        if self.tries:
            return
        self.edus.pop((edu_type, key), None)
        if len(self.edus) < MAX_WAITING_EDUS:
            self.edus[edu_type, key] = content

    def take_edus(self, count: int, left_bytes: int) -> list[bytes]:
        """Remove and return the oldest EDUs."""
        keys = list(islice(self.edus, count))
        fitting = transactions.fitting([self.edus[key] for key in keys], left_bytes)
        return [self.edus.pop(key) for key in keys[:fitting]]

    def accept(self, transaction: Transaction, now_ms: int) -> None:
        """Note that the server has accepted a transaction."""
        self.unfinished = None
        self.failing_since_ts, self.tries, self.next_try_ts, self.problem = None, 0, 0, None
        self.last_sent_ts = now_ms - now_ms % _HOUR_MS
        self._pass_over(transaction)
        if not self.lacks_events:
            self.max_pdus = transactions.MAX_PDUS

    def refuse(self, transaction: Transaction) -> bool:
        """Note, after `fail`, that the server refuses what is in a transaction.

        It is made smaller, in case that only a part of it is refused. Return whether it is as small
        as possible, has been refused often, and so will not be sent any more.
        """
        self.unfinished = None
        self.has_rows = self.has_rows or bool(transaction.row_ids)
        if self.max_pdus > 1:
            self.max_pdus //= 2
            return False
        if self.tries < TRIES_UNTIL_SKIPPED:
            return False
        self._pass_over(transaction)
        return True

    def _pass_over(self, transaction: Transaction) -> None:
        """Go on after the events and EDUs of a transaction."""
        if transaction.row_ids:
            self.rows_upto = transaction.row_ids[-1]
        self.passed(transaction.upto)

    def passed(self, upto: int) -> None:
        """Remove the events up to a position, which the server has."""
        while self.queue and self.queue[0].position <= upto:
            done = self.queue.popleft()
            self.cursor = done.position
            self.queued_bytes -= len(done.pdu)
            self.waiting_since = time.monotonic()
        if self.missing:
            while self.missing and self.missing[0].position <= upto:
                self.missing.popleft()
            if not self.missing:
                self.cursor = self.missing_upto

    def fail(self, now_ms: int, problem: str, min_wait_ms: int = 0) -> None:
        """Note that an attempt failed, and when to make the next one."""
        self.failing_since_ts = self.failing_since_ts or now_ms
        wait_ms = outgoing.wait_ms(self.tries, now_ms - self.failing_since_ts)
        self.tries += 1
        self.tried_ts = now_ms
        self.problem = problem
        spread = random.uniform(2 - _SPREAD, _SPREAD)  # noqa: S311 - no secret
        min_wait_ms = min(min_wait_ms, outgoing.MAX_WAIT_MS)
        self.next_try_ts = now_ms + max(round(wait_ms * spread), min_wait_ms)
        if now_ms - self.failing_since_ts > SILENT_AFTER_MS:
            self.next_try_ts = NEVER
        self.edus.clear()
        if self.tries >= REPEATED_TRIES:
            if self.unfinished is not None:
                self.has_rows = self.has_rows or bool(self.unfinished.row_ids)
                self.unfinished = None
            if self.queue:
                self.fall_behind(self.cursor)

    def hurry(self, now_ms: int) -> None:
        """Make the next attempt at once, as the server has made a request."""
        self.next_try_ts = min(self.next_try_ts, max(now_ms, self.tried_ts + MIN_BETWEEN_TRIES_MS))
