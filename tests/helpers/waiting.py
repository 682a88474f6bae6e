"""Waiting for what other threads, greenlets and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 30.0
"""Much more than anything takes on a quiet machine; only a test that fails waits for so long."""
_PAUSE_SECONDS = 0.02

Found = TypeVar("Found")


def wait_for(
    look: Callable[[], Found],
    what: str | Callable[[], object] = "what was waited for",
    seconds: float = SECONDS,
) -> Found:
    """Return the first true result of `look()`. Raises AssertionError after a timeout.

    `what` did not come then, or is a function that returns what is there instead.
    """
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            seen = f"{what} did not come" if isinstance(what, str) else what()
            raise AssertionError(f"{seen}, within {seconds} s")
        time.sleep(_PAUSE_SECONDS)
    return found
