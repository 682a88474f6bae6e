"""The database: one writer whose commits are grouped, readers beside it, and the server's clock.

Acknowledged means on the disk. An fsync for every message is slow, so writers share one: the first
opens a transaction, each works inside a SAVEPOINT, and the COMMIT of all of them runs in a thread
as soon as no writer is ready. Nobody is answered before that COMMIT has come back.

Rules for the code inside `with db.write() as tx:` -
- it never waits: no network, no password hash, no body that is still being read;
- what it raises undoes its own SAVEPOINT and nothing else.

The clock is one integer. Every change that a client can see through /sync takes the next one, and a
sync token is such an integer. As there is one writer, positions become visible in their order.
Every COMMIT moves the clock, also one without such a change. So a position names one state of the
database, by which storage/caches.py tells what a reader's snapshot holds.

Lock order: the writer's turn, then a wake-up condition. A waiting /sync holds neither.
"""

from __future__ import annotations

import functools
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Executable

from homebody import errors
from homebody.runtime import event_loop
from homebody.spec.appservices import Services
from homebody.storage import disk_errors, engine, long_reads
from homebody.storage.caches import NEWEST, Cache, CacheKind, Caches
from homebody.storage.statements import Sql

if TYPE_CHECKING:
    from homebody.config.settings import Config
    from homebody.spec.signing import SigningKey

LOG = logging.getLogger(__name__)

LOCKED_FOR_SECONDS = 5.0
"""How long a write waits for another process (the command line) that holds the database."""

MAX_IDLE_READERS = 4
"""Kept for the next who reads. Readers rarely overlap, and each takes up to 8 MiB."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Wake = Callable[[Sequence[Collection[str]]], None]
Deliver = Callable[[str, str], None]
Committed = Callable[[int, float], None]
Departed = Callable[[str, str, Collection[str]], None]
Admit = Callable[["Tx"], None]


@dataclass(frozen=True, slots=True)
class Server:
    """Who this server is: its name, its signing key, its settings, its bridges and bots."""

    name: str
    signing_key: SigningKey
    config: Config
    appservices: Services = field(default_factory=Services)

    def is_local(self, user_id: str) -> bool:
        """Return whether the user has an account on this server."""
        return user_id.partition(":")[2] == self.name


class Reader:
    """A snapshot of the database. What core functions that only read take as `tx`."""

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
            self._position = self.sql.raw.execute(_READ_CLOCK_SQL).fetchone()[0]
        return self._position

    def read_long(self, statement: Executable, values: Mapping[str, object]) -> list[Any]:
        """Return the rows of a statement that takes its time; other requests go on meanwhile.

        Not for a write, in which nothing may wait. Raises as long_reads.fetch does.
        """
        compiled = self.sql.compiled(statement)
        return long_reads.fetch(self.sql.raw, compiled.sql, compiled.bind(values), compiled.rows)

    def breathing(self, items: Iterable[V], every: int) -> Iterator[V]:
        """Yield the items, and let other requests go on after each so many of them.

        Not in a write, where nothing may wait.
        """
        for number, item in enumerate(items):
            if number and number % every == 0:
                event_loop.breathe()
            yield item

    @property
    def view(self) -> int:
        """The position by which the caches tell what this snapshot holds."""
        if self._view is None:
            self._view = self.caches.view_at(self.position)
        return self._view

    def cached(self, kind: CacheKind[K, V], key: K) -> V | None:
        """Return what is known to be true in this snapshot, or None: read the database then."""
        view = self._view
        return self.caches.by_kind[kind].get(key, self.view if view is None else view)

    def cached_many(self, kind: CacheKind[K, V], keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """Return the known values by key, and the keys for which the database has to be read."""
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
        """Keep what was just read, if it is still what is true."""
        self.caches.by_kind[kind].offer(key, value, self.view)


class Tx(Reader):
    """One write. Takes part in the next COMMIT, unless it raises."""

    __slots__ = ("_after_commit", "_db", "_first_position", "_since", "_touched", "_woken")

    def __init__(self, db: Database) -> None:
        super().__init__(db.writer, db.server, db.caches)
        self._db = db
        self._touched: list[tuple[Cache[Any, Any], Any]] = []
        self._woken: list[Collection[str]] = []
        self._after_commit: list[Callable[[], None]] = []
        self._first_position = db.last_position
        self._view = NEWEST  # a writer sees everything, also what those before it have done
        self._since = db.caches.committed + 1  # no snapshot lies between this and the next COMMIT

    def breathing(self, items: Iterable[V], every: int) -> Iterator[V]:
        """Yield the items: nothing may wait in a write."""
        yield from items

    @property
    def position(self) -> int:
        """The last position given out, by this write or one before it."""
        return self._db.last_position

    def next_position(self) -> int:
        """The next number of the clock, for a change that /sync shows."""
        self._db.last_position += 1
        return self._db.last_position

    def skip_positions(self, count: int) -> None:
        """Give out no numbers of the next so many: a server that was lost may have."""
        self._db.last_position += count

    def wake(self, *user_ids: str) -> None:
        """Let the waiting requests of these users look again, once this write is on the disk."""
        self._woken.append(user_ids)

    def wake_all(self, *user_ids: Collection[str]) -> None:
        """Wake as `wake` does, by collections of any size, which are not copied."""
        self._woken += user_ids

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do something that is not in the database, once this write is on the disk."""
        self._after_commit.append(action)

    def deliver(self, kind: str, destination: str) -> None:
        """Have the outbox's rows for this destination delivered, once this write is on the disk."""
        self._after_commit.append(functools.partial(self._db.deliver, kind, destination))

    def note_departure(
        self, user_id: str, room_id: str = "", device_ids: Collection[str] = ()
    ) -> None:
        """Have typing end where the user left a room or logged out, once that is on the disk."""
        departure = functools.partial(self._db.departed, user_id, room_id, device_ids)
        self._after_commit.append(departure)

    def remember(self, kind: CacheKind[K, V], key: K, value: V) -> None:
        """Set a cache to what this write makes true. Readers see it after the COMMIT."""
        cache = self.caches.by_kind[kind]
        self._touched.append((cache, key))
        cache.put(key, value, self._since)

    def forget(self, kind: CacheKind[K, V], key: K) -> None:
        """Drop from a cache what this write makes wrong."""
        cache = self.caches.by_kind[kind]
        self._touched.append((cache, key))
        cache.drop(key, self._since)

    def fill(self, kind: CacheKind[K, V], key: K, value: V) -> None:
        """Keep what was just read: a writer's view is always the newest."""
        cache = self.caches.by_kind[kind]
        self._touched.append((cache, key))
        cache.offer(key, value, NEWEST)

    def undo_caches(self) -> None:
        """Drop whatever this write put into caches: it may never become true."""
        for cache, key in self._touched:
            cache.drop(key, self._since)
        self.caches.recent.drop_after(self._first_position)


class Batch:
    """The writes that share a COMMIT."""

    __slots__ = ("_done", "_error", "after_commit", "woken", "writes")

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: Exception | None = None
        self.writes = 0
        self.woken: list[Collection[str]] = []
        self.after_commit: list[Callable[[], None]] = []

    def wait(self) -> None:
        """Return once the COMMIT is on the disk. Raises 503 when it failed."""
        self._done.wait()
        if self._error is not None:
            raise errors.unavailable() from self._error

    def finish(self, error: Exception | None = None) -> None:
        """Let all of the batch go."""
        self._error = error
        self._done.set()


def _ignore(*_args: object) -> None:
    """Stand in for callbacks where no server runs (the command line)."""


_READ_CLOCK_SQL = "SELECT position FROM clock"
_SET_CLOCK_SQL = "UPDATE clock SET position = ?"


class Database:
    """The connections of one process to the database.

    `wake` is called after each COMMIT with the users whom it concerns, as collections.
    """

    def __init__(self, url: str, server: Server, caches: Caches, wake: Wake) -> None:
        self.server = server
        self.caches = caches
        self.last_position = 0
        self.deliver: Deliver = _ignore
        """What background/delivery.py wants to be told: (kind, destination) of new rows."""
        self.committed: Committed = _ignore
        """What metrics.py wants to be told of each COMMIT: how many writes, how many seconds."""
        self.departed: Departed = _ignore
        """Set by core/ephemeral/lifetimes.py: (user_id, room_id left, ids of sessions that ended).

        Without a user: another process has written, and anybody may have departed.
        """
        self.admit: Admit = _ignore
        """Called first in each write: raises when the request may not write any more."""
        self._wake = wake
        self._engine = engine.make_engine(url)
        self.writer = Sql(self._engine.connect())
        self._raw = self.writer.raw
        self._turn = event_loop.Turn()
        self._batch: Batch | None = None
        self._to_commit: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._committer: threading.Thread | None = None
        self._commit_lane = event_loop.Lane()
        self._idle_readers: list[Sql] = []
        self._data_version = -1
        self._have_others_written = False
        """Another process has committed, and notice_other_writers() has not reported it yet."""
        self._see_what_others_wrote()

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """A snapshot of what is committed now; it does not change while it is held."""
        sql = self._idle_readers.pop() if self._idle_readers else Sql(self._engine.connect())
        sql.raw.execute("BEGIN")
        try:
            yield Reader(sql, self.server, self.caches)
        finally:
            if sql.raw.in_transaction:  # else an error of the disk has ended it
                sql.raw.execute("ROLLBACK")
            if len(self._idle_readers) < MAX_IDLE_READERS:
                self._idle_readers.append(sql)
            else:
                sql.connection.close()

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A write that is on the disk when the block has been left without an exception.

        Raises 503 M_UNKNOWN when the database is locked or its disk is full: nothing is changed.
        """
        until = time.monotonic() + LOCKED_FOR_SECONDS  # also of those who queue behind others
        self._turn.take()
        try:
            batch = self._open_batch(until)
            tx = Tx(self)
            self._raw.execute("SAVEPOINT write")
            try:
                self.admit(tx)
                yield tx
                self._raw.execute("RELEASE write")
            except BaseException as error:
                self._undo(tx, batch, error)
                if (answer := disk_errors.answer_to(error)) is not None:
                    raise answer from error
                raise
            batch.writes += 1
            batch.woken += tx._woken  # noqa: SLF001 - the two classes are one mechanism
            batch.after_commit += tx._after_commit  # noqa: SLF001 - as above
        finally:
            self._turn.hand_on()
        batch.wait()

    def cached(self, kind: CacheKind[K, V], key: K) -> V | None:
        """Return what a cache says of the last COMMIT, without a snapshot of the database."""
        return self.caches.by_kind[kind].get(key, self.caches.committed)

    def notice_other_writers(self) -> bool:
        """Return whether another process has written since the last call; then wake everybody.

        The command line does so: `homebody user passwd` has to take effect on a running server.
        On a busy server it is a write that finds out, as it opens its batch: that may not wake
        anybody (its COMMIT may fail, and it has to be quick), so it leaves a note for this method.
        """
        self._turn.take()
        try:
            if self._batch is None:  # else nobody has written since it was opened
                self._see_what_others_wrote()
            has_changed, self._have_others_written = self._have_others_written, False
        finally:
            self._turn.hand_on()
        if has_changed:
            self.departed("", "", ())
            self._wake([EVERYBODY])
        return has_changed

    def close(self) -> None:
        """Finish the last COMMIT and close all connections."""
        if self._committer is not None:
            self._to_commit.put(None)
            self._committer.join()
        self._commit_lane.close()
        for sql in (*self._idle_readers, self.writer):
            sql.connection.close()
        self._engine.dispose()

    def _open_batch(self, until: float) -> Batch:
        """The batch under way, or a new one in a transaction just opened."""
        if self._batch is None:
            self._begin(until)
            try:
                self._see_what_others_wrote()
            except sqlite3.Error as error:
                self._raw.execute("ROLLBACK")  # or nobody could begin any more
                raise disk_errors.answer_to(error) or errors.unavailable() from error
            self._batch = Batch()
            if self._committer is None:
                self._committer = threading.Thread(target=self._commit_batches, daemon=True)
                self._committer.start()
            self._to_commit.put(self._batch)
        return self._batch

    def _begin(self, until: float) -> None:
        while True:
            try:
                self._raw.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise disk_errors.answer_to(error) or errors.unavailable() from error
                time.sleep(0.01)  # cooperative, unlike SQLite's own busy timeout
            else:
                return

    def _undo(self, tx: Tx, batch: Batch, error: BaseException) -> None:
        tx.undo_caches()
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK TO write")
            self._raw.execute("RELEASE write")
            return
        # SQLite gave up the whole transaction (disk full, I/O error): the others of the batch lose
        # their writes as well, and must hear of it.
        LOG.error("the database undid a whole batch: %s", getattr(error, "orig", None) or error)
        self._batch = None
        self.caches.clear(self.last_position)
        batch.finish(error if isinstance(error, Exception) else RuntimeError(str(error)))

    def _commit_batches(self) -> None:
        """Run by one thread (or greenlet): commit each batch as soon as no writer is ready."""
        while (batch := self._to_commit.get()) is not None:
            self._turn.take()  # queues behind the writers that are ready now
            try:
                if self._batch is not batch:
                    continue  # undone as a whole
                self._batch = None
                began = time.monotonic()
                error = self._commit()
                self.committed(batch.writes, time.monotonic() - began)
            finally:
                self._turn.hand_on()
            batch.finish(error)
            if error is None:
                self._follow(batch)

    def _follow(self, batch: Batch) -> None:
        """Do what comes after a COMMIT. No fault of it may end the greenlet that commits."""
        actions: list[Callable[[], None]]
        actions = [*batch.after_commit, functools.partial(self._wake, batch.woken)]
        for action in actions:
            try:
                action()
            except Exception:
                LOG.exception("what follows a write has failed")

    def _commit(self) -> Exception | None:
        if self.last_position == self.caches.committed:
            self.last_position += 1  # a position names one state of the database
        self.caches.committing = self.caches.recent.upto = self.last_position
        try:
            self._raw.execute(_SET_CLOCK_SQL, (self.last_position,))
            self._commit_lane.offload(self._raw.execute, "COMMIT")
        except sqlite3.Error as error:
            LOG.error("COMMIT failed: %s", error)  # noqa: TRY400 - the sentence says it all
            self._give_up()
            return error
        else:
            self.caches.committed = self.last_position
        finally:
            self.caches.committing = None
        return None

    def _give_up(self) -> None:
        """After a failed COMMIT: nothing of the batch has happened."""
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")
        self.caches.clear(self.last_position)

    def _see_what_others_wrote(self) -> None:
        """Empty the caches if another process has committed since the last look."""
        (version,) = self._raw.execute("PRAGMA data_version").fetchone()
        if version == self._data_version:
            return
        row = self._raw.execute(_READ_CLOCK_SQL).fetchone()
        self.last_position = max(self.last_position, row[0])
        self.caches.committed = row[0]
        self.caches.clear(self.last_position)
        self._have_others_written = self._data_version != -1  # the first look is at the start
        self._data_version = version  # last: if reading fails, the next look begins anew


EVERYBODY: Collection[str] = frozenset({"*"})
"""Passed to `wake` when every waiting request has to look again."""
