"""A worker whose event loop a test can block.

gunicorn loads it instead of homebody.server.worker.Worker.
"""

from __future__ import annotations

import time
from typing import cast

from flask import Flask

from homebody.server import worker

SECONDS = 0.12
LONG_SECONDS = 2.0


class Worker(worker.Worker):
    """Sleeps while it creates a room, as the time for real work depends on the machine."""

    def load_wsgi(self) -> None:
        """Load the server, and replace one of its views."""
        super().load_wsgi()
        cast("Flask", self.wsgi).view_functions["rooms.create_room"] = stand_still


def stand_still(seconds: float = SECONDS) -> dict[str, str]:
    """Block the event loop for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return {}


class LongBlockedWorker(worker.Worker):
    """Stands still for two seconds at each request for its versions."""

    def load_wsgi(self) -> None:
        """Load the server, and replace one of its views."""
        super().load_wsgi()
        cast("Flask", self.wsgi).view_functions["versions.get_versions"] = stand_still_for_long


def stand_still_for_long() -> dict[str, str]:
    """Block the event loop for two seconds."""
    return stand_still(LONG_SECONDS)
