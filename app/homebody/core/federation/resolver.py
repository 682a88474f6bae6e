"""Storing an event of another server, also where its state takes long to resolve.

Mostly the write that stores an event resolves the state in a millisecond. Where it takes many, the
write is undone, and a plan is made on a snapshot (core/timeline/plans.py), a millisecond at a
time, for one event at a time. Meanwhile the other PDUs of the room wait in its queue. After that
the room rests for as long as it took, so no room takes more than half of the time. The servers of
the senders take turns, so one that makes many such rooms holds up its own.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.federation.pdus import Received
from homebody.core.timeline import plans, receiving
from homebody.core.timeline.forks import Point
from homebody.core.timeline.limits import TooLongError
from homebody.runtime import event_loop
from homebody.runtime.event_loop import FairSemaphore
from homebody.runtime.locks import Locks
from homebody.spec.room_state import domain_of
from homebody.storage.database import Database
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

SECONDS_IN_WRITE: Final = 0.02
"""For one resolution in a write."""
MAX_TRIES: Final = 4
"""Users of this server may send to the room while its state is resolved."""
LONG_SECONDS: Final = 0.1
"""After which a room rests."""
MAX_REST_SECONDS: Final = 10.0


class Resolver:
    """Stores events one by one. Its methods wait, so none may run inside a transaction."""

    def __init__(self, db: Database, locks: Locks) -> None:
        self._db = db
        self._locks = locks
        self.turns = FairSemaphore(1)
        """Of senders' servers, before the locks of rooms, which go on otherwise meanwhile."""
        self._busy: Counter[str] = Counter()

    def is_busy(self, room_id: str) -> bool:
        """Return whether the state of a room is being resolved, so that other PDUs have to wait."""
        return room_id in self._busy

    def receive(self, it: Received, before: Point | None = None) -> str:
        """Store an event, and return its standing; see receiving.receive.

        Raises MissingEventsError, TooLongError: also in a partial room, as a plan would not know
        the members that are learned by the event.
        """
        room_id, server = it.event.room_id, domain_of(it.event.sender)
        spent = 0.0
        try:
            with self._locks.own("room", room_id), self._db.write() as tx:
                tx.seconds_to_resolve = SECONDS_IN_WRITE
                return receiving.receive(tx, *it, before)
        except TooLongError:
            LOG.info("the state of %s takes long to resolve", room_id)
        with self._being_busy(room_id):
            try:
                with self.turns.turn(server), self._locks.own("room", room_id):
                    began = time.monotonic()
                    try:
                        return self._receive_slowly(it, before)
                    finally:
                        spent = time.monotonic() - began
            finally:
                self._rest(spent)

    def _rest(self, spent: float) -> None:
        """Keep a room busy for as long as its state was resolved, also if that has failed."""
        if spent > LONG_SECONDS:
            time.sleep(min(spent, MAX_REST_SECONDS))

    @contextmanager
    def _being_busy(self, room_id: str) -> Iterator[None]:
        self._busy[room_id] += 1
        try:
            yield
        finally:
            self._busy[room_id] -= 1
            if not self._busy[room_id]:
                del self._busy[room_id]

    def _receive_slowly(self, it: Received, before: Point | None) -> str:
        """Store an event by a plan. Raises TooLongError also if the room never stays as it is."""
        room_id = it.event.room_id
        with self._db.read() as tx:
            if partial_rooms.is_partial(tx, room_id):
                raise TooLongError(room_id)
        if it.event.state_key is not None:  # with a number, state resolution knows it
            with self._db.write() as tx:
                receiving.receive_outlier(tx, *it)
        for _ in range(MAX_TRIES):
            standing = self._try(it, before)
            if standing is not None:
                return standing
        raise TooLongError(room_id)

    def _try(self, it: Received, before: Point | None) -> str | None:
        with self._db.read() as tx:
            known = state.find_any(tx, it.event.event_id)
            if known is not None and known.standing not in receiving.UNDECIDED:
                return known.standing
            plan = receiving.plan(tx, it.event, before)
        for some in batches(plan.early.items(), plans.CHANGES_AT_ONCE):
            with self._db.write(is_awaited=False) as writing:
                if not plans.holds(writing, plan):
                    return None
                plans.change_some(writing, plan, dict(some))
            event_loop.pause()
        try:
            with self._db.write() as writing:
                writing.seconds_to_resolve = SECONDS_IN_WRITE
                return receiving.receive(writing, *it, before, plan)
        except TooLongError:
            return None
