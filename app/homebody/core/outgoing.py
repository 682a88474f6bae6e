"""What is to be sent to other servers: the log of events, the state of each server, reliable EDUs.

An event adds one row to the log, in its own transaction, however many servers are to get it; each
server has a place in the log, up to which it has everything. `core/timeline/sent_events.py` writes
the log, `core/federation/catch_up.py` reads it for one server, and `background/federation/` sends.

EDUs that must not be lost are rows of the outbox, of the kind `KIND`. For a server that does not
come back, `sweep_edus` bounds them: messages to devices by their age, changes of devices by the
number of users.

This module alone writes the tables federation_log and destinations.
Spec: server-server-api#transactions
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody.core import outbox
from homebody.models.outbox import OutboxRow
from homebody.models.outgoing import Destination, FederationLogRow
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

KIND: Final = "federation"
"""The kind of outbox rows that are EDUs."""
MESSAGES: Final = "m.direct_to_device"
MESSAGES_KEPT_MS: Final = 30 * 24 * 3_600_000
"""How long messages to devices wait for a server."""
MAX_CHANGES: Final = 1_000
"""EDUs for a server from which on only the last change of each user's devices waits."""
_CHANGES: Final = ("m.device_list_update", "m.signing_key_update")
_READ_AT_ONCE: Final = 20_000
"""Rows, which takes a tenth of a second, in a thread."""
_REMOVED_AT_ONCE: Final = 500
FIRST_WAIT_MS: Final = 1_000
STEADY_WAIT_MS: Final = 20_000
FAILING_PER_WAIT: Final = 30
MAX_WAIT_MS: Final = 24 * 3_600_000
NOT_LOGGED: Final = 0
"""As `sent_upto`: what the server lacks is older than the log."""
NEVER: Final = 2**53
"""As `next_try_ts`: nothing is sent until the server makes a request itself."""
_ALL: Final = ""
"""The server of the row about all that have no `sent_upto` of their own."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one server has been sent, and whether it accepts more."""

    server: str
    sent_upto: int | None = None
    """The position up to which it has everything; None: that of `sent_to_all`."""
    failing_since_ts: int | None = None
    tries: int = 0
    """Failed attempts, one after another."""
    next_try_ts: int = 0
    problem: str | None = None
    """The error of the last attempt."""
    last_sent_ts: int = 0
    """When it last accepted something, to the hour."""

    @property
    def next_attempt_ts(self) -> int | None:
        """When it is tried again (ms); None unless it has failed, and an attempt has a time."""
        return self.next_try_ts if self.tries and self.next_try_ts < NEVER else None


_LOG = insert(FederationLogRow)
_POSITIONS = (
    select(FederationLogRow.position)
    .where(
        FederationLogRow.position > bindparam("after"),
        FederationLogRow.position <= bindparam("upto"),
    )
    .order_by(FederationLogRow.position)
)
_LAST = select(func.max(FederationLogRow.position))
_OLDEST = (
    select(FederationLogRow.position)
    .where(FederationLogRow.position <= bindparam("upto"))
    .order_by(FederationLogRow.position)
    .limit(bindparam("count"))
)
_REMOVE = delete(FederationLogRow).where(FederationLogRow.position.in_(_OLDEST.scalar_subquery()))
_COLUMNS = (
    Destination.server,
    Destination.sent_upto,
    Destination.failing_since_ts,
    Destination.tries,
    Destination.next_try_ts,
    Destination.problem,
    Destination.last_sent_ts,
)
_SENT_TO_ALL = select(Destination.sent_upto).where(Destination.server == _ALL)
_ALL_PROGRESS = select(*_COLUMNS).where(Destination.server != _ALL).order_by(Destination.server)
_INSERT = insert(Destination)
_SAVE = _INSERT.on_conflict_do_update(
    index_elements=[Destination.server],
    set_={
        column.key: getattr(_INSERT.excluded, column.key)
        for column in _COLUMNS
        if column.key != "server"
    },
)
_MAKE_DUE = (
    update(Destination)
    .where(Destination.server == bindparam("of_server"), Destination.tries > 0)
    .values(next_try_ts=0)
)

_EDU_TYPE = OutboxRow.payload["edu_type"].as_string()
_CONTENT = OutboxRow.payload["content"]
_OF_SERVER = (OutboxRow.kind == KIND, OutboxRow.destination == bindparam("server"))
_OLD_MESSAGES = (
    select(OutboxRow.id)
    .where(*_OF_SERVER, OutboxRow.created_ts < bindparam("before"), _EDU_TYPE == MESSAGES)
    .order_by(OutboxRow.id)
    .limit(bindparam("count"))
)
_NEWEST_FIRST = (
    select(
        OutboxRow.id,
        _EDU_TYPE.label("edu_type"),
        _CONTENT["user_id"].as_string().label("user_id"),
        _CONTENT["master_key"]["user_id"].as_string().label("has_master_key"),
        _CONTENT["self_signing_key"]["user_id"].as_string().label("has_self_signing_key"),
    )
    .where(*_OF_SERVER, OutboxRow.id < bindparam("before"))
    .order_by(OutboxRow.id.desc())
    .limit(bindparam("count"))
)


def log(tx: Tx, position: int, number: int, also: Collection[str]) -> None:
    """Add an event to the log; `also` are servers that have just lost their last member."""
    row = {"position": position, "number": number, "also": sorted(also) or None}
    tx.sql.execute(_LOG, row)


def positions(tx: Reader, after: int, upto: int) -> list[int]:
    """Return the positions of the log in a range, in their order."""
    return list(tx.sql.execute(_POSITIONS, {"after": after, "upto": upto}).scalars())


def last_position(tx: Reader) -> int:
    """Return the position of the newest event in the log; 0 if it is empty."""
    return tx.sql.execute(_LAST).scalar() or 0


def sweep(tx: Tx, upto: int, count: int) -> int:
    """Delete at most `count` of the oldest rows up to a position; return how many there were."""
    return tx.sql.execute(_REMOVE, {"upto": upto, "count": count}).rowcount


def sent_to_all(tx: Reader) -> int | None:
    """Return the position up to which the servers without a place of their own have everything."""
    found: int | None = tx.sql.execute(_SENT_TO_ALL).scalar()
    return found


def all_progress(tx: Reader) -> list[Progress]:
    """Return the progress of all servers, sorted by name."""
    return [Progress(*row) for row in tx.sql.execute(_ALL_PROGRESS)]


def save(tx: Tx, sent_to_all: int, changed: Iterable[Progress]) -> None:
    """Replace the progress of servers, and that of all without a place of their own."""
    rows = [Progress(_ALL, sent_to_all), *changed]
    tx.sql.execute(
        _SAVE, [{column.key: getattr(row, column.key) for column in _COLUMNS} for row in rows]
    )


def wait_ms(tries: int, failing_ms: int) -> int:
    """Return about how long to wait after a failure that follows this many other ones.

    Waits double, but stay short beside the time for which the server has failed: 40 s after ten
    minutes, five hours after a week. When a broken network is back, both sides wait, and neither
    makes the request that would end the other's wait.
    """
    longest_ms = min(STEADY_WAIT_MS + failing_ms // FAILING_PER_WAIT, MAX_WAIT_MS)
    return int(min(FIRST_WAIT_MS * 2 ** min(tries, 30), longest_ms))


def make_due(tx: Tx, server: str) -> bool:
    """Have a server that failed tried again at once; return whether it has failed."""
    return tx.sql.execute(_MAKE_DUE, {"of_server": server}).rowcount > 0


def send_edu(tx: Tx, servers: Collection[str], edu_type: str, content: Json) -> None:
    """Send an EDU to servers, in order and until each of them has accepted it."""
    config = tx.server.config
    if config.federation:
        others = [it for it in servers if it != tx.server.name and config.is_server_allowed(it)]
        outbox.add_for(tx, KIND, others, {"edu_type": edu_type, "content": content})


def edus(tx: Reader, server: str, after: int, count: int) -> Sequence[outbox.Row]:
    """Return the oldest reliable EDUs for a server whose ids are above `after`."""
    return outbox.first(tx, KIND, server, count, after)


def sweep_edus(db: Database) -> None:
    """Remove EDUs that have waited for too long, or that later ones make superfluous.

    Of the changes of a user's devices the last one is enough: the server does not know the change
    before it, and fetches the whole list. Those are kept whatever their age, as without them a
    server that comes back would encrypt for devices that are gone.
    """
    with db.read() as tx:
        waiting, before_ts = outbox.queues(tx, KIND), tx.now_ms - MESSAGES_KEPT_MS
    for queue in waiting:
        server = queue.destination
        if queue.first.created_ts < before_ts and (count := _remove_old(db, server, before_ts)):
            LOG.warning(
                "%d EDUs with messages to devices are dropped: %s did not accept them for %d days",
                count,
                server,
                MESSAGES_KEPT_MS // 86_400_000,
            )
        if queue.count > MAX_CHANGES and (superseded := _superseded(db, server)):
            _remove(db, superseded)
            LOG.info("%d changes of devices for %s are superseded", len(superseded), server)


def _remove_old(db: Database, server: str, before_ts: int) -> int:
    """Remove messages to devices from before a time, and return the number of their EDUs."""
    total, count = 0, _READ_AT_ONCE
    while count == _READ_AT_ONCE:
        with db.read() as tx:
            rows = tx.sql.execute_long(
                _OLD_MESSAGES, {"server": server, "before": before_ts, "count": _READ_AT_ONCE}
            )
        _remove(db, [row.id for row in rows])
        count = len(rows)
        total += count
    return total


def _superseded(db: Database, server: str) -> list[int]:
    """Return the rows about devices and keys of users that later rows for a server make useless."""
    seen: set[tuple[object, ...]] = set()
    found: list[int] = []
    before, count = NEVER, _READ_AT_ONCE
    while count == _READ_AT_ONCE:
        with db.read() as tx:
            rows = tx.sql.execute_long(
                _NEWEST_FIRST, {"server": server, "before": before, "count": _READ_AT_ONCE}
            )
        for row_id, *what in rows:
            key, before = tuple(what), row_id
            if key in seen:
                found.append(row_id)
            elif what[0] in _CHANGES:
                seen.add(key)
        count = len(rows)
    return found


def _remove(db: Database, row_ids: Sequence[int]) -> None:
    for some in batches(row_ids, _REMOVED_AT_ONCE):
        with db.write() as tx:
            outbox.remove(tx, some)
