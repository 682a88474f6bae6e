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
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from homebody.core import incoming, joining
from homebody.core.events import state
from homebody.core.federation import pdus, policy_servers, server_acls
from homebody.core.federation.dummy_events import DummyEvents
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received, Refused
from homebody.core.federation.queues import Queues
from homebody.core.federation.resolver import Resolver
from homebody.core.timeline import joined_rooms, receiving
from homebody.core.timeline.forks import Point
from homebody.core.timeline.limits import TooLongError
from homebody.core.timeline.receiving import MissingEventsError
from homebody.errors import MatrixError
from homebody.models.events import REJECTED
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.runtime.locks import Locks
from homebody.spec import identifiers, room_state
from homebody.spec.events import Json
from homebody.spec.room_versions import RoomVersion
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

REFUSED: Final = "refused"
"""Counted in place of a standing."""
SECONDS_PER_WRITE: Final = 0.003
"""Other writers wait meanwhile, and for the event that is being stored when the time is over."""

SECONDS_TO_RESOLVE: Final = 0.02
"""For the state of one event in a write; one that takes longer goes to the queue."""
MAX_SECONDS: Final = 10.0
"""For a transaction. The events of further rooms go to their queues: the policy servers of a few
rooms must not delay whatever else a server sends."""

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
        self,
        db: Database,
        keys: ServerKeys,
        locks: Locks,
        client: FederationClient,
        resolver: Resolver,
    ) -> None:
        self._db = db
        self._client = client
        self._keys = keys
        self._locks = locks
        self.resolver = resolver
        self.queues = Queues(db, client, resolver)
        self.queues.has_stored = self._has_stored
        self.dummy_events = DummyEvents(db, resolver)
        self.gap_opened: Callable[[str], None] = lambda _room_id: None
        """Set by create_app: called after an event was stored that follows a gap."""
        self.receive_elsewhere: ReceiveElsewhere = lambda _origin, _pdu: None
        """Set by create_app: called with each PDU for a room in which this server is not."""

    def stop(self) -> None:
        """End the greenlets that wait."""
        self.queues.stop()
        self.dummy_events.stop()

    def receive(self, origin: str, pdus_in: Sequence[Any]) -> Json:
        """Take in PDUs; return {event ID: {} or {"error": …}} once they are on the disk.

        PDUs without a usable event ID have no entry.
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
        until = time.monotonic() + MAX_SECONDS
        for room_id, received_in_room in by_room.items():
            outcome |= self._receive_in_room(origin, room_id, received_in_room, until)
        return outcome

    def store(
        self, room_id: str, received: Sequence[Received], origin: str | None = None
    ) -> dict[str, str]:
        """Store events of one room in this order; return their standings by event ID.

        Events whose predecessors are missing are left out, or kept for the room's greenlet if an
        `origin` is given.
        """
        checked = policy_servers.screen(self._db, self._client, room_id, received)
        if origin is None:
            standings, late = self._store_quickly(room_id, checked, None)
            for it in late:
                with suppress(MissingEventsError, TooLongError):
                    standings[it.event.event_id] = self.resolver.receive(it)
            return standings
        standings, late = {}, checked
        if not self.resolver.is_busy(room_id):
            standings, late = self._store_quickly(room_id, checked, origin)
        if late:
            with self._db.write() as tx:
                _keep(tx, origin, room_id, late)
        return standings

    def _store_quickly(
        self, room_id: str, received: Sequence[Received], origin: str | None
    ) -> tuple[dict[str, str], list[Received]]:
        """Store events up to one whose state takes long to resolve.

        Returns their standings, and that event with those after it.
        """
        standings: dict[str, str] = {}
        late: list[Received] = []
        waits: list[Callable[[], None]] = []
        left = deque(received)
        with self._locks.own("room", room_id):
            while left:
                taken: list[Received] = []
                try:
                    with self._db.write(is_awaited=False) as tx:
                        standings |= _store_some(tx, left, taken, origin)
                except TooLongError:  # the write is undone
                    late = [taken[-1], *left, *late]
                    left = deque(taken[:-1])
                    continue
                waits.append(tx.wait_for_commit)
                event_loop.pause()
        for wait in waits:
            wait()
        return standings, late

    def _has_stored(self, room_id: str, before: Point | None) -> None:
        self.dummy_events.look(room_id)
        if before is not None:
            self.gap_opened(room_id)

    def _receive_in_room(
        self, origin: str, room_id: str, received: list[Received], until: float
    ) -> Json:
        standings: dict[str, str] = {}
        is_for_queue = time.monotonic() > until
        try:
            if not is_for_queue:
                standings = self.store(room_id, received, origin)
        except MatrixError:  # such as a full disk: the transaction must come again
            raise
        except Exception:  # maybe of one event: the queue tries each by itself
            LOG.exception("events from %s in %s could not be stored together", origin, room_id)
            is_for_queue = True
        if is_for_queue:
            with self._db.write() as tx:
                _keep(tx, origin, room_id, received)
        outcome: Json = {it.event.event_id: {} for it in received}
        for event_id, standing in standings.items():
            if standing == REJECTED:
                outcome[event_id] = {"error": "The authorization rules do not allow the event"}
        if standings:
            self.queues.wake(room_id)
            self.dummy_events.look(room_id)
        if len(standings) < len(received):
            with self._db.read() as tx:
                is_there = joined_rooms.is_resident(tx, room_id)
            if is_there:  # else the queue is begun when the join is done
                self.queues.begin(room_id)
        return outcome


def _store_some(
    tx: Tx, left: deque[Received], taken: list[Received], origin: str | None
) -> dict[str, str]:
    """Move events from `left` to `taken` and store them, until the write has taken long enough.

    Returns their standings. Those that can't be stored yet are kept, if an `origin` is given.
    """
    tx.seconds_to_resolve = SECONDS_TO_RESOLVE
    standings, lacking = {}, []
    until = time.monotonic() + SECONDS_PER_WRITE
    while left and time.monotonic() < until:
        taken.append(it := left.popleft())
        standing = _received(tx, it, origin)
        if standing is not None:
            standings[it.event.event_id] = standing
        else:
            lacking.append(it)
    if lacking and origin is not None:
        _keep(tx, origin, lacking[0].event.room_id, lacking)
    return standings


def _keep(tx: Tx, origin: str, room_id: str, received: Sequence[Received]) -> None:
    pdus_in = [(it.event.event_id, it.encoded.decode()) for it in received]
    incoming.keep(tx, origin, room_id, pdus_in)


def _received(tx: Tx, it: Received, origin: str | None) -> str | None:
    """Store an event, unless it is useless, and return its standing; None if that can't be yet."""
    if not joined_rooms.is_resident(tx, it.event.room_id):  # a user is about to join
        return None
    try:
        if origin is not None and receiving.is_useless(tx, origin, it.event):
            tx.server.metrics.pdus_received[REJECTED] += 1
            return REJECTED
        return receiving.receive(tx, *it)
    except MissingEventsError:
        return None


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
