"""The server's worker, with time limits that tests can wait for.

gunicorn uses it in place of homebody.server.worker.Worker; see `clients.start`.
"""

from __future__ import annotations

from typing import ClassVar

from homebody.core import ratelimits
from homebody.server import worker
from homebody.server.connection import ConnectionLimits

SECONDS = 1.5
MAX_UNTAKEN_BYTES = 16 * 2**20
MAX_BUCKETS = 200

ratelimits.MAX_BUCKETS = MAX_BUCKETS  # type: ignore[misc] # Final, but for tests
worker.SECONDS_AFTER_THE_START = 0.1


class Worker(worker.Worker):
    """The worker with short time limits."""

    LIMITS: ClassVar = ConnectionLimits(
        idle_seconds=SECONDS, min_body_bytes_per_second=500, max_unsent_bytes=MAX_UNTAKEN_BYTES
    )
