"""What an event of another server needs and this one lacks: events before it, or auth events.

    get_missing_events    the events between, received in their order; mostly that is all
    state_ids, state      where there are too many, or nobody has them: the state before an event.
                          What is missing before it becomes a gap (timeline/gaps.py)
    event_auth, event     auth events, stored as outliers

Runs in a greenlet for each event, of which queues.py limits the number. Everything that comes is
checked as if it had been sent by a transaction.
Spec: server-server-api#backfilling-and-retrieving-missing-events,
server-server-api#retrieving-events
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import select

from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.federation import (
    outliers,
    pdus,
    policy_servers,
    room_requests,
)
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received, Refused
from homebody.core.federation.remote_states import RemoteState
from homebody.core.federation.resolver import Resolver
from homebody.core.federation.room_requests import RoomRequests
from homebody.core.federation.transactions import Transactions
from homebody.core.timeline import forks, receiving
from homebody.core.timeline.forks import Point
from homebody.core.timeline.limits import TooLongError
from homebody.core.timeline.receiving import MissingEventsError
from homebody.models.events import REJECTED, StoredEvent
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.runtime.locks import Locks
from homebody.spec import event_order, room_state
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Database, Reader
from homebody.storage.expressions import batches, listed

LOG = logging.getLogger(__name__)

WAIT_SECONDS: Final = 0.75
"""For another transaction of the same server, which may have the missing events."""
LOOK_SECONDS: Final = 0.025
MAX_SECONDS: Final = 60.0
"""For one event."""
MAX_REQUESTS: Final = 80
"""For one event."""
MAX_ROUNDS: Final = 10
EVENTS_PER_ROUND: Final = 20
MIN_PER_ROUND: Final = 10
"""A server that responds with fewer has no more between these events; Synapse gives 10 at most."""
MAX_EARLIEST: Final = 20
MAX_STATES: Final = 3
"""States that are asked for, for one event."""
MAX_SINGLE: Final = 20
"""Events of a state that are asked for one by one; else the whole state is."""
MAX_AUTH_CHAIN: Final = 1000
SECONDS_PER_WRITE: Final = 0.003
IDS_AT_ONCE: Final = 5000

_IDS = listed("event_ids")
_STATE = select(
    StoredEvent.number, StoredEvent.room_id, StoredEvent.type, StoredEvent.state_key
).where(
    StoredEvent.event_id.in_(select(_IDS.c.value)),
    StoredEvent.standing != REJECTED,
    StoredEvent.state_key.is_not(None),
)


class MissingEvents:
    """Fetches what events lack. Its methods wait, so none may run inside a transaction."""

    def __init__(
        self,
        db: Database,
        keys: ServerKeys,
        client: FederationClient,
        locks: Locks,
        transactions: Transactions,
        resolver: Resolver,
    ) -> None:
        self._db = db
        self._keys = keys
        self._client = client
        self._locks = locks
        self._resolver = resolver
        self._transactions = transactions

    def fetch(self, origin: str, event: Event, lacking: MissingEventsError) -> Point | None:
        """Fetch what an event lacks; return the state before it if only other servers know that.

        Raises RemoteError where no server could be asked, MissingEventsError where none has it.
        """
        still_lacking = self._wait(origin, event, lacking)
        if still_lacking is None:
            return None
        with self._db.read() as tx:
            # one that is not there could have us store whatever it calls the state of the room
            is_there = origin in state.joined(tx, event.room_id).servers
            servers = room_requests.servers_of(tx, event.room_id, [origin] if is_there else [])
            ends = state.head(tx, event.room_id).forward_extremities[-MAX_EARLIEST:]
        requests = RoomRequests(
            self._client,
            event.room_id,
            servers[: room_requests.MAX_SERVERS],
            MAX_REQUESTS,
            time.monotonic() + MAX_SECONDS,
        )
        job = _Job(
            self._db, self._keys, self._client, self._locks, self._resolver, requests, origin, event
        )
        with self._db.server.metrics.gaps.timed():
            if still_lacking.prev_events:
                job.fetch_previous(ends)
            return job.supply(event)

    def _wait(
        self, origin: str, event: Event, lacking: MissingEventsError
    ) -> MissingEventsError | None:
        """Wait while another transaction of the server is under way; return what it left out."""
        until = time.monotonic() + WAIT_SECONDS
        found: MissingEventsError | None = lacking
        while time.monotonic() < until and self._transactions.is_under_way(origin):
            time.sleep(LOOK_SECONDS)
            with self._db.read() as tx:
                found = receiving.missing(tx, event)
            if found is None:
                break
        return found


class _Job:
    """What is fetched for one event, by a limited number of requests."""

    def __init__(
        self,
        db: Database,
        keys: ServerKeys,
        client: FederationClient,
        locks: Locks,
        resolver: Resolver,
        requests: RoomRequests,
        origin: str,
        event: Event,
    ) -> None:
        self._db = db
        self._keys = keys
        self._client = client
        self._locks = locks
        self._resolver = resolver
        self._requests = requests
        self._origin = origin
        self._event = event
        self._room_id = event.room_id
        self._version = event.version
        self._states_left = MAX_STATES
        self._malformed: set[str] = set()
        """Predecessors that came, but are not events."""

    def fetch_previous(self, ends: list[str]) -> None:
        """Fetch the events between the ends of the room's graph and the event, and store them."""
        found: dict[str, Received] = {}
        rounds = MAX_ROUNDS
        latest = [self._event.event_id]
        for server in dict.fromkeys([self._origin, *self._requests.servers]):
            while rounds and latest:
                rounds -= 1
                new, is_all = self._round(server, latest, ends, found)
                found |= new
                latest = self._lacking_previous(found) if new else latest
                if is_all or not new:
                    break
        received = [found[it.event_id] for it in event_order.oldest_first(_events(found.values()))]
        self._store(received)

    def supply(self, event: Event, spare: int = 0) -> Point | None:
        """Fetch the state before an event and its auth events, as far as they are missing.

        Returns the state if it was. The state comes first, as it mostly brings the auth events.
        `spare`: how many states must be left to be asked for.
        Raises RemoteError, MissingEventsError.
        """
        before = None
        lacking = self._missing(event)
        if lacking is not None and lacking.prev_events:
            if self._states_left <= spare or not self._malformed.isdisjoint(lacking.prev_events):
                raise lacking
            self._states_left -= 1
            before = self._state_before(event)
            lacking = self._missing(event)
        if lacking is not None and lacking.auth_events:
            self._fetch_auth_events(event, lacking.auth_events)
            lacking = self._missing(event)
            if lacking is not None and lacking.auth_events:
                raise lacking
        return before

    def _missing(self, event: Event) -> MissingEventsError | None:
        with self._db.read() as tx:
            return receiving.missing(tx, event)

    def _round(
        self, server: str, latest: list[str], ends: list[str], found: dict[str, Received]
    ) -> tuple[dict[str, Received], bool]:
        """Ask a server for events before some others; return the new ones, and if they are all."""
        body = {
            "latest_events": latest,
            "earliest_events": ends,
            "limit": EVENTS_PER_ROUND,
            "min_depth": 0,
        }
        try:
            response = self._requests.of_server(
                server, "get_missing_events", self._room_id, json=body
            )
        except RemoteError:
            return {}, True
        given = room_requests.pdus_of(response, "events", EVENTS_PER_ROUND)
        received = {it.event.event_id: it for it in self._received(given)}
        wanted = {it for event in _events(found.values()) for it in event.prev_event_ids}
        wanted.update(self._event.prev_event_ids)
        return _reached(received, wanted - found.keys(), found), len(given) < MIN_PER_ROUND

    def _lacking_previous(self, found: dict[str, Received]) -> list[str]:
        """Return the events whose predecessors are neither stored nor found, at most 20."""
        with self._db.read() as tx:
            lacking = []
            for event in (self._event, *_events(found.values())):
                missing = receiving.missing(tx, event)
                if missing is not None and not found.keys() >= set(missing.prev_events):
                    lacking.append(event.event_id)
        return lacking[:EVENTS_PER_ROUND]

    def _store(self, received: Iterable[Received]) -> None:
        """Store events in this order, and leave out those that can't be."""
        left = deque(received)
        while left:
            self._store_some(left)
            event_loop.pause()
            if left:
                lacking = left.popleft()
                try:
                    before = self.supply(lacking.event, spare=1)
                    with self._db.read() as tx:
                        is_useless = receiving.is_useless(tx, self._origin, lacking.event, before)
                    if not is_useless:
                        self._resolver.receive(lacking, before)
                except (RemoteError, MissingEventsError, TooLongError) as problem:
                    LOG.info("left out the event %s: %s", lacking.event.event_id, problem)

    def _store_some(self, left: deque[Received]) -> None:
        """Store and remove the first events, until one lacks something or the write takes long."""
        until = time.monotonic() + SECONDS_PER_WRITE
        taken = []
        try:
            with self._locks.own("room", self._room_id), self._db.write() as tx:
                tx.seconds_to_resolve = SECONDS_PER_WRITE
                while left and time.monotonic() < until:
                    it = left[0]
                    try:
                        is_useless = receiving.is_useless(tx, self._origin, it.event)
                        if not is_useless:
                            receiving.receive(tx, *it)
                            taken.append(it)
                    except MissingEventsError:
                        break
                    left.popleft()
        except TooLongError:  # the write is undone
            for it in taken:
                self._resolver.receive(it)

    def _received(self, given: Iterable[Any]) -> list[Received]:
        """Return the events of this room among what a server sent, if form and signatures hold."""
        found = pdus.receive(self._keys, [(pdu, self._version) for pdu in given])
        if self._version.event_ids != "given":  # else anybody could write it into anything
            refused = [it for it in found if isinstance(it, Refused) and it.event is None]
            self._malformed.update(it.event_id for it in refused if it.event_id is not None)
        in_room = pdus.of_room(found, self._room_id)
        return policy_servers.screen(self._db, self._client, self._room_id, in_room)

    # auth events

    def _fetch_auth_events(self, event: Event, missing: Collection[str]) -> None:
        """Fetch the auth chain of an event, or else single events of it."""
        try:
            response = self._requests.about_room("event_auth", event.event_id)
        except RemoteError as problem:
            LOG.info("no auth chain of %s: %s", event.event_id, problem)
        else:
            chain = room_requests.pdus_of(response, "auth_chain", MAX_AUTH_CHAIN)
            outliers.store(self._db, self._received(self._unknown(chain)))
        left = outliers.missing(self._db, missing, len(missing))
        if left:
            outliers.store(self._db, self._single(left))

    def _single(self, event_ids: Iterable[str]) -> list[Received]:
        """Fetch single events, and leave out those that nobody has."""
        found = []
        for event_id in event_ids:
            try:
                response = self._requests.first("event", event_id)
            except RemoteError as problem:
                LOG.info("the event %s is missing: %s", event_id, problem)
                continue
            received = self._received(room_requests.pdus_of(response, "pdus", 1))
            found += [it for it in received if it.event.event_id == event_id]
        return found

    def _unknown(self, given: list[Any]) -> list[Any]:
        """Return the PDUs that are not stored, as most of an auth chain is."""
        ids = [pdus.event_id_of(pdu, self._version) or "" for pdu in given]
        missing = set(outliers.missing(self._db, ids, len(ids)))
        return [pdu for pdu, event_id in zip(given, ids, strict=True) if event_id in missing]

    # the state before an event

    def _state_before(self, event: Event) -> Point:
        with self._db.read() as tx:
            if partial_rooms.is_partial(tx, self._room_id):  # the whole state is on its way
                raise RemoteError("timeout", "The members of the room are not known yet")
        return self._requests.first_of(lambda server: self._state_of(server, event))

    def _state_of(self, server: str, event: Event) -> Point:
        """Return the state before an event as a server has it, once its events are stored."""
        query = {"event_id": event.event_id}
        response = self._requests.of_server(server, "state_ids", self._room_id, query=query)
        ids = room_requests.ids_of(response, "pdu_ids")
        chain = room_requests.ids_of(response, "auth_chain_ids")
        missing = outliers.missing(self._db, dict.fromkeys([*chain, *ids]), MAX_SINGLE)
        if 0 < len(missing) <= MAX_SINGLE:
            outliers.store(self._db, self._single(missing))
            missing = outliers.missing(self._db, missing, MAX_SINGLE)
        if missing:
            RemoteState(
                self._db, self._client, self._keys, server, self._room_id, self._version
            ).store_whole(event.event_id, MAX_SECONDS)
        with self._db.read() as tx:
            entries = self._entries(tx, ids)
            event_loop.pause()
            return self._point(tx, entries)

    def _entries(self, tx: Reader, event_ids: Iterable[str]) -> dict[StateKey, int]:
        """Return the state that consists of these events, as far as they are stored.

        Raises RemoteError for what is not the state of the room.
        """
        found: dict[StateKey, int] = {}
        for some in batches(event_ids, IDS_AT_ONCE):
            for row in tx.sql.execute(_STATE, {"event_ids": some}):
                key = (row.type, row.state_key)
                if row.room_id != self._room_id or key in found:
                    raise RemoteError("bad_response", "The response is not a state of the room")
                found[key] = row.number
        if room_state.CREATE not in found:
            raise RemoteError("bad_response", "The response is a state without a create event")
        return found

    def _point(self, tx: Reader, entries: dict[StateKey, int]) -> Point:
        """Return a whole state by what it has differently from the current one."""
        present = forks.whole(tx, self._room_id, forks.current(tx))
        overlay: dict[StateKey, int | None] = {
            key: number for key, number in entries.items() if present.get(key) != number
        }
        overlay |= dict.fromkeys(present.keys() - entries.keys())
        return Point(tx.position, overlay)


def _events(received: Iterable[Received]) -> list[Event]:
    return [it.event for it in received]


def _reached(
    received: dict[str, Received], wanted: Collection[str], found: Collection[str]
) -> dict[str, Received]:
    """Return the events that are wanted, and those before them; others were not asked for."""
    reached: dict[str, Received] = {}
    waiting = list(wanted)
    while waiting:
        event_id = waiting.pop()
        if event_id in received and event_id not in reached and event_id not in found:
            reached[event_id] = received[event_id]
            waiting += received[event_id].event.prev_event_ids
    return reached
