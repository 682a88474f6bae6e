"""What the server counts while it runs, for web/prometheus.py to show at /metrics.

Plain numbers, as each request is counted: that takes 0.5 µs, where Counter and Histogram of
prometheus_client, with their labels bound before, took 1.5 to 2.3 µs.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STALL_SECONDS: Final = (0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
LONG_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WRITES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
NO_ENDPOINT: Final = "none"
"""For paths that are not served."""


class Histogram:
    """Numbers of values up to each bound, and their sum."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulated(self) -> list[int]:
        """Return how many values are not above each bound; the last is the number of all."""
        return list(accumulate(self._counts))


class Outcomes:
    """How often something succeeded and failed, and how long it took."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(succeeded=0, failed=0)
        self.seconds = Histogram(LONG_SECONDS)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block, as failed if it raises."""
        began, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "succeeded"
        finally:
            self.counts[outcome] += 1
            self.seconds.observe(time.monotonic() - began)


class Metrics:
    """The counters of this process."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.responses: dict[tuple[str, int], int] = {}
        """How many requests, by endpoint and status."""
        self.seconds: dict[str, Histogram] = {}
        """How long they took, by endpoint; without the time in which a long poll waited."""
        self.stalls = Histogram(STALL_SECONDS)
        """How long the event loop was blocked; see watchdog.py."""
        self.read_seconds = 0.0
        """In statements of snapshots."""
        self.write_turns = Histogram(SECONDS)
        """How long writes waited for their turn."""
        self.writing = Histogram(SECONDS)
        """How long they held it."""
        self.commits = Histogram(SECONDS)
        self.writes = Histogram(WRITES)
        """How many writes shared a COMMIT."""
        self.pdus_sent = 0
        self.edus_sent = 0
        self.transactions = Histogram(SECONDS)
        """How long other servers took to accept transactions."""
        self.pdus_received: Counter[str] = Counter()
        """PDUs of other servers by standing, or `refused` if their form or signature is wrong."""
        self.edus_received: Counter[str] = Counter()
        """EDUs of other servers by type."""
        self.received = Histogram(SECONDS)
        """How long this server took to accept transactions."""
        self.resolutions = Histogram(SECONDS)
        """How long state resolution took."""
        self.gaps = Outcomes()
        """Searches for events that received ones follow, or cite."""
        self.joins = Outcomes()
        """Joins by way of other servers."""
        self.backups = Outcomes()
        """Backups that the schedule made."""
        self.connections: Sized = ()
        """The open connections of clients; set by the worker."""

    def note_request(self, endpoint: str | None, status: int, seconds: float) -> None:
        """Count a response. `endpoint` is a name of Flask's, so their number is limited."""
        name = endpoint or NO_ENDPOINT
        key = (name, status)
        self.responses[key] = self.responses.get(key, 0) + 1
        times = self.seconds.get(name)
        if times is None:
            times = self.seconds[name] = Histogram(SECONDS)
        times.observe(seconds)

    def note_commit(self, writes: int, seconds: float) -> None:
        """Count a COMMIT that so many writes shared."""
        self.commits.observe(seconds)
        self.writes.observe(writes)

    def note_transaction(self, pdus: int, edus: int, seconds: float) -> None:
        """Count a transaction that another server has accepted."""
        self.pdus_sent += pdus
        self.edus_sent += edus
        self.transactions.observe(seconds)
