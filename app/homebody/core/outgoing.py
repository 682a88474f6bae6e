"""What is to be sent to other servers: the log of events, the state of each server, reliable EDUs.

An event adds one row to the log, in its own transaction, however many servers are to get it; each
server has a place in the log, up to which it has everything. `core/timeline/sent_events.py` writes
the log, `core/federation/catch_up.py` reads it for one server, and `background/federation/` sends.

EDUs that must not be lost are rows of the outbox, of the kind `KIND`.

This module alone writes the tables federation_log and destinations.
Spec: server-server-api#transactions
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody.core import outbox
from homebody.models.outgoing import Destination, FederationLogRow
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

KIND: Final = "federation"
"""The kind of outbox rows that are EDUs."""
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
