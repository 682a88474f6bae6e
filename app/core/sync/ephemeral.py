"""What is true for moments only, and kept in memory: who is typing, who is online.

These changes have a counter of their own, the second part of a sync token. It starts at the time of
the start in milliseconds, so that tokens from before a restart are older than anything after it.
"""

from __future__ import annotations

import time

from app.db import Wake


class Ephemeral:
    """The counter, and what changed when. Lost at a restart, as nobody is typing then."""

    def __init__(self, wake: Wake) -> None:
        self.position = time.time_ns() // 1_000_000
        self.wake = wake

    def next_position(self) -> int:
        """The next number, for a change that /sync shows."""
        self.position += 1
        return self.position
