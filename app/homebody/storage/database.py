"""The database: transactions that read or write, and the server's clock.

A read has a snapshot of its own. Writes run one at a time, and share a COMMIT (writer.py).
Rules for the code inside `with db.write() as tx:` -
- it never waits: no network, no password hash, no body that is still being read;
- an exception undoes its own SAVEPOINT and nothing else.

The clock is one integer. Every change that a client can see through /sync takes the next one, and a
sync token is such an integer. Before each event many are left free: there stand older events of its
room that other servers send later. Only these positions may be used in several rooms. As there is
one writer, positions become visible in order. Every COMMIT moves the clock, so a position
identifies one state of the database, from which caches.py derives what a snapshot contains.

Lock order: the writer's turn, then a wake-up condition. A waiting /sync holds neither.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from homebody.models.base import EventNumber
from homebody.runtime import event_loop, times
from homebody.runtime.metrics import Metrics
from homebody.spec.appservices import Services
from homebody.spec.events import Json
from homebody.storage import disk_errors, engine
from homebody.storage.caches import NEWEST, Cache, CacheKind, Caches
from homebody.storage.statements import Sql
from homebody.storage.writer import READ_CLOCK_SQL, Wake, Writer, ignore

if TYPE_CHECKING:
    from homebody.config.settings import Config
    from homebody.spec.signing import SigningKey

LOCKED_FOR_SECONDS = 5.0
"""How long a write waits for another process (the command line) that has locked the database."""

PLACES: Final = 2**12 - 1
"""Positions that are left free before each event."""
PLACES_OF_GAP: Final = 2**20 - 1
"""The same before an event after a gap: its room has older events that this server lacks."""

MAX_IDLE_READERS = 4
"""Connections kept open. Readers rarely overlap, and each connection takes up to 8 MiB."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Deliver = Callable[[str, str], None]
Federate = Callable[[int, str, bytes, Collection[str]], None]
SendEdu = Callable[[Collection[str], str, Hashable, Json], None]
Departed = Callable[[str, str, Collection[str]], None]
Met = Callable[[str, str], None]
Admit = Callable[["Tx"], None]


@dataclass(slots=True, eq=False)
class Server:
    """The server's name, signing key, settings, application services, and what it counts."""

    name: str
    signing_key: SigningKey
    config: Config
    """Replaced when the settings are reloaded, except what needs a restart; see reload.py."""
    appservices: Services = field(default_factory=Services)
    metrics: Metrics = field(default_factory=Metrics)

    def is_local(self, user_id: str) -> bool:
        """Return whether the user has an account on this server."""
        return user_id.partition(":")[2] == self.name


class Reader:
    """A snapshot of the database: the `tx` of core functions that only read."""

    __slots__ = ("_position", "_view", "caches", "now_ms", "server", "sql")

    def __init__(self, sql: Sql, server: Server, caches: Caches) -> None:
        self.sql = sql
        self.server = server
        self.caches = caches
        self.now_ms = time.time_ns() // 1_000_000
        self._position: int | None = None
        self._view: int | None = None

    @property
    def position(self) -> int:
        """The position of the last change in this snapshot."""
        if self._position is None:
            self._position = self.sql.raw.execute(READ_CLOCK_SQL).fetchone()[0]
        return self._position

    def pausing(self, items: Iterable[V], every: int) -> Iterator[V]:
        """Yield the items, and let other requests run after every so many of them."""
        for number, item in enumerate(items):
            if number and number % every == 0:
                event_loop.pause()
            yield item

    @property
    def view(self) -> int:
        """The position by which caches are read: `position`, or that no cache applies."""
        if self._view is None:
            self._view = self.caches.view_at(self.position)
        return self._view

    def cached(self, kind: CacheKind[K, V], key: K) -> V | None:
        """Return a cached value that is valid in this snapshot, or None."""
        view = self._view
        return self.caches.by_kind[kind].get(key, self.view if view is None else view)

    def cached_many(self, kind: CacheKind[K, V], keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """Return the cached values by key, and the keys without one."""
        view = self._view if self._view is not None else self.view
        cache = self.caches.by_kind[kind]
        found: dict[K, V] = {}
        missing: list[K] = []
        for key in keys:
            value = cache.get(key, view)
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        return found, missing

    def fill(self, kind: CacheKind[K, V], key: K, value: V) -> None:
        """Cache a value that was just read, unless it may be outdated."""
        self.caches.by_kind[kind].offer(key, value, self.view)


class Tx(Reader):
    """One write. It takes part in the next COMMIT unless it raises."""

    __slots__ = (
        "_db",
        "_first_position",
        "_since",
        "_touched",
        "_writer",
        "actions",
        "approved",
        "seconds_to_resolve",
        "wait_for_commit",
        "woken",
    )

    def __init__(self, db: Database) -> None:
        super().__init__(db.writer.sql, db.server, db.caches)
        self._db = db
        self._writer = db.writer
        self._touched: list[tuple[Cache[Any, Any], Any]] = []
        self.woken: list[Collection[str]] = []
        self.actions: list[Callable[[], None]] = []
        self.approved: Mapping[Any, Any] = {}
        """Events that policy servers have signed; see core/timeline/policies.py."""
        self.seconds_to_resolve = math.inf
        """For which state resolution may work; see core/timeline/limits.py."""
        self.wait_for_commit: Callable[[], None] = ignore
        """Waits until the write is on the disk; set when its block is left."""
        self._first_position = db.writer.last_position
        self._view = NEWEST  # a writer also sees what others of its batch wrote
        self._since = db.caches.committed + 1  # no snapshot lies between this and the next COMMIT

    def pausing(self, items: Iterable[V], every: int) -> Iterator[V]:
        """Yield the items without pausing: nothing may wait in a write."""
        yield from items

    @property
    def position(self) -> int:
        """The last position that was assigned, by this write or an earlier one."""
        return self._writer.last_position

    def next_position(self) -> int:
        """Return the next position of the clock, for a change that /sync shows."""
        self._writer.last_position += 1
        return self._writer.last_position

    def next_event(self, places: int = PLACES) -> tuple[EventNumber, int]:
        """Return the number and the position of a new event of a timeline.

        As many places are left free before it, for older events of the room that come later.
        """
        self._writer.last_event_number += 1
        self._writer.last_position += places + 1
        return EventNumber(self._writer.last_event_number), self._writer.last_position

    def next_event_number(self) -> EventNumber:
        """Return the number of a new event without position. No number is given twice."""
        self._writer.last_event_number += 1
        return EventNumber(self._writer.last_event_number)

    def skip_positions(self, count: int) -> None:
        """Skip positions that a lost server may have assigned after its last backup."""
        self._writer.last_position += count

    def wake(self, *user_ids: str) -> None:
        """Wake the waiting requests of these users, or rooms, after the COMMIT."""
        self.woken.append(user_ids)

    def wake_all(self, *user_ids: Collection[str]) -> None:
        """Wake users given as collections of any size, which are not copied."""
        self.woken += user_ids

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call a function after the COMMIT."""
        self.actions.append(action)

    def deliver(self, kind: str, destination: str) -> None:
        """Have the outbox's rows for this destination delivered after the COMMIT."""
        self.actions.append(functools.partial(self._db.deliver, kind, destination))

    def federate(self, position: int, room_id: str, pdu: bytes, servers: Collection[str]) -> None:
        """Send an event of the log to these servers after the COMMIT."""
        self.actions.append(functools.partial(self._db.federate, position, room_id, pdu, servers))

    def send_edu(
        self, servers: Collection[str], edu_type: str, key: Hashable, content: Json
    ) -> None:
        """Send an EDU to servers after the COMMIT, unless they fail.

        It replaces one with the same type and key that has not been sent yet. EDUs that must not be
        lost are sent by core/outgoing.py.
        """
        action = functools.partial(self._db.send_edu, servers, edu_type, key, content)
        self.actions.append(action)

    def note_departure(
        self, user_id: str, room_id: str = "", device_ids: Collection[str] = ()
    ) -> None:
        """End the user's typing after the COMMIT of a leave or a logout."""
        departure = functools.partial(self._db.departed, user_id, room_id, device_ids)
        self.actions.append(departure)

    def note_meeting(self, user_id: str, room_id: str) -> None:
        """Send presence to servers that share this room since a user's join, after the COMMIT."""
        self.actions.append(functools.partial(self._db.met, user_id, room_id))

    def remember(self, kind: CacheKind[K, V], key: K, value: V) -> None:
        """Cache a value that this write makes valid. Readers see it after the COMMIT."""
        cache = self.caches.by_kind[kind]
        self._touched.append((cache, key))
        cache.put(key, value, self._since)

    def forget(self, kind: CacheKind[K, V], key: K) -> None:
        """Drop a cached value that this write makes invalid."""
        cache = self.caches.by_kind[kind]
        self._touched.append((cache, key))
        cache.drop(key, self._since)

    def fill(self, kind: CacheKind[K, V], key: K, value: V) -> None:
        """Cache a value that was just read: a writer's view is always the newest."""
        cache = self.caches.by_kind[kind]
        self._touched.append((cache, key))
        cache.offer(key, value, NEWEST)

    def undo_caches(self) -> None:
        """Drop what this write put into caches, as it is undone."""
        for cache, key in self._touched:
            cache.drop(key, self._since)
        self.caches.recent.drop_after(self._first_position)


class Database:
    """The connections of one process to the database."""

    def __init__(self, url: str, server: Server, caches: Caches, wake: Wake) -> None:
        """Take `wake`, which is called after each COMMIT with collections of users to wake."""
        self.server = server
        self.caches = caches
        self.deliver: Deliver = ignore
        """Set by background/delivery.py: called with (kind, destination) of new outbox rows."""
        self.federate: Federate = ignore
        """Set by background/federation/sender.py: called with (position, room_id, PDU, servers) of
        new events in the log."""
        self.send_edu: SendEdu = ignore
        """Set by the same: called with (servers, type, key, content); see Tx.send_edu."""
        self.departed: Departed = ignore
        """Set by core/ephemeral/lifetimes.py: called with (user_id, room_id left, ids of devices
        logged out), or an empty user_id when another process has written."""
        self.met: Met = ignore
        """Set by core/ephemeral/remote_presence.py: called with (user_id, room_id) when a server
        begins to share a room by this user's join."""
        self.admit: Admit = ignore
        """Set by create_app: called first in each write; raises if the request's session ended."""
        self._engine = engine.make_engine(url)
        self.writer = Writer(Sql(self._engine.connect()), caches, wake)
        self._idle_readers: list[Sql] = []

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Open a snapshot of what is committed now, which does not change while it is open."""
        sql = self._idle_readers.pop() if self._idle_readers else Sql(self._engine.connect())
        began = sql.seconds
        sql.raw.execute("BEGIN")
        try:
            yield Reader(sql, self.server, self.caches)
        finally:
            seconds = sql.seconds - began
            times.CURRENT.get().read += seconds
            self.server.metrics.read_seconds += seconds
            if sql.raw.in_transaction:  # else an error of the disk has ended it
                sql.raw.execute("ROLLBACK")
            if len(self._idle_readers) < MAX_IDLE_READERS:
                self._idle_readers.append(sql)
            else:
                sql.connection.close()

    @contextmanager
    def write(self, *, is_awaited: bool = True) -> Iterator[Tx]:
        """Open a write, which is on the disk when the block is left without an exception.

        With `is_awaited=False` it is on the disk when `tx.wait_for_commit` returns: one that makes
        several writes can wait for all of them at the end.
        Raises 503 M_UNKNOWN if the database is locked or its disk is full: nothing is changed.
        """
        began, held_since = time.monotonic(), 0.0
        self.writer.turn.acquire()
        try:
            # LOCKED_FOR_SECONDS include waiting for other writers
            batch = self.writer.open_batch(began + LOCKED_FOR_SECONDS)
            held_since = time.monotonic()
            tx = Tx(self)
            self.writer.raw.execute("SAVEPOINT write")
            try:
                self.admit(tx)
                yield tx
                self.writer.raw.execute("RELEASE write")
            except BaseException as error:
                tx.undo_caches()
                self.writer.undo(batch, error)
                if (answer := disk_errors.answer_to(error)) is not None:
                    raise answer from error
                raise
            batch.writes += 1
            batch.woken += tx.woken
            batch.after_commit += tx.actions
        finally:
            self.writer.turn.release()
            ended, used = time.monotonic(), times.CURRENT.get()
            waited = (held_since or ended) - began
            used.turn += waited
            used.write += ended - began - waited
            self.server.metrics.write_turns.observe(waited)
            self.server.metrics.writing.observe(ended - began - waited)
        tx.wait_for_commit = batch.wait
        if is_awaited:
            batch.wait()

    def cached(self, kind: CacheKind[K, V], key: K) -> V | None:
        """Return a cached value that is valid as of the last COMMIT, or None."""
        return self.caches.by_kind[kind].get(key, self.caches.committed)

    def notice_other_writers(self) -> bool:
        """Return whether another process has written since the last call; if so, wake everybody.

        The command line does: `homebody user passwd` has to take effect on a running server.
        """
        has_changed = self.writer.have_others_written()
        if has_changed:
            self.departed("", "", ())
            self.writer.wake([EVERYBODY])
        return has_changed

    def close(self) -> None:
        """Finish the last COMMIT and close the connections that are not in use. Writes fail now."""
        self.writer.close()
        while self._idle_readers:
            self._idle_readers.pop().connection.close()
        self._engine.dispose()


EVERYBODY: Collection[str] = frozenset({"*"})
"""Passed to `wake` to wake every waiting request."""
