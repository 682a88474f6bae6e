"""A worker whose event loop is blocked for as long as a test wants; see test_hub.py.

gunicorn takes it in place of homebody.server.worker.Worker.
"""

from __future__ import annotations

import time
from typing import cast

from flask import Flask

from homebody.server import worker

SECONDS = 0.12


class Worker(worker.Worker):
    """Creates rooms slowly, by the clock: real work is quicker on another machine."""

    def load_wsgi(self) -> None:
        """Load the server, and replace one of its views."""
        super().load_wsgi()
        cast("Flask", self.wsgi).view_functions["rooms.create_room"] = stand_still


def stand_still() -> dict[str, str]:
    """Let nobody else go on for a while."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        pass
    return {}
