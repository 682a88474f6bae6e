"""Dummy events: they join the ends of a room's graph where users here send nothing that does.

A room whose servers have lost sight of each other gets more and more ends, and each event that
follows many makes its state harder to find. So where there are more than ten, a user of this server
who may send to the room sends an event of a type that Synapse uses for the same. No client sees it
(timeline/store.py). One whose state takes long to resolve is stored like one of another server
(resolver.py). Where nobody here may send, nothing can be done.

Spec: server-server-api#pdus
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from homebody import errors
from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.federation.pdus import Received
from homebody.core.federation.resolver import Resolver
from homebody.core.timeline import sending, store
from homebody.core.timeline.limits import TooLongError
from homebody.core.timeline.receiving import MissingEventsError
from homebody.core.timeline.sending import Draft
from homebody.errors import MatrixError
from homebody.models.events import ACCEPTED
from homebody.runtime import event_loop
from homebody.spec import events, room_state
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

MAX_ENDS: Final = 10
WAIT_SECONDS: Final = 1.0
"""More events may be on their way, or one that joins the ends."""
SECONDS_BETWEEN: Final = 30.0
"""Between two times in one room, also if nobody here may send or its state takes long."""
MAX_AT_ONCE: Final = 20
"""Events that are sent to a room one after the other; each joins nine ends more."""
MAX_ROOMS: Final = 100
"""That are worked on at the same time; others have to wait for their next event."""
MAX_USERS: Final = 3
"""Users who are tried."""
SECONDS_TO_RESOLVE: Final = 0.02


class DummyEvents:
    """Sends dummy events. Its methods return at once, and greenlets do the work."""

    def __init__(self, db: Database, resolver: Resolver) -> None:
        self._db = db
        self._resolver = resolver
        self._mutex = threading.Lock()
        self._rooms: set[str] = set()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the greenlets that wait."""
        self._stopping.set()

    def is_waiting(self) -> bool:
        """Return whether the ends of a room are about to be joined."""
        return bool(self._rooms)

    def look(self, room_id: str) -> None:
        """Join the ends of a room soon, if there are too many."""
        if not self._has_many_ends(room_id):
            return
        with self._mutex:
            if room_id in self._rooms or len(self._rooms) >= MAX_ROOMS:
                return
            self._rooms.add(room_id)
        event_loop.spawn(self._work, room_id)

    def _work(self, room_id: str) -> None:
        try:
            self._stopping.wait(WAIT_SECONDS)
            sent = 0
            while sent < MAX_AT_ONCE and not self._stopping.is_set() and self._send(room_id):
                sent += 1
            if sent or self._has_many_ends(room_id):  # what fails, costs as much
                self._stopping.wait(SECONDS_BETWEEN)
        except Exception:
            LOG.exception("the ends of %s could not be joined", room_id)
        finally:
            with self._mutex:
                self._rooms.remove(room_id)

    def _has_many_ends(self, room_id: str) -> bool:
        head = self._db.cached(state.ROOMS, room_id)
        return head is not None and len(head.forward_extremities) > MAX_ENDS

    def _send(self, room_id: str) -> bool:
        """Send one event, if there are too many ends; return whether it was sent."""
        with self._db.read() as tx:
            ends = state.head(tx, room_id).forward_extremities
            if len(ends) <= MAX_ENDS or partial_rooms.is_partial(tx, room_id):
                return False
            users = _most_powerful(tx, room_id)
        began = time.monotonic()
        for user_id in users:
            try:
                self._store(Draft(room_id, user_id, store.DUMMY, {}))
            except (TooLongError, MissingEventsError) as problem:  # for any user
                LOG.info("can't join the ends of %s: %s", room_id, problem)
                return False
            except MatrixError as problem:
                LOG.info("%s can't join the ends of %s: %s", user_id, room_id, problem)
            else:
                spent = time.monotonic() - began
                LOG.info("joined some of %d ends of %s in %.3f s", len(ends), room_id, spent)
                return True
        return False

    def _store(self, draft: Draft) -> None:
        """Send an event, in one write or after its state was resolved.

        Raises TooLongError, MissingEventsError, MatrixError.
        """
        try:
            with self._db.write() as writing:
                writing.seconds_to_resolve = SECONDS_TO_RESOLVE
                sending.send(writing, draft)
        except TooLongError:
            with self._db.read() as tx:
                event = sending.make(tx, draft)
            received = Received(event, events.encode(event.pdu, event.version))
            if self._resolver.receive(received) != ACCEPTED:
                raise errors.forbidden("The state after these ends does not allow it") from None


def _most_powerful(tx: Reader, room_id: str) -> list[str]:
    """Return a few users of this server who are in the room, those with most power first."""
    keys = [room_state.CREATE, room_state.POWER_LEVELS]
    found = state.current_many(tx, room_id, keys)
    levels = room_state.levels_after(
        found.get(room_state.POWER_LEVELS), found.get(room_state.CREATE)
    )
    local = state.joined(tx, room_id).local
    return sorted(local, key=lambda user_id: (-levels.of_user(user_id), user_id))[:MAX_USERS]
