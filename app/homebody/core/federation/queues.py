"""The PDUs that wait, room by room: each is taken in as soon as what it lacks is there.

A greenlet for each room goes through its waiting PDUs, in the order in which they came:

    what it follows is stored       it is taken in at once
    that waits in the queue too     it comes after that
    other servers have to be asked  a greenlet of its own fetches it (missing_events.py), while
                                    the others go on

How many are fetched at once is limited for each room and server. PDUs whose state takes long to
resolve (resolver.py) also come here, as that would hold up the response to a transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

import orjson

from homebody.core import incoming
from homebody.core.events import state
from homebody.core.federation import policy_servers, room_requests
from homebody.core.federation.pdus import Received
from homebody.core.federation.resolver import Resolver
from homebody.core.incoming import Waiting
from homebody.core.timeline import joined_rooms, receiving
from homebody.core.timeline.forks import Point
from homebody.core.timeline.limits import TooLongError
from homebody.core.timeline.receiving import MissingEventsError
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.spec.events import Event
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 10.0
"""After a failure of this server, such as a full disk."""
MAX_SECONDS_BETWEEN: Final = 60.0
"""Until the queue of a room is looked through again, if nothing happens."""
LONG_SECONDS: Final = 0.05
MAX_REST_SECONDS: Final = 1.0
"""Between two looks at a queue, if one takes long."""
AT_ONCE: Final = 20
"""PDUs read in one transaction."""
MAX_IN_ROOM: Final = 5
"""Events of a room for which other servers are asked at the same time."""
MAX_IN_ROOM_FROM_SERVER: Final = 2
"""The same for those that one server has sent, which may hang."""
MAX_FROM_SERVER: Final = 20
"""The same in all rooms."""
MAX_PATIENCE_MS: Final = 600_000
"""For how long a PDU waits for others in the queue, which may wait for it in turn."""

FillGap = Callable[[str, Event, MissingEventsError], Point | None]
"""Fetches what an event lacks, called with its origin; returns the state before the event if only
another server knows that. Raises RemoteError or MissingEventsError."""
HasStored = Callable[[str, Point | None], None]
"""Called after an event was stored with its room, and the state before it if it follows a gap."""


class _Fetched(NamedTuple):
    """A PDU for which other servers are being asked."""

    origin: str
    lacking: frozenset[str]


class _Queue:
    """The queue of one room, while its greenlet runs."""

    def __init__(self, room_id: str) -> None:
        self.room_id = room_id
        self.has_changed = threading.Event()
        """Set when a PDU comes, or one is done."""
        self.fetched: dict[str, _Fetched] = {}
        """By event id; changed under the mutex."""
        self.follows: dict[str, frozenset[str]] = {}
        """By event id: what it lacks, of which some was in the queue at the last look."""


class Queues:
    """Takes in the PDUs that wait. Its methods return at once, and greenlets do the work."""

    def __init__(self, db: Database, client: FederationClient, resolver: Resolver) -> None:
        self._db = db
        self._resolver = resolver
        self._client = client
        self._mutex = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._from_server: Counter[str] = Counter()
        self._is_stopping = False
        self.fill_gap: FillGap = _cannot_fill
        """Set by create_app."""
        self.has_stored: HasStored = lambda _room_id, _before: None
        """Set by inbound.py."""

    def start(self) -> None:
        """Go on with the PDUs that an earlier process has accepted."""
        with self._db.read() as tx:
            rooms = [it for it in incoming.rooms(tx) if joined_rooms.is_resident(tx, it)]
        for room_id in rooms:
            self.begin(room_id)

    def stop(self) -> None:
        """End the greenlets that wait."""
        self._is_stopping = True
        with self._mutex:
            for queue in self._queues.values():
                queue.has_changed.set()

    def begin(self, room_id: str) -> None:
        """Take in the PDUs that wait for a room."""
        with self._mutex:
            if room_id in self._queues:
                self._queues[room_id].has_changed.set()
                return
            queue = self._queues[room_id] = _Queue(room_id)
        threading.Thread(target=self._work, args=(queue,), daemon=True).start()

    def rooms(self) -> Collection[str]:
        """Return the rooms in which PDUs are being taken in."""
        return list(self._queues)

    def wake(self, room_id: str) -> None:
        """Look again at the PDUs that wait for a room, as an event was stored there."""
        queue = self._queues.get(room_id)
        if queue is not None:
            queue.has_changed.set()

    def _work(self, queue: _Queue) -> None:
        """Take in a room's waiting PDUs. Run by the room's greenlet."""
        while not self._is_stopping:
            queue.has_changed.clear()
            began = time.monotonic()
            try:
                has_done = self._go_through(queue)
                seconds = self._rest(queue)
            except Exception:
                LOG.exception("the events that wait for %s could not be taken in", queue.room_id)
                has_done, seconds = False, PAUSE_SECONDS
            if seconds is None:
                return
            spent = time.monotonic() - began
            if seconds > 0 and not has_done and not self._is_stopping:
                queue.has_changed.wait(seconds)
            if spent > LONG_SECONDS:  # each PDU that comes costs a look at hundreds that wait
                time.sleep(min(spent, MAX_REST_SECONDS))

    def _rest(self, queue: _Queue) -> float | None:
        """Return the seconds until the next PDU may be tried.

        None: there are no more, and the greenlet is to end.
        """
        with self._mutex, self._db.read() as tx:
            if incoming.next_try_ts(tx, queue.room_id) is None:
                del self._queues[queue.room_id]
                return None
            later_ts = incoming.later_try_ts(tx, queue.room_id)
        if later_ts is None:
            return MAX_SECONDS_BETWEEN
        return min(MAX_SECONDS_BETWEEN, (later_ts - tx.now_ms) / 1000)

    def _go_through(self, queue: _Queue) -> bool:
        """Look at each PDU that may be tried now; return whether one left the queue."""
        has_done = False
        after = 0
        while not self._is_stopping:
            with self._db.read() as tx:
                some = incoming.due(tx, queue.room_id, after, AT_ONCE)
            for waiting in some:
                after = waiting.id
                has_done |= self._look_at(queue, waiting)
            if len(some) < AT_ONCE:
                break
            event_loop.pause()
        return has_done

    def _look_at(self, queue: _Queue, waiting: Waiting) -> bool:
        """Take in a PDU, or have fetched what it lacks; return whether it left the queue."""
        event_id = waiting.event_id
        with self._db.read() as tx:
            follows = queue.follows.pop(event_id, None)
            if follows and _may_come(tx, queue.room_id, waiting, follows):
                queue.follows[event_id] = follows
                return False
            wanted = _lacking(tx, _event(tx, queue.room_id, waiting))
            if wanted and _may_come(tx, queue.room_id, waiting, wanted):
                queue.follows[event_id] = wanted
                return False
        if wanted:
            self._begin_fetching(queue, waiting, wanted)
            return False
        # also one that is being fetched, as what it lacked may have come by itself
        self._try(queue.room_id, waiting)
        return True

    def _begin_fetching(self, queue: _Queue, waiting: Waiting, lacking: frozenset[str]) -> None:
        """Ask other servers for what a PDU lacks, unless that is being done, or too much is."""
        origin = waiting.origin
        with self._mutex:
            others = list(queue.fetched.values())
            if (
                waiting.event_id in queue.fetched
                or len(others) >= MAX_IN_ROOM
                or sum(it.origin == origin for it in others) >= MAX_IN_ROOM_FROM_SERVER
                or self._from_server[origin] >= MAX_FROM_SERVER
                or not all(lacking.isdisjoint(it.lacking) for it in others)
            ):
                return
            queue.fetched[waiting.event_id] = _Fetched(origin, lacking)
            self._from_server[origin] += 1
        threading.Thread(target=self._fetch, args=(queue, waiting), daemon=True).start()

    def _fetch(self, queue: _Queue, waiting: Waiting) -> None:
        """Take in a PDU for which other servers are asked. Run by a greenlet of its own."""
        try:
            self._try(queue.room_id, waiting)
        except Exception:
            LOG.exception("the event %s has to wait", waiting.event_id)
            time.sleep(0 if self._is_stopping else PAUSE_SECONDS)
        finally:
            with self._mutex:
                del queue.fetched[waiting.event_id]
                self._from_server[waiting.origin] -= 1
                is_next = self._from_server[waiting.origin] == MAX_FROM_SERVER - 1
                if not self._from_server[waiting.origin]:
                    del self._from_server[waiting.origin]
                for it in self._queues.values() if is_next else (queue,):
                    it.has_changed.set()

    def _try(self, room_id: str, waiting: Waiting) -> None:
        """Take in a waiting PDU, or decide whether to try again."""
        try:
            self._take_in(room_id, waiting)
        except RemoteError as problem:
            if room_requests.may_pass(problem):
                self._put_off(waiting, problem)
                return
            LOG.info("dropped the event %s: %s", waiting.event_id, problem)
        except TooLongError as problem:
            self._put_off(waiting, problem)
            return
        except MissingEventsError as problem:
            LOG.info("dropped the event %s: %s", waiting.event_id, problem)
        except MatrixError as problem:
            if problem.status >= 500:  # of this server: it is not the event's fault
                raise
            LOG.info("dropped the event %s: %s", waiting.event_id, problem)
        except Exception as problem:  # a full /tmp, or memory; if it is the event, this ends soon
            LOG.exception("the event %s could not be taken in", waiting.event_id)
            self._put_off(waiting, problem)
            return
        self._drop(waiting)

    def _take_in(self, room_id: str, waiting: Waiting) -> None:
        with self._db.read() as tx:
            event = _event(tx, room_id, waiting)
            if _is_known(tx, event):
                return
            lacking = receiving.missing(tx, event)
        before = None if lacking is None else self.fill_gap(waiting.origin, event, lacking)
        received = [Received(event, waiting.pdu.encode())]
        (signed,) = policy_servers.screen(self._db, self._client, room_id, received)
        with self._db.read() as tx:
            if receiving.is_useless(tx, waiting.origin, event, before):
                return
        self._resolver.receive(signed, before)
        self.has_stored(room_id, before)

    def _put_off(self, waiting: Waiting, problem: Exception) -> None:
        LOG.info("the event %s has to wait: %s", waiting.event_id, problem)
        with self._db.write() as tx:
            incoming.put_off(tx, waiting)

    def _drop(self, waiting: Waiting) -> None:
        with self._db.write() as tx:
            incoming.drop(tx, waiting.event_id)


def _event(tx: Reader, room_id: str, waiting: Waiting) -> Event:
    return Event(waiting.event_id, orjson.loads(waiting.pdu), state.version(tx, room_id))


def _is_known(tx: Reader, event: Event) -> bool:
    known = state.find_any(tx, event.event_id)
    return known is not None and known.standing not in receiving.UNDECIDED


def _lacking(tx: Reader, event: Event) -> frozenset[str]:
    """Return the events that must be stored before this one."""
    lacking = None if _is_known(tx, event) else receiving.missing(tx, event)
    if lacking is None:
        return frozenset()
    return frozenset([*lacking.prev_events, *lacking.auth_events])


def _may_come(tx: Reader, room_id: str, waiting: Waiting, wanted: Collection[str]) -> bool:
    """Return whether events that a PDU lacks wait in the queue, to be tried before it."""
    if waiting.received_ts < tx.now_ms - MAX_PATIENCE_MS:
        return False
    return incoming.are_due(tx, room_id, [it for it in wanted if it != waiting.event_id])


def _cannot_fill(_origin: str, _event: Event, lacking: MissingEventsError) -> Point | None:
    raise lacking
