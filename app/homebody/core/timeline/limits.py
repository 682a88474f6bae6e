"""How long state resolution may work.

In a write that is limited (`Tx.seconds_to_resolve`) it raises TooLongError, and plans.py has it
done before the write. In a reading transaction it lets other requests run again and again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from homebody.runtime import event_loop
from homebody.storage.database import Reader, Tx

SECONDS_BETWEEN_PAUSES: Final = 0.001
MAX_SECONDS: Final = 60.0
"""For one resolution outside of a write, with what runs meanwhile."""


class TooLongError(Exception):
    """State resolution takes longer than it may."""

    def __init__(self, room_id: str) -> None:
        super().__init__(f"The state of {room_id} takes too long to resolve")


def is_limited(tx: Reader) -> bool:
    """Return whether this is a write in which state resolution may not take long."""
    return isinstance(tx, Tx) and tx.seconds_to_resolve < math.inf


def stepper(tx: Reader, room_id: str) -> Callable[[], None]:
    """Return a function to be called again and again by what may take long.

    In a write, it raises TooLongError when the time is over, of the CPU, as a busy machine makes no
    state larger; else it also lets other requests run.
    """
    if isinstance(tx, Tx):
        return _limiter(room_id, time.thread_time, tx.seconds_to_resolve)
    limit = _limiter(room_id, time.monotonic, MAX_SECONDS)
    next_pause = time.monotonic() + SECONDS_BETWEEN_PAUSES

    def step() -> None:
        nonlocal next_pause
        limit()
        if time.monotonic() > next_pause:
            event_loop.pause()
            next_pause = time.monotonic() + SECONDS_BETWEEN_PAUSES

    return step


def _limiter(room_id: str, clock: Callable[[], float], seconds: float) -> Callable[[], None]:
    if seconds == math.inf:
        return lambda: None
    end = clock() + seconds

    def step() -> None:
        if clock() > end:
            raise TooLongError(room_id)

    return step
