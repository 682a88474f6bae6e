"""Filling gaps in the background, so that users find what was said while a server was away.

A gap opens when an event comes whose predecessors are more than are fetched at once
(missing_events.py), and when this server joins a room. What readers need of it is fetched when they
page back (backfill.py), but then they wait, and servers that have it may be gone. So the events
before a gap are fetched in the background, for one room at a time: some hundreds after an outage,
one response before a join. What was fetched already counts, so that restarts, which find the gaps
that are open, do not fetch more and more.

Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import logging
import threading
import time
from operator import itemgetter
from typing import Final

from homebody.core.events import state
from homebody.core.federation.backfill import EVENTS_AT_ONCE, Backfill
from homebody.core.timeline import gaps, older_events
from homebody.runtime import event_loop
from homebody.storage.database import PLACES_OF_GAP, Database

LOG = logging.getLogger(__name__)

WAIT_SECONDS: Final = 2.0
"""Readers come first, and events that are on their way."""
SECONDS_AFTER_START: Final = 30.0
"""Clients and other servers come back then, all at once."""
SECONDS_AFTER_JOIN: Final = 60.0
"""The user's client mostly pages back by itself."""
SECONDS_BETWEEN: Final = 0.5
"""Between two requests."""
MAX_RESPONSES: Final = 10
"""For one gap, of up to a hundred events each."""
MAX_RESPONSES_BEFORE_JOIN: Final = 1
REQUEST_SECONDS: Final = 20.0
MAX_ROOMS: Final = 1000
"""That wait; gaps of others are left to readers."""


class GapFiller:
    """Fills gaps. Its methods return at once, and a greenlet does the work."""

    def __init__(self, db: Database, backfill: Backfill) -> None:
        self._db = db
        self._backfill = backfill
        self._mutex = threading.Lock()
        self._waiting: dict[str, float] = {}
        """{room_id: when it is to be filled}, a time of time.monotonic()."""
        self._is_working = False
        self._is_started = False
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to fill gaps: those that are open, and those that open from now on."""
        self._is_started = self._db.server.config.federation
        if self._is_started:
            with self._db.read() as tx:
                found = gaps.newest_rooms(tx, MAX_ROOMS)
            for room_id in found:
                self.begin(room_id, SECONDS_AFTER_START)

    def stop(self) -> None:
        """End the greenlet after its request."""
        self._stopping.set()

    def begin(self, room_id: str, seconds: float | None = None) -> None:
        """Fill the newest gap of a room, after some seconds, when it is its turn."""
        due = time.monotonic() + (WAIT_SECONDS if seconds is None else seconds)
        with self._mutex:
            is_full = len(self._waiting) >= MAX_ROOMS and room_id not in self._waiting
            if not self._is_started or is_full:
                return
            self._waiting[room_id] = min(due, self._waiting.get(room_id, due))
            if self._is_working:
                return
            self._is_working = True
        event_loop.spawn(self._work)

    def follow_join(self, room_id: str) -> None:
        """Fetch some of the history from before a join."""
        self.begin(room_id, SECONDS_AFTER_JOIN)

    def is_idle(self) -> bool:
        """Return whether no gap waits to be filled."""
        return not self._is_working

    def _work(self) -> None:
        while (room_id := self._next()) is not None:
            try:
                self._fill(room_id)
            except Exception:
                LOG.exception("the gap in %s could not be filled", room_id)

    def _next(self) -> str | None:
        """Return the next room, as soon as it is due; None if there is none."""
        while True:
            with self._mutex:
                if self._stopping.is_set() or not self._waiting:
                    self._is_working = False
                    return None
                room_id, due = min(self._waiting.items(), key=itemgetter(1))
                left = due - time.monotonic()
                if left <= 0:
                    del self._waiting[room_id]
                    return room_id
            self._stopping.wait(min(left, WAIT_SECONDS))  # an earlier one may come meanwhile

    def _fill(self, room_id: str) -> None:
        """Fetch events into the newest gap of a room, the newest first, up to a limit."""
        older, responses = self._plan(room_id)
        event_loop.pause()  # many rooms may have nothing to fetch
        for _ in range(responses):
            if self._stopping.is_set() or not self._has_users(room_id):
                return
            if not self._backfill.go_on(room_id, older, REQUEST_SECONDS):
                return
            self._stopping.wait(SECONDS_BETWEEN)

    def _plan(self, room_id: str) -> tuple[int, int]:
        """Return a position below the newest gap of a room, and how many responses to fetch."""
        with self._db.read() as tx:
            gap = gaps.newest(tx, room_id, 0, tx.position)
            if gap is None:
                return 0, 0
            limit = MAX_RESPONSES * EVENTS_AT_ONCE
            above = older_events.first_not_history(tx, room_id, gap.position, limit)
            if above is None:
                return 0, 0
            # the own users' events lack no predecessors, but for joins
            is_join = tx.server.is_local(above.sender)
        allowed = MAX_RESPONSES_BEFORE_JOIN if is_join else MAX_RESPONSES
        fetched = -(-above.history // EVENTS_AT_ONCE)
        return above.position - PLACES_OF_GAP - 1, allowed - fetched

    def _has_users(self, room_id: str) -> bool:
        with self._db.read() as tx:
            return bool(state.joined(tx, room_id).local)
