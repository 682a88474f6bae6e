"""The members of partial rooms, fetched in the background after a user has joined.

    state        before the join, of the servers in turn; its events are stored, as outliers
    members      they are added to the state, in many writes
    recheck      what has come meanwhile is checked by the full state
    correction   what was rejected too early is stored, and in the state of what follows it
    full         the room is a partial one no more: in one write, with what a last check has refused

If no server responds, all are asked again, until one does or the last user has left. A process that
starts goes on where another one has ended.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from typing import Final

from homebody.core import incoming, partial_rooms
from homebody.core.events import state
from homebody.core.federation import room_requests
from homebody.core.federation.bulk import Checked
from homebody.core.federation.inbound import Inbound
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received
from homebody.core.federation.remote_states import Entries, RemoteState
from homebody.core.joining import Join
from homebody.core.partial_rooms import PartialRoom
from homebody.core.timeline import partial_state, rechecks
from homebody.core.timeline.rechecks import Correction, Recheck
from homebody.models.events import ACCEPTED, REJECTED
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.runtime.locks import Locks
from homebody.spec import events, identifiers, room_state
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Database, Reader, Server
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 5.0
MAX_WAIT_S: Final = 600.0
"""Between two rounds through all servers."""
MAX_SERVERS: Final = 50
"""That are asked in one round."""
MEMBERS_PER_WRITE: Final = 250
"""Other writers wait for some 5 ms."""
SECONDS_PER_READ: Final = 0.003
SECONDS_PER_WRITE: Final = 0.02
MAX_SERVERS_IN_ROOM: Final = 10_000
MAX_REJECTED: Final = 1000
"""Events that are tried again when all members are known."""


class PartialJoins:
    """Makes partial rooms full. Its methods return at once; the work is done in greenlets."""

    def __init__(
        self,
        db: Database,
        client: FederationClient,
        keys: ServerKeys,
        locks: Locks,
        inbound: Inbound,
    ) -> None:
        self._db = db
        self._client = client
        self._keys = keys
        self._locks = locks
        self._inbound = inbound
        self._mutex = threading.Lock()
        self._working: set[str] = set()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Go on with the rooms that an earlier process has left partial."""
        with self._db.read() as tx:
            rooms = list(partial_rooms.rooms(tx))
        for room_id in rooms:
            self.begin(room_id)

    def stop(self) -> None:
        """Stop waiting for another try."""
        self._stopping.set()

    def begin(self, room_id: str) -> None:
        """Fetch the members of a partial room, unless that is being done."""
        with self._mutex:
            if room_id in self._working:
                return
            self._working.add(room_id)
        event_loop.spawn(self._work, room_id)

    def _work(self, room_id: str) -> None:
        """Ask the servers of a room until its members are known. Run by a greenlet of its own."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                self._ask_all(room_id)
            except Exception:
                LOG.exception("The members of %s could not be fetched", room_id)
            with self._mutex, self._db.read() as tx:
                if not partial_rooms.is_partial(tx, room_id):
                    self._working.remove(room_id)
                    return
            if self._stopping.wait(wait_s):
                with self._mutex:
                    self._working.remove(room_id)
                return
            wait_s = min(2 * wait_s, MAX_WAIT_S)

    def is_idle(self) -> bool:
        """Return whether nothing is being done, after `stop` or when all rooms are full."""
        return not self._working

    def _ask_all(self, room_id: str) -> None:
        """Ask one server after the other for the members, until one has them."""
        with self._db.read() as tx:
            room = partial_rooms.find(tx, room_id)
            if room is None:
                return
            servers = dict.fromkeys([*room.servers, *room_requests.servers_of(tx, room_id)])
        for server in sorted(list(servers)[:MAX_SERVERS], key=self._client.is_failing):
            if self._stopping.is_set() or not self._is_wanted(room):
                return
            try:
                self._ask(server, room)
            except RemoteError as problem:
                LOG.info("no members of %s from %s: %s", room_id, server, problem)
            except Exception:  # maybe of its response
                LOG.exception("the members of %s from %s could not be taken in", room_id, server)
            else:
                return

    def _is_wanted(self, room: PartialRoom) -> bool:
        with self._db.read() as tx:
            return partial_rooms.find(tx, room.room_id) == room

    def _ask(self, server: str, room: PartialRoom) -> None:
        """Make a room full by the state that a server has before the join. Raises RemoteError."""
        with self._db.read() as tx:
            version = state.version(tx, room.room_id)
            join = state.find_any(tx, room.event_id)
        if join is None:  # the room is being purged
            return
        asked = RemoteState(self._db, self._client, self._keys, server, room.room_id, version)
        self._complete(server, room, asked.before_join(join.event))

    def _complete(self, server: str, room: PartialRoom, entries: Entries) -> None:
        """Add the members, check again what has come meanwhile, and make the room full."""
        with self._db.read() as tx:
            at = partial_state.joined_at(tx, room)
            _check(tx, server, room, entries)
            members = _members(tx, room, entries)
        if at is None:  # the room is being purged
            return
        for some in batches(members.items(), MEMBERS_PER_WRITE):
            with self._locks.own("room", room.room_id), self._db.write(is_awaited=False) as writing:
                if partial_rooms.find(writing, room.room_id) != room:
                    return
                partial_state.learn(writing, room.room_id, at, dict(some))
            event_loop.pause()
        with self._locks.own("room", room.room_id), self._db.write() as writing:
            partial_state.unlearn_others(writing, room.room_id, at, members)
        # what was rejected is to be in the state of what follows it before anybody reads that
        self._store_again(room.room_id, self._recheck(room, at, is_last=False))
        self._store_again(room.room_id, self._recheck(room, at, is_last=True))
        self._inbound.queues.begin(room.room_id)

    def _recheck(self, room: PartialRoom, at: int, *, is_last: bool) -> list[Received]:
        """Check again what has come since the join at a position.

        `is_last`: make the room full in the same write.
        Returns the events that were rejected as less was known.
        """
        recheck = Recheck(room.room_id, at)
        while True:
            with self._db.read() as tx:
                if not recheck.go_on(tx, SECONDS_PER_READ):
                    break
            event_loop.pause()
        with self._locks.own("room", room.room_id), self._db.write() as writing:
            join = state.find_any(writing, room.event_id)
            if join is None or partial_rooms.find(writing, room.room_id) != room:
                return []
            recheck.go_on(writing, math.inf)
            rejected = rechecks.rejected_since(writing, room.room_id, join.number, MAX_REJECTED)
            position = writing.next_position()
            recheck.apply(writing, position)
            if is_last:
                partial_state.make_full(writing, room.room_id, position)
                incoming.try_now(writing, room.room_id)
                LOG.info("all members of %s are known", room.room_id)
        return [Received(it, events.encode(it.pdu, it.version)) for it in rejected]

    def _store_again(self, room_id: str, rejected: Sequence[Received]) -> None:
        """Store events that were rejected too early, and correct the state of what follows them."""
        standings = self._inbound.store(room_id, rejected)
        accepted = [it.event for it in rejected if standings.get(it.event.event_id) == ACCEPTED]
        late = [it.event_id for it in accepted if it.state_key is not None]
        if not late:
            return
        with self._db.read() as tx:
            numbers = {it: known.number for it, known in state.find_many(tx, late).items()}
        correction, has_more = Correction(room_id, numbers), True
        while has_more:
            with self._locks.own("room", room_id), self._db.write(is_awaited=False) as writing:
                has_more = correction.go_on(writing, SECONDS_PER_WRITE)
            event_loop.pause()
        with self._locks.own("room", room_id), self._db.write() as writing:
            correction.finish(writing)


def begun(server: Server, asked: str, join: Join, checked: Checked) -> PartialRoom | None:
    """Return the partial room that a response to a join makes; None if it has the members.

    `asked` is the server that has responded.
    """
    if not checked.head["members_omitted"]:
        return None
    given = [it for it in checked.head["servers_in_room"] if identifiers.is_server_name(it)]
    present = frozenset(given[:MAX_SERVERS_IN_ROOM]) | {asked}
    servers = dict.fromkeys([asked, *join.servers])
    return PartialRoom(join.room_id, join.event_id, present - {server.name}, list(servers))


def cited_members(tx: Reader, join: Event) -> dict[StateKey, tuple[int, str | None]]:
    """Return the members that a join cites, as a response may leave them out."""
    found: dict[StateKey, tuple[int, str | None]] = {}
    for number, _, standing, event in state.find_many(tx, join.auth_event_ids).values():
        user_id = event.state_key or ""
        if event.type == state.MEMBER and standing != REJECTED:
            found[state.MEMBER, user_id] = (number, event.content.get("membership"))
    return found


def _check(tx: Reader, server: str, room: PartialRoom, entries: Entries) -> None:
    """Raise RemoteError unless a response is a state of the room."""
    create = state.entries(tx, room.room_id, [room_state.CREATE])[room_state.CREATE]
    found = entries.get(room_state.CREATE)
    if found is None or found[0] != create.number:
        sentence = f"The response of {server} is not a state of {room.room_id}"
        raise RemoteError("bad_response", sentence)


def _members(tx: Reader, room: PartialRoom, given: Entries) -> dict[str, tuple[int, str | None]]:
    """Return the members in a response. Of local users, only those of whom nothing is known yet.

    One of them can't have joined without this server.
    """
    found = {key[1]: it for key, it in given.items() if key[0] == state.MEMBER}
    own = [(state.MEMBER, user_id) for user_id in found if tx.server.is_local(user_id)]
    for key, entry in state.entries(tx, room.room_id, own).items():
        if entry.is_there or found[key[1]][1] == "join":
            del found[key[1]]
    return found
