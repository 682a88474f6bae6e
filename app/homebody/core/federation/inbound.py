"""Events of other servers: from the JSON of a transaction into their rooms.

    receive()        the form, hash and signatures of all PDUs are checked (pdus.py)
      per room       known predecessors: stored at once, in a few short writes
                     unknown ones: kept in the table inbound_pdus, from where the room's greenlet
                     takes them once their predecessors are fetched (missing_events.py)
      the outcome    when all of this is on the disk

PDUs of one room are stored one after the other, under the room's lock; those of another room do not
wait for them.
Spec: server-server-api#pdus, server-server-api#transactions
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from homebody.core import incoming, joining
from homebody.core.events import state
from homebody.core.federation import pdus, policy_servers, server_acls
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received, Refused
from homebody.core.incoming import Waiting
from homebody.core.timeline import joined_rooms, receiving
from homebody.core.timeline.forks import Point
from homebody.core.timeline.receiving import MissingEventsError
from homebody.errors import MatrixError
from homebody.models.events import REJECTED
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.runtime.locks import Locks
from homebody.spec import identifiers, room_state
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import RoomVersion
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

REFUSED: Final = "refused"
"""Counted in place of a standing."""
SECONDS_PER_WRITE: Final = 0.003
"""Other writers wait meanwhile, and for the event that is being stored when the time is over."""
PAUSE_SECONDS: Final = 10.0
"""After a failure of this server, such as a full disk."""

FillGap = Callable[[str, Event, MissingEventsError], Point | None]
"""Fetches what an event lacks, called with its origin; returns the state before the event if only
another server knows that. Raises RemoteError or MissingEventsError."""
ReceiveElsewhere = Callable[[str, Json], None]


class _Candidate(NamedTuple):
    """A PDU that names a room of this server."""

    pdu: Any
    room_id: str
    version: RoomVersion


class Inbound:
    """Takes in the events that other servers send.

    Its methods wait for locks, keys and COMMITs, so none may run inside a transaction.
    """

    def __init__(
        self, db: Database, keys: ServerKeys, locks: Locks, client: FederationClient
    ) -> None:
        self._db = db
        self._client = client
        self._keys = keys
        self._locks = locks
        self._mutex = threading.Lock()
        self._working: dict[str, threading.Event] = {}
        """{room: set when a PDU of it comes}, of rooms that have a greenlet."""
        self._is_stopping = False
        self.fill_gap: FillGap = _cannot_fill
        """Set by create_app."""
        self.receive_elsewhere: ReceiveElsewhere = lambda _origin, _pdu: None
        """Set by create_app: called with each PDU for a room in which this server is not."""

    def start(self) -> None:
        """Go on with the PDUs that an earlier process has accepted."""
        with self._db.read() as tx:
            rooms = [it for it in incoming.rooms(tx) if joined_rooms.is_resident(tx, it)]
        for room_id in rooms:
            self._begin_work(room_id)

    def stop(self) -> None:
        """End the greenlets that wait for the next try."""
        self._is_stopping = True
        with self._mutex:
            for has_come in self._working.values():
                has_come.set()

    def resume(self, room_id: str) -> None:
        """Go on with the PDUs that have come for a room while a user was joining it."""
        self._begin_work(room_id)

    def receive(self, origin: str, pdus_in: Sequence[Any]) -> Json:
        """Take in PDUs; return {event id: {} or {"error": …}} once they are on the disk.

        PDUs without a usable event id have no entry.
        """
        outcome: Json = {}
        candidates: list[_Candidate] = []
        with self._db.read() as tx:
            sorted_out = [_candidate(tx, origin, pdu) for pdu in pdus_in]
        for pdu, candidate in zip(pdus_in, sorted_out, strict=True):
            if isinstance(candidate, _Candidate):
                candidates.append(candidate)
            elif candidate is None:
                self.receive_elsewhere(origin, pdu)
        by_room: dict[str, list[Received]] = defaultdict(list)
        checked = pdus.receive(self._keys, [(it.pdu, it.version) for it in candidates])
        refused = [it for it in (*sorted_out, *checked) if isinstance(it, Refused)]
        for it in refused:
            self._db.server.metrics.pdus_received[REFUSED] += 1
            LOG.info("dropped the event %s from %s: %s", it.event_id, origin, it.problem)
            if it.event_id is not None:
                outcome[it.event_id] = {"error": it.problem}
        for candidate, received in zip(candidates, checked, strict=True):
            if isinstance(received, Received):
                by_room[candidate.room_id].append(received)
        for room_id, received_in_room in by_room.items():
            outcome |= self._receive_in_room(origin, room_id, received_in_room)
        return outcome

    def store(
        self, room_id: str, received: Sequence[Received], origin: str | None = None
    ) -> dict[str, str]:
        """Store events of one room in this order; return their standings by event id.

        Events whose predecessors are missing are left out, or kept for the room's greenlet if an
        `origin` is given.
        """
        standings: dict[str, str] = {}
        waits: list[Callable[[], None]] = []
        left = deque(policy_servers.screen(self._db, self._client, room_id, received))
        with self._locks.own("room", room_id):
            while left:
                with self._db.write(is_awaited=False) as tx:
                    until = time.monotonic() + SECONDS_PER_WRITE
                    while left and time.monotonic() < until:
                        it = left.popleft()
                        standing = _received(tx, it)
                        if standing is not None:
                            standings[it.event.event_id] = standing
                        elif origin is not None:
                            pdu = it.encoded.decode()
                            incoming.keep(tx, origin, room_id, it.event.event_id, pdu)
                waits.append(tx.wait_for_commit)
                event_loop.pause()
        for wait in waits:
            wait()
        return standings

    def _receive_in_room(self, origin: str, room_id: str, received: list[Received]) -> Json:
        try:
            standings = self.store(room_id, received, origin)
        except MatrixError:  # such as a full disk: the transaction must come again
            raise
        except Exception:
            LOG.exception("events from %s in %s could not be stored", origin, room_id)
            return {it.event.event_id: {"error": "Internal error"} for it in received}
        outcome: Json = {it.event.event_id: {} for it in received}
        for event_id, standing in standings.items():
            if standing == REJECTED:
                outcome[event_id] = {"error": "The authorization rules do not allow the event"}
        if len(standings) < len(received):
            with self._db.read() as tx:
                is_there = joined_rooms.is_resident(tx, room_id)
            if is_there:  # else `resume` is called when the join is done
                self._begin_work(room_id)
        return outcome

    def _begin_work(self, room_id: str) -> None:
        with self._mutex:
            if room_id in self._working:
                self._working[room_id].set()
                return
            self._working[room_id] = threading.Event()
        threading.Thread(target=self._work, args=(room_id,), daemon=True).start()

    def _work(self, room_id: str) -> None:
        """Take in the room's waiting PDUs, the oldest first. Run by the room's greenlet."""
        has_come = self._working[room_id]
        while not self._is_stopping:
            try:
                has_come.clear()
                seconds = self._try_oldest(room_id)
            except Exception:
                LOG.exception("the events that wait for %s could not be taken in", room_id)
                seconds = PAUSE_SECONDS
            if seconds is None:
                return
            if seconds > 0 and not self._is_stopping:
                has_come.wait(seconds)

    def _try_oldest(self, room_id: str) -> float | None:
        """Take in a PDU; return the seconds until the next one may be tried.

        None: there are no more, and the greenlet is to end.
        """
        with self._mutex, self._db.read() as tx:
            waiting = incoming.oldest(tx, room_id)
            next_try_ts = incoming.next_try_ts(tx, room_id) if waiting is None else 0
            if next_try_ts is None:
                del self._working[room_id]
                return None
        if waiting is None:
            return (next_try_ts - tx.now_ms) / 1000
        self._try(room_id, waiting)
        return 0

    def _try(self, room_id: str, waiting: Waiting) -> None:
        """Take in a waiting PDU, or decide whether to try again."""
        try:
            self._take_in(room_id, waiting)
        except RemoteError as problem:
            if _may_pass(problem):
                LOG.info("the event %s has to wait: %s", waiting.event_id, problem)
                with self._db.write() as tx:
                    incoming.put_off(tx, waiting)
                return
            LOG.info("dropped the event %s: %s", waiting.event_id, problem)
        except MissingEventsError as problem:
            LOG.info("dropped the event %s: %s", waiting.event_id, problem)
        except MatrixError as problem:
            if problem.status >= 500:  # of this server: it is not the event's fault
                raise
            LOG.info("dropped the event %s: %s", waiting.event_id, problem)
        except Exception:
            LOG.exception("dropped the event %s", waiting.event_id)
        with self._db.write() as tx:
            incoming.drop(tx, waiting.event_id)

    def _take_in(self, room_id: str, waiting: Waiting) -> None:
        with self._db.read() as tx:
            pdu = orjson.loads(waiting.pdu)
            event = Event(waiting.event_id, pdu, state.version(tx, room_id))
            known = state.find_any(tx, event.event_id)
            if known is not None and known.standing not in receiving.UNDECIDED:
                return
            lacking = receiving.missing(tx, event)
        before = None if lacking is None else self.fill_gap(waiting.origin, event, lacking)
        received = [Received(event, waiting.pdu.encode())]
        (signed,) = policy_servers.screen(self._db, self._client, room_id, received)
        with self._locks.own("room", room_id), self._db.write() as tx:
            receiving.receive(tx, *signed, before)


def _may_pass(problem: RemoteError) -> bool:
    """Return whether a request may succeed later."""
    return problem.kind in {"unreachable", "timeout"} or (problem.status or 0) >= 500


def _received(tx: Tx, it: Received) -> str | None:
    """Store an event, and return its standing; None if it can't be stored yet."""
    if not joined_rooms.is_resident(tx, it.event.room_id):  # a user is about to join
        return None
    try:
        return receiving.receive(tx, *it)
    except MissingEventsError:
        return None


def _cannot_fill(_origin: str, _event: Event, lacking: MissingEventsError) -> Point | None:
    raise lacking


def _candidate(tx: Reader, origin: str, pdu: Any) -> _Candidate | Refused | None:
    """Return a PDU with its room; None for a room that this server is neither in nor joining."""
    room_id = pdu.get("room_id") if isinstance(pdu, dict) else None
    if not identifiers.is_room_id(room_id):
        return Refused(None, "PDU without a room_id")
    try:
        version = state.version(tx, room_id)
    except MatrixError:
        return None
    if not joined_rooms.is_resident(tx, room_id) and not joining.is_under_way(tx, room_id):
        return None
    sender = pdu.get("sender")
    if not identifiers.is_user_id(sender):
        return Refused(pdus.event_id_of(pdu, version), "PDU without a sender")
    for server in {origin, room_state.domain_of(sender)}:
        if not server_acls.allows(tx, room_id, server):
            event_id = pdus.event_id_of(pdu, version)
            return Refused(event_id, f"{server} is excluded from the room by its server ACL")
    return _Candidate(pdu, room_id, version)
