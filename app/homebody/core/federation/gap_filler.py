"""Filling gaps in the background, so that users find what was said while a server was away.

A gap opens when an event comes whose predecessors are more than are fetched at once
(missing_events.py). What readers need of it is fetched when they page back (backfill.py), but then
they wait, and servers that have it may be gone. So the events before a new gap are fetched in the
background, some hundreds of them, for one room at a time. Gaps before a join are left to readers.

Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from homebody.core.events import state
from homebody.core.federation.backfill import Backfill
from homebody.core.timeline import gaps
from homebody.runtime import event_loop
from homebody.storage.database import PLACES_OF_GAP, Database

LOG = logging.getLogger(__name__)

WAIT_SECONDS: Final = 2.0
"""Readers come first, and events that are on their way."""
SECONDS_BETWEEN: Final = 0.5
"""Between two requests."""
MAX_RESPONSES: Final = 10
"""For one gap, of up to a hundred events each."""
REQUEST_SECONDS: Final = 20.0
MAX_ROOMS: Final = 1000
"""That wait; gaps of others are left to readers."""


class GapFiller:
    """Fills gaps. Its methods return at once, and a greenlet does the work."""

    def __init__(self, db: Database, backfill: Backfill) -> None:
        self._db = db
        self._backfill = backfill
        self._mutex = threading.Lock()
        self._waiting: dict[str, None] = {}
        self._is_working = False
        self._is_started = False
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to fill gaps that open from now on."""
        self._is_started = True

    def stop(self) -> None:
        """End the greenlet after its request."""
        self._stopping.set()

    def begin(self, room_id: str) -> None:
        """Fill the newest gap of a room, when it is its turn."""
        with self._mutex:
            if not self._is_started or len(self._waiting) >= MAX_ROOMS:
                return
            self._waiting[room_id] = None
            if self._is_working:
                return
            self._is_working = True
        event_loop.spawn(self._work)

    def is_idle(self) -> bool:
        """Return whether no gap waits to be filled."""
        return not self._is_working

    def _work(self) -> None:
        while True:
            with self._mutex:
                if self._stopping.is_set() or not self._waiting:
                    self._is_working = False
                    return
                room_id = next(iter(self._waiting))
                del self._waiting[room_id]
            try:
                self._fill(room_id)
            except Exception:
                LOG.exception("the gap in %s could not be filled", room_id)

    def _fill(self, room_id: str) -> None:
        """Fetch events into the newest gap of a room, the newest first, up to a limit."""
        self._stopping.wait(WAIT_SECONDS)
        with self._db.read() as tx:
            gap = gaps.newest(tx, room_id, 0, tx.position)
        if gap is None:
            return
        older = gap.position - PLACES_OF_GAP - 1  # there are the events from before it
        for _ in range(MAX_RESPONSES):
            if self._stopping.is_set() or not self._has_users(room_id):
                return
            if not self._backfill.go_on(room_id, older, REQUEST_SECONDS):
                return
            self._stopping.wait(SECONDS_BETWEEN)

    def _has_users(self, room_id: str) -> bool:
        with self._db.read() as tx:
            return bool(state.joined(tx, room_id).local)
