"""Notices when the hub stands still, as every other request does then, and shows at what.

gevent's loop waits for something to happen, handles all that has happened, and waits again: one
turn. A turn that takes longer than the limit is a stall. Two of the loop's watchers take the time
at the beginning and the end of each turn, so every stall is found and measured as it was; they cost
a third of a microsecond a turn, and nothing while the server is idle.

What the hub stood at only another thread can see. It looks twice in the time of the limit, so it
has seen each turn that becomes a stall. It never waits for anything of gevent's, logs nothing, and
sleeps by a lock of the operating system: 20 times a second it finds that all is well.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Final

import gevent
from gevent import get_hub, monkey

if TYPE_CHECKING:
    from homebody.runtime.metrics import Histogram

LOG = logging.getLogger(__name__)

LOOKS_PER_LIMIT: Final = 2
_FIRST: Final = 2  # of the loop's priorities, -2 to 2
_LAST: Final = -2

# The operating system's own: in the server, gevent has put greenlets in place of threads
_start_thread = monkey.get_original("_thread", "start_new_thread")
_new_lock = monkey.get_original("_thread", "allocate_lock")
_thread_id = monkey.get_original("_thread", "get_ident")

RequestOf = Callable[[FrameType], str | None]
"""What to call the request that this frame answers; None for a frame that answers none."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the hub's thread did at a moment. Holds no frame: nothing is kept alive by it."""

    turn: float
    """When the turn had begun."""
    request: str | None
    stack: traceback.StackSummary


class Watchdog:
    """Watches the hub of the thread that calls `start`."""

    def __init__(self, limit_ms: int, stalls: Histogram, request_of: RequestOf) -> None:
        self._limit = limit_ms / 1000
        self._stalls = stalls
        self._request_of = request_of
        self._turn = 0.0
        """When the turn under way began; 0 between two turns."""
        self._look: Look | None = None
        self._hub_thread = 0
        self._running = _new_lock()

    def start(self) -> None:
        """Watch from now on."""
        loop = get_hub().loop
        self._begins = loop.check(ref=False, priority=_FIRST)
        self._ends = loop.prepare(ref=False, priority=_LAST)
        self._turn = time.monotonic()
        self._begins.start(self._begin)
        self._ends.start(self._end)
        self._hub_thread = _thread_id()
        self._running.acquire()
        _start_thread(self._watch, ())

    def stop(self) -> None:
        """Watch no more."""
        for watcher in (self._begins, self._ends):
            watcher.stop()
            watcher.close()
        self._running.release()

    def _begin(self) -> None:
        self._turn = time.monotonic()

    def _end(self) -> None:
        seconds = time.monotonic() - self._turn
        if seconds > self._limit and self._turn:
            self._stalls.note(seconds)
            look = self._look
            # In a greenlet: this runs in the hub, which may not wait for a lock of the log
            gevent.spawn(_log, seconds, look if look and look.turn == self._turn else None)
        self._turn = 0.0

    def _watch(self) -> None:
        """Run by the thread."""
        pause = self._limit / LOOKS_PER_LIMIT
        while not self._running.acquire(timeout=pause):
            turn = self._turn
            if turn and time.monotonic() - turn >= pause:
                self._look = self._look_at(turn)

    def _look_at(self, turn: float) -> Look | None:
        frame = sys._current_frames().get(self._hub_thread)  # noqa: SLF001 - documented so
        if frame is None:
            return None
        frames = list(traceback.walk_stack(frame))
        named = (self._request_of(frame) for frame, _ in frames)
        stack = traceback.StackSummary.extract(reversed(frames), lookup_lines=False)
        return Look(turn, next((name for name in named if name), None), stack)


def _log(seconds: float, look: Look | None) -> None:
    """The one line of a stall, with the stack below it."""
    if not LOG.isEnabledFor(logging.WARNING):
        return
    request = look.request if look and look.request else "no request"
    stack = "Stack (most recent call last):\n" + "".join(look.stack.format()) if look else None
    said = "the hub stood still for %.0f ms, answering %s"
    values = (seconds * 1000, request)
    # By hand, as LOG.warning() would show the stack of this function
    record = LOG.makeRecord(LOG.name, logging.WARNING, __file__, 0, said, values, None, sinfo=stack)
    LOG.handle(record)
