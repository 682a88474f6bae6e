"""Helpers for tests of the outbox: deliver its rows, and inspect pending ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from homebody.core import outbox
from homebody.web import Application


@contextmanager
def delivering(app: Application) -> Iterator[Application]:
    """Run the delivery of the outbox within the block."""
    app.homeserver.delivery.start()
    try:
        yield app
    finally:
        app.homeserver.delivery.stop()


def waiting(app: Application) -> list[tuple[str, str]]:
    """Return the (kind, destination) of each row."""
    with app.homeserver.database.read() as tx:
        return outbox.destinations(tx)


def tries(app: Application) -> int:
    """Return how often the delivery of the oldest row has failed."""
    with app.homeserver.database.read() as tx:
        (kind, destination), *_ = outbox.destinations(tx)
        return outbox.first(tx, kind, destination, 1)[0].tries
