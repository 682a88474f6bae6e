"""The state of a room as another server knows it, by which a partial room becomes full.

    state_ids    names the events of the state, and of its auth chain
    event        gives single ones, where few are missing, as when an earlier try came far
    state        gives all of them, where many are: a process of its own checks them (bulk.py)

Spec: server-server-api#get_matrixfederationv1state_idsroomid,
server-server-api#get_matrixfederationv1stateroomid
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from homebody.core.events import state
from homebody.core.federation import bulk, outliers, pdus, room_requests
from homebody.core.federation.bulk import Checked
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received
from homebody.core.timeline import forks
from homebody.models.events import OUT_OF_BAND, REJECTED
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.runtime import event_loop
from homebody.spec import event_auth, room_state
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_versions import RoomVersion
from homebody.storage import scratch
from homebody.storage.database import Database, Reader
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

STATE_SECONDS: Final = 120.0
"""For a response of which the server has to collect thousands of events."""
EVENT_SECONDS: Final = 20.0
MAX_STATE_BYTES: Final = 256 * 2**20
MAX_IDS_BYTES: Final = 5 * 2**20
"""100,000 ids, which are decoded within 40 ms. Where there are more, most are missing anyway."""
MAX_EVENT_BYTES: Final = 2**20
MAX_SINGLE: Final = 20
"""Events that are asked for one by one, if they are less than a tenth of all."""
EVENTS_PER_READ: Final = 200
NOT_KNOWN: Final = frozenset({None, 400, 403, 404})
"""Statuses of a bad response of a server that may know the state before another event."""
CHECKS: Final = threading.BoundedSemaphore(2)
"""Each check of a whole state takes a core for seconds, and memory for all events. Not of joins,
for which users wait."""

Entries = dict[StateKey, tuple[int, str | None]]
"""{key: (number of the event, membership)}"""


class RemoteState:
    """What one server is asked of the state of a room. Its methods wait; they raise RemoteError."""

    def __init__(
        self,
        db: Database,
        client: FederationClient,
        keys: ServerKeys,
        server: str,
        room_id: str,
        version: RoomVersion,
    ) -> None:
        self._db = db
        self._client = client
        self._keys = keys
        self._server = server
        self._room_id = room_id
        self._version = version

    def before_join(self, join: Event) -> Entries:
        """Return the state before a join by which this server has come into the room.

        The join may not have reached a server that has let nobody in, but what it follows has, so
        that is asked about first.
        """
        if len(join.prev_event_ids) == 1:
            try:
                return self._after(join.prev_event_ids[0])
            except RemoteError as problem:
                if problem.kind != "bad_response" or problem.status not in NOT_KNOWN:
                    raise
                LOG.info("no state of %s after the last event: %s", self._room_id, problem)
        return self._before(join.event_id)

    def _after(self, event_id: str) -> Entries:
        """Return the state after an event, which is that before it unless it changes that."""
        entries = self._before(event_id)
        with self._db.read() as tx:
            known = state.find_any(tx, event_id)
        if known is None or known.standing == OUT_OF_BAND:
            received = self._single([event_id])
            if not received:
                raise RemoteError("bad_response", f"{self._server} does not send {event_id}")
            if received[0].event.state_key is None:
                return entries
            outliers.store(self._db, received)
        with self._db.read() as tx:
            return entries | self._change(tx, event_id, entries)

    def _change(self, tx: Reader, event_id: str, before: Entries) -> Entries:
        """Return what a stored event changes in the state before it."""
        known = state.find_any(tx, event_id)
        if known is None:
            raise RemoteError("bad_response", f"The auth events of {event_id} are missing")
        number, _, standing, event = known
        if event.state_key is None or standing == REJECTED:
            return {}
        keys = event_auth.auth_types(
            event.version, event.type, event.state_key, event.sender, event.content
        )
        # events of newer room versions don't cite the create event, but their check needs it
        needed = {key: before[key][0] for key in {room_state.CREATE, *keys} if key in before}
        found = forks.numbered(tx, self._room_id, needed)
        try:
            event_auth.check(event, {key: it[1] for key, it in found.items() if it is not None})
        except AuthError as problem:
            LOG.info("%s does not change the state: %s", event_id, problem)
            return {}
        return {(event.type, event.state_key): (number, _membership(event))}

    def _before(self, event_id: str) -> Entries:
        """Return the state before an event."""
        try:
            response = self._ask("state_ids", self._room_id, query={"event_id": event_id})
        except RemoteError as problem:
            if problem.kind == "too_large":
                return self._whole(event_id)
            raise
        ids = room_requests.ids_of(response, "pdu_ids")
        chain = room_requests.ids_of(response, "auth_chain_ids")
        few = min(MAX_SINGLE, (len(ids) + len(chain)) // 10)
        missing = outliers.missing(self._db, dict.fromkeys([*chain, *ids]), few)
        if 0 < len(missing) <= few:
            outliers.store(self._db, self._single(missing))
            missing = outliers.missing(self._db, missing, few)
        entries = self._whole(event_id) if missing else self._entries(ids)
        if room_state.CREATE not in entries:
            raise RemoteError("bad_response", "The response is a state without a create event")
        return entries

    def _whole(self, event_id: str) -> Entries:
        """Return the state before an event, once all of its events are stored."""
        checked = self.store_whole(event_id, STATE_SECONDS)
        return {key: (it.number, it.membership) for key, it in checked.state.items()}

    def store_whole(self, event_id: str, seconds: float) -> Checked:
        """Fetch the state before an event with its auth chain, and store all as outliers."""
        with scratch.file(self._db.server.config.data_dir) as file:
            self._client.download(
                self._server,
                path_of("state", self._room_id),
                file,
                query={"event_id": event_id},
                timeout_s=seconds,
                max_bytes=MAX_STATE_BYTES,
            )
            file.flush()
            with CHECKS:
                return bulk.store_outliers(
                    self._db, self._keys, self._room_id, self._version.name, Path(file.name)
                )

    def _entries(self, event_ids: Iterable[str]) -> Entries:
        """Return the state that consists of these events, without rejected ones."""
        entries: Entries = {}
        for some in batches(event_ids, EVENTS_PER_READ):
            with self._db.read() as tx:
                for number, _, standing, event in state.find_many(tx, some).values():
                    key = (event.type, event.state_key or "")
                    if event.room_id != self._room_id or event.state_key is None or key in entries:
                        raise RemoteError("bad_response", "The response is not a state of the room")
                    if standing != REJECTED:
                        entries[key] = (number, _membership(event))
            event_loop.pause()
        return entries

    def _single(self, event_ids: Iterable[str]) -> list[Received]:
        """Fetch single events, and leave out those that the server does not have."""
        found: list[Received] = []
        for event_id in event_ids:
            try:
                response = self._ask("event", event_id)
            except RemoteError as problem:
                LOG.info("no event %s of %s: %s", event_id, self._server, problem)
                if problem.status is None:
                    raise
                continue
            given = room_requests.pdus_of(response, "pdus", 1)
            checked = pdus.receive(self._keys, [(pdu, self._version) for pdu in given])
            in_room = pdus.of_room(checked, self._room_id)
            found += [it for it in in_room if it.event.event_id == event_id]
        return found

    def _ask(self, operation: str, *parts: str, query: dict[str, str] | None = None) -> Json:
        is_single = operation == "event"
        found = self._client.request(
            self._server,
            "GET",
            path_of(operation, *parts),
            query=query,
            timeout_s=EVENT_SECONDS if is_single else STATE_SECONDS,
            max_bytes=MAX_EVENT_BYTES if is_single else MAX_IDS_BYTES,
        )
        if not isinstance(found, dict):
            raise RemoteError("bad_response", f"{self._server} responds without an object")
        return found


def _membership(event: Event) -> str | None:
    return event.content.get("membership") if event.type == state.MEMBER else None
