"""Send events and EDUs to other servers: one transaction at a time to each, in order.

Events come from core/timeline/sent_events.py after their COMMIT, in memory and encoded once for all
servers. The log in the database is read for what memory does not hold: after a restart, after a
failure, or when another process has written.

How far each server has got is written once a second, for all of them together. A crash repeats the
transactions of that second, which servers recognize by their IDs and those of the events.

Spec: server-server-api#transactions
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Collection, Hashable, Sequence
from itertools import islice
from typing import Any, Final

from homebody import outside
from homebody.background.federation import transactions
from homebody.background.federation.destination import Destination
from homebody.background.federation.pool import Pool
from homebody.background.federation.progress import ProgressWriter
from homebody.background.federation.transactions import Entry, ReliableEdu, Transaction
from homebody.core import outgoing
from homebody.core.federation import catch_up
from homebody.core.federation.catch_up import Missing
from homebody.core.outgoing import Progress
from homebody.core.timeline import differences
from homebody.errors import MatrixError
from homebody.outside.federation import FederationClient
from homebody.runtime.metrics import Metrics
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

REQUESTS_AT_ONCE: Final = 50
RETRIES_AT_ONCE: Final = 10
"""To servers that failed, so that those never hold up others."""
_TICK_S: Final = 0.25
_TICKS_PER_SAVE: Final = 4
_TICKS_PER_SWEEP: Final = 4 * 3600
_TICKS_UNTIL_SWEEP: Final = 4 * 60
"""After the start; a server may be restarted more often than once an hour."""
_SECONDS_TO_STOP: Final = 1.0
_BEGINNING: Final = 1
"""A position before all events."""
TIMEOUT_S: Final = 60.0
_REFUSED: Final = {400, 422}
"""Statuses that are about the transaction, and not about the server."""
_SEND: Final = "/_matrix/federation/v1/send/"

_New = tuple[int, bytes, Collection[str]]


class Sender:
    """The greenlets of one process. `start` after fork; `stop` before closing the database."""

    def __init__(self, db: Database, client: FederationClient, metrics: Metrics) -> None:
        self._db = db
        self._client = client
        self._metrics = metrics
        self._lock = threading.Lock()
        """Held for all changes of the destinations, and never while waiting."""
        self._destinations: dict[str, Destination] = {}
        self._refused: set[str] = set()
        """Servers to which nothing is sent by the settings."""
        self._new: queue.SimpleQueue[_New | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._is_running = False
        self._pool = Pool(REQUESTS_AT_ONCE, self._serve)
        self._retries = Pool(RETRIES_AT_ONCE, self._serve)
        self._progress = ProgressWriter(db, self._lock, self._destinations)
        if db.server.config.federation:
            db.federate = self._note_event
            db.send_edu = self.send_edu

    def start(self) -> None:
        """Send what there is to send, and new events from now on."""
        if self._db.server.config.federation:
            with self._db.read() as tx:
                known = outgoing.all_progress(tx)
            allowed = self._db.server.config.is_server_allowed
            self._destinations.update(
                {it.server: Destination(it) for it in known if allowed(it.server)}
            )
            self._is_running = True
            for work in (self._take_events, self._tick):
                threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Send nothing more, and give running requests a moment to note their result."""
        if not self._is_running:
            return
        self._is_running = False
        self._stopping.set()
        self._new.put(None)
        until = time.monotonic() + _SECONDS_TO_STOP
        for pool in (self._pool, self._retries):
            pool.stop(until)
        self._save()

    def send_edu(
        self, servers: Collection[str], edu_type: str, key: Hashable, content: Json
    ) -> None:
        """Send an EDU to servers once, unless they fail.

        It replaces one with the same type and key that has not been sent yet.
        """
        if not self._is_running or not servers:
            return
        encoded = transactions.encode_edu(edu_type, content)
        with self._lock:
            for server in servers:
                destination = self._destination(server)
                if destination is not None:
                    destination.add_edu(edu_type, key, encoded)
                    self._wake(destination)

    def note_rows(self, server: str) -> None:
        """Send the reliable EDUs that are in the outbox for a server."""
        if self._is_running:
            with self._lock:
                destination = self._destination(server)
                if destination is not None:
                    destination.has_rows = True
                    self._wake(destination)

    def heard_from(self, server: str) -> None:
        """End the back-off of a server, as it has made a request."""
        destination = self._destinations.get(server)
        if destination is not None and destination.tries:
            self._client.forget(server)
            with self._lock:
                destination.hurry(_now_ms())
                self._wake(destination)

    def rescan(self) -> None:
        """Find events that another process has logged, and servers that it wants to be tried."""
        if not self._is_running:
            return
        self._progress.has_unseen = True
        with self._db.read() as tx:
            due = [it.server for it in outgoing.all_progress(tx) if it.tries and not it.next_try_ts]
        for server in due:
            self.heard_from(server)

    def counts(self) -> tuple[int, int]:
        """Return how many servers have yet to get something, and how many fail."""
        with self._lock:
            known = list(self._destinations.values())
        return sum(it.has_work for it in known), sum(it.tries > 0 for it in known)

    def _note_event(
        self, position: int, _room_id: str, pdu: bytes, servers: Collection[str]
    ) -> None:
        """Queue a new event. Returns at once: it is called before the wake-ups of a COMMIT."""
        if self._is_running:
            self._new.put((position, pdu, servers))

    def _destination(self, server: str) -> Destination | None:
        """Return what is known of a server; None if nothing may be sent to it."""
        found = self._destinations.get(server)
        if found is None and server not in self._refused:
            is_other = server != self._db.server.name and identifiers.is_server_name(server)
            if not is_other or not self._db.server.config.is_server_allowed(server):
                self._refused.add(server)
                return None
            found = self._destinations[server] = Destination(Progress(server))
        return found

    def _wake(self, destination: Destination) -> None:
        """Have a greenlet send to this server, if there is anything to send and none does."""
        if (
            self._is_running
            and not destination.is_busy
            and destination.has_work
            and (not destination.tries or destination.is_due(_now_ms()))
        ):
            destination.is_busy = True
            (self._retries if destination.tries else self._pool).put(destination)

    def _take_events(self) -> None:
        """Give new events to their destinations. Run by one greenlet."""
        while not self._stopping.is_set():
            try:
                self._resume()
                break
            except Exception:
                LOG.exception("can't read what is to be sent to other servers")
                self._stopping.wait(30)
        while (item := self._new.get()) is not None:
            try:
                with self._lock:
                    self._give(*item)
            except Exception:  # it is in the log, where `save` finds it
                LOG.exception("can't send an event to other servers")

    def _give(self, position: int, pdu: bytes, servers: Collection[str]) -> None:
        """Give a new event to its destinations. Called with the lock."""
        if not self._progress.is_new(position):
            return  # read from the log already
        entry = Entry(position, pdu)
        for server in servers:
            destination = self._destination(server)
            if destination is not None:
                destination.add(entry)
                self._wake(destination)
        self._progress.given(position)

    def _resume(self) -> None:
        """Find what was not sent before the start."""
        with self._db.read() as tx:
            sent_to_all = outgoing.sent_to_all(tx) or _BEGINNING
            upto = max(outgoing.last_position(tx), sent_to_all)
        with self._lock:
            self._progress.begin(sent_to_all)
        self._recover(sent_to_all, upto)

    def _recover(self, after: int, upto: int) -> None:
        """Have events of a part of the log sent that did not come through memory."""
        servers = catch_up.servers(self._db, after, upto)
        with self._lock:
            for server in servers:
                destination = self._destination(server)
                if destination is not None:
                    destination.fall_behind(after)
            self._progress.recovered(upto)
            for destination in self._destinations.values():
                self._wake(destination)

    def _tick(self) -> None:
        """Make retries when they are due, and save progress. Run by one greenlet."""
        ticks = 0
        while not self._stopping.wait(_TICK_S):
            ticks += 1
            self._pool.find_slow()
            self._retries.find_slow()
            with self._lock:
                for destination in self._destinations.values():
                    if destination.tries:
                        self._wake(destination)
            if ticks % _TICKS_PER_SAVE == 0:
                self._save()
            if ticks % _TICKS_PER_SWEEP == _TICKS_UNTIL_SWEEP:
                self.sweep()

    def sweep(self) -> None:
        """Delete what no server needs any more: of the log, of EDUs, and of forks.

        Called once an hour.
        """
        try:
            self._progress.sweep()
            outgoing.sweep_edus(self._db)
            differences.sweep(self._db)
        except MatrixError as problem:
            LOG.warning("can't delete what other servers have got: %s", problem)
        except Exception:
            LOG.exception("can't delete what other servers have got")

    def _save(self) -> None:
        try:
            unseen = self._progress.save()
            if unseen is not None:
                self._recover(*unseen)
        except MatrixError as problem:  # such as a full disk
            LOG.warning("can't save what other servers have: %s", problem)
        except Exception:
            LOG.exception("can't save what other servers have")

    def _serve(self, destination: Destination) -> None:
        """Send one transaction to a server. Run by the greenlets of the pools."""
        try:
            transaction = destination.unfinished or self._next(destination)
            if transaction is not None and not self._stopping.is_set():
                self._send(destination, transaction)
        except Exception as problem:  # a bug must not be repeated in a busy loop
            LOG.exception("can't send to %s", destination.server)
            with self._lock:
                destination.fail(_now_ms(), str(problem))
        with self._lock:
            destination.is_busy = False
            self._wake(destination)

    def _next(self, destination: Destination) -> Transaction | None:
        """Return the next transaction for a server, or None if there is nothing to send."""
        if destination.is_behind and not destination.missing:
            self._find_missing(destination)
        with self._lock:
            entries = list(islice(destination.queue, destination.max_pdus))
            missing = list(islice(destination.missing, destination.max_pdus))
            has_rows, destination.has_rows = destination.has_rows, False
        rows: list[ReliableEdu] = []
        if missing or has_rows:
            with self._db.read() as tx:
                entries = _read_events(tx, missing) if missing else entries
                rows = _read_edus(tx, destination) if has_rows else rows
        with self._lock:
            if missing and not entries:  # purged meanwhile
                destination.passed(missing[-1].position)
            transaction = self._made(destination, entries, rows)
            destination.unfinished = transaction
        return transaction

    def _find_missing(self, destination: Destination) -> None:
        """Read from the log what a server lacks."""
        with self._lock:
            after, upto = destination.cursor, self._progress.upto
        found = catch_up.missing(self._db, destination.server, after, upto)
        with self._lock:
            destination.lacks(found, upto, self._progress.upto)

    def _made(
        self, destination: Destination, entries: Sequence[Entry], rows: Sequence[ReliableEdu]
    ) -> Transaction | None:
        """Return a transaction of what fits into one. Called with the lock."""
        left, fitting = transactions.MAX_BYTES, transactions.fitting
        entries = entries[: fitting([it.pdu for it in entries], left)]
        left -= sum(len(it.pdu) for it in entries)
        fit = rows[: fitting([it.edu for it in rows], left)]
        left -= sum(len(it.edu) for it in fit)
        if len(fit) < len(rows) or len(rows) == _max_edus(destination):
            destination.has_rows = True  # more of them
        edus = destination.take_edus(_max_edus(destination) - len(fit), left)
        if not entries and not fit and not edus:
            return None
        return transactions.make(self._db.server.name, entries, fit, edus)

    def _send(self, destination: Destination, transaction: Transaction) -> None:
        server, began = destination.server, time.monotonic()
        try:
            response = self._client.request(
                server,
                "PUT",
                _SEND + transaction.txn_id,
                json=transaction.body,
                timeout_s=TIMEOUT_S,
            )
        except outside.RemoteError as problem:
            self._fail(destination, transaction, problem)
            return
        self._metrics.note_transaction(transaction.pdus, transaction.edus, time.monotonic() - began)
        if destination.tries:
            LOG.info("%s accepts transactions again", server)
        with self._lock:
            destination.accept(transaction, _now_ms())
            self._progress.note_delivered(transaction.row_ids)
        _log_refused(server, response)

    def _fail(
        self, destination: Destination, transaction: Transaction, problem: outside.RemoteError
    ) -> None:
        """Note that a server has not accepted a transaction."""
        wait_ms = problem.content.get("retry_after_ms")
        is_left_out = False
        with self._lock:
            min_wait_ms = wait_ms if problem.status == 429 and isinstance(wait_ms, int) else 0
            destination.fail(_now_ms(), str(problem), min_wait_ms)
            if problem.status == 413 or (problem.status in _REFUSED and destination.tries > 1):
                is_left_out = destination.refuse(transaction)
                if is_left_out:
                    self._progress.note_delivered(transaction.row_ids)
        tries, server = destination.tries, destination.server
        LOG.info("attempt %d to send to %s failed: %s", tries, server, problem)
        if is_left_out:
            LOG.warning("%s never accepts %s, which is left out", server, transaction.txn_id)


def _read_events(tx: Reader, missing: Sequence[Missing]) -> list[Entry]:
    """Return events of the log, as far as they still exist."""
    found = catch_up.pdus(tx, [it.number for it in missing])
    return [Entry(it.position, found[it.number]) for it in missing if it.number in found]


def _max_edus(destination: Destination) -> int:
    """Return how many EDUs a transaction may have."""
    return 1 if destination.max_pdus == 1 else transactions.MAX_EDUS


def _read_edus(tx: Reader, destination: Destination) -> list[ReliableEdu]:
    """Return the next EDUs of the outbox for a server."""
    count = _max_edus(destination)
    rows = outgoing.edus(tx, destination.server, destination.rows_upto, count)
    return [
        ReliableEdu(
            row.id, transactions.encode_edu(row.payload["edu_type"], row.payload["content"])
        )
        for row in rows
    ]


def _log_refused(server: str, response: Any) -> None:
    """Log the events that a server did not take; it will not take them later either."""
    pdus = response.get("pdus") if isinstance(response, dict) else None
    for event_id, result in pdus.items() if isinstance(pdus, dict) else ():
        if isinstance(result, dict) and result.get("error"):
            LOG.info("%s refuses %s: %s", server, event_id, result["error"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
