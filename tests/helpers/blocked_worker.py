"""A worker whose event loop a test can block.

gunicorn loads it instead of homebody.server.worker.Worker.
"""

from __future__ import annotations

import time
from typing import cast

from flask import Flask

from homebody.server import worker

SECONDS = 0.12


class Worker(worker.Worker):
    """Sleeps while it creates a room, as the time for real work depends on the machine."""

    def load_wsgi(self) -> None:
        """Load the server, and replace one of its views."""
        super().load_wsgi()
        cast("Flask", self.wsgi).view_functions["rooms.create_room"] = stand_still


def stand_still() -> dict[str, str]:
    """Block the event loop for a while."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        pass
    return {}
