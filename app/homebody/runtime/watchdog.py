"""Detect that the event loop is blocked, and log by what.

gevent's loop waits for events, handles all that have happened, and waits again: one iteration. An
iteration that takes longer than the limit is a stall. Two watchers of the loop take the time at the
beginning and the end of each iteration, so every stall is measured exactly; they cost 0.3 µs per
iteration, and nothing while the server is idle.

The stack is taken by another thread, twice in the time of the limit, so that it sees each iteration
that becomes a stall. It uses nothing of gevent, logs nothing, and sleeps on a lock of the operating
system.
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

SAMPLES_PER_LIMIT: Final = 2
_FIRST: Final = 2  # of the loop's priorities, -2 to 2
_LAST: Final = -2

# Real threads and locks, as gevent has replaced those of the threading module
_start_thread = monkey.get_original("_thread", "start_new_thread")
_new_lock = monkey.get_original("_thread", "allocate_lock")
_thread_id = monkey.get_original("_thread", "get_ident")

RequestOf = Callable[[FrameType], str | None]
"""The name of the request that this frame handles; None for other frames."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the thread of the event loop did at a moment; holds no frames."""

    began: float
    """When the iteration had begun."""
    request: str | None
    stack: traceback.StackSummary


class Watchdog:
    """Watches the event loop of the thread that calls `start`."""

    def __init__(self, limit_ms: int, stalls: Histogram, request_of: RequestOf) -> None:
        self._limit = limit_ms / 1000
        self._stalls = stalls
        self._request_of = request_of
        self._began = 0.0
        """When the current iteration began; 0 between two."""
        self._sample: Sample | None = None
        self._loop_thread = 0
        self._running = _new_lock()

    def start(self) -> None:
        """Begin to watch."""
        loop = get_hub().loop
        self._check = loop.check(ref=False, priority=_FIRST)
        self._prepare = loop.prepare(ref=False, priority=_LAST)
        self._began = time.monotonic()
        self._check.start(self._begin)
        self._prepare.start(self._end)
        self._loop_thread = _thread_id()
        self._running.acquire()
        _start_thread(self._watch, ())

    def stop(self) -> None:
        """End the watch."""
        for watcher in (self._check, self._prepare):
            watcher.stop()
            watcher.close()
        self._running.release()

    def _begin(self) -> None:
        self._began = time.monotonic()

    def _end(self) -> None:
        seconds = time.monotonic() - self._began
        if seconds > self._limit and self._began:
            self._stalls.observe(seconds)
            sample = self._sample
            # In a greenlet: the event loop itself must not wait for a lock of the log
            gevent.spawn(_log, seconds, sample if sample and sample.began == self._began else None)
        self._began = 0.0

    def _watch(self) -> None:
        """Take stacks of long iterations. Run by the thread."""
        pause = self._limit / SAMPLES_PER_LIMIT
        while not self._running.acquire(timeout=pause):
            began = self._began
            if began and time.monotonic() - began >= pause:
                self._sample = self._take_sample(began)

    def _take_sample(self, began: float) -> Sample | None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - documented so
        if frame is None:
            return None
        frames = list(traceback.walk_stack(frame))
        named = (self._request_of(frame) for frame, _ in frames)
        stack = traceback.StackSummary.extract(reversed(frames), lookup_lines=False)
        return Sample(began, next((name for name in named if name), None), stack)


def _log(seconds: float, sample: Sample | None) -> None:
    """Log a stall, with the stack below the line."""
    if not LOG.isEnabledFor(logging.WARNING):
        return
    request = sample.request if sample and sample.request else "no request"
    stack = "Stack (most recent call last):\n" + "".join(sample.stack.format()) if sample else None
    message = "the event loop was blocked for %.0f ms, answering %s"
    values = (seconds * 1000, request)
    # By hand, as LOG.warning() would show the stack of this function
    record = LOG.makeRecord(
        LOG.name, logging.WARNING, __file__, 0, message, values, None, sinfo=stack
    )
    LOG.handle(record)
