"""What tests of the outbox have in common: letting it be emptied, and looking at what waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Flask

from homebody.core import outbox

SECONDS = 10.0


@contextmanager
def delivering(app: Flask) -> Iterator[Flask]:
    """A server that delivers what waits while the block runs."""
    app.extensions["delivery"].start()
    try:
        yield app
    finally:
        app.extensions["delivery"].stop()


def waiting(app: Flask) -> list[tuple[str, str]]:
    """For whom something waits: (kind, destination)."""
    with app.extensions["db"].read() as tx:
        return outbox.destinations(tx)


def tries(app: Flask) -> int:
    """How often the delivery of the oldest row has failed."""
    with app.extensions["db"].read() as tx:
        (kind, destination), *_ = outbox.destinations(tx)
        return outbox.first(tx, kind, destination, 1)[0].tries


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again; fail when it takes too long."""
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
