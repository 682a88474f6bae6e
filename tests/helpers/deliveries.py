"""What tests of the outbox have in common: letting it be emptied, and looking at what waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from homebody.core import outbox
from homebody.web import Application

SECONDS = 10.0


@contextmanager
def delivering(app: Application) -> Iterator[Application]:
    """A server that delivers what waits while the block runs."""
    app.homeserver.delivery.start()
    try:
        yield app
    finally:
        app.homeserver.delivery.stop()


def waiting(app: Application) -> list[tuple[str, str]]:
    """For whom something waits: (kind, destination)."""
    with app.homeserver.database.read() as tx:
        return outbox.destinations(tx)


def tries(app: Application) -> int:
    """How often the delivery of the oldest row has failed."""
    with app.homeserver.database.read() as tx:
        (kind, destination), *_ = outbox.destinations(tx)
        return outbox.first(tx, kind, destination, 1)[0].tries


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again; fail when it takes too long."""
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
