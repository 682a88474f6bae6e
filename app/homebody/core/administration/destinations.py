"""Other servers as administrators see them: whether they accept what is sent, and shared rooms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from homebody import errors
from homebody.core import audit, outbox, outgoing
from homebody.core.events import state
from homebody.core.federation import catch_up
from homebody.core.outgoing import Progress
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

ORDERS: Final = (
    "destination",
    "retry_last_ts",
    "retry_interval",
    "failure_ts",
    "last_successful_stream_ordering",
)
"""The names by which the list can be sorted."""

_SERVER = func.substr(StateInterval.state_key, func.instr(StateInterval.state_key, ":") + 1)
_SHARED_ROOMS = (
    select(Room.room_id, Room.last_position.label("stream_ordering"))
    .where(
        Room.number.in_(
            select(StateInterval.room_number).where(
                StateInterval.type == state.MEMBER,
                StateInterval.to_position == NOW_AND_LATER,
                StateInterval.membership == "join",
                bindparam("server") == _SERVER,
            )
        )
    )
    .order_by(Room.last_position, Room.room_id)
)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request for the list."""

    start: int = 0
    limit: int = 100
    part: str = ""
    """A part of the name."""
    order_by: str = ORDERS[0]
    is_descending: bool = False


def page(tx: Reader, query: Query) -> tuple[list[Json], int]:
    """Return a page of the servers that something was sent to, and the number of all that match.

    Of each: destination, failure_ts (since when it fails, in ms, or None), retry_last_ts (of the
    last attempt, 0 unless it fails), retry_interval (ms until the next one), and
    last_successful_stream_ordering (the position up to which it has everything, or None).
    """
    found = [it for it in _all(tx) if query.part.lower() in it["destination"].lower()]
    found.sort(key=_key(query.order_by), reverse=query.is_descending)
    return found[query.start : query.start + query.limit], len(found)


def find(tx: Reader, server: str) -> Json:
    """Return a server as `page` does. Raises M_NOT_FOUND."""
    for known in _all(tx):
        if known["destination"] == server:
            return known
    raise errors.not_found("Nothing has been sent to this server")


def waiting(db: Database, only: str | None = None) -> list[Json]:
    """Return what each server, or one of them, is yet to be sent, and why it fails.

    Of each: server, events, edus, oldest_edu_ts, last_sent_ts, failing_since_ts, tries,
    next_try_ts (None unless another attempt has a time), problem. Times in ms, or None.
    """
    with db.read() as tx:
        known = {it.server: it for it in outgoing.all_progress(tx)}
        edus = {queue.destination: queue for queue in outbox.queues(tx, outgoing.KIND)}
        last = outgoing.last_position(tx)
    servers = {*known, *edus} if only is None else {only}
    known = {it: known.get(it) or Progress(it) for it in servers}
    places = {it.server: it.sent_upto for it in known.values() if it.sent_upto is not None}
    events = catch_up.counts(db, places, last)
    return [_waiting(known[it], events[it], edus.get(it)) for it in sorted(servers)]


def shared_rooms(tx: Reader, server: str) -> list[Json]:
    """Return the rooms in which the server has users: room_id, stream_ordering of the last event.

    Sorted by that. Raises M_NOT_FOUND for a server that nothing was sent to.
    """
    find(tx, server)
    found = tx.sql.execute_long(_SHARED_ROOMS, {"server": server})
    return [{"room_id": it.room_id, "stream_ordering": it.stream_ordering} for it in found]


def retry(tx: Tx, actor: str, server: str) -> None:
    """Have a server that failed tried again; the sender has to be notified after the COMMIT.

    Raises M_NOT_FOUND for a server that nothing was sent to, M_UNKNOWN for one that has not failed.
    """
    find(tx, server)
    if not outgoing.make_due(tx, server):
        raise errors.unknown(f"{server} has not failed")
    audit.note(tx, actor, "federation.retry", server)


def _waiting(progress: Progress, events: int, edus: outbox.Queue | None) -> Json:
    return {
        "server": progress.server,
        "events": events,
        "edus": 0 if edus is None else edus.count,
        "oldest_edu_ts": None if edus is None else edus.first.created_ts,
        "last_sent_ts": progress.last_sent_ts or None,
        "failing_since_ts": progress.failing_since_ts,
        "tries": progress.tries,
        "next_try_ts": progress.next_attempt_ts,
        "problem": progress.problem,
    }


def _key(order_by: str) -> Callable[[Json], Any]:
    def key(it: Json) -> Any:
        return it[order_by] is not None, it[order_by], it["destination"]

    return key


def _all(tx: Reader) -> list[Json]:
    known = {it.server: it for it in outgoing.all_progress(tx)}
    waiting = (queue.destination for queue in outbox.queues(tx, outgoing.KIND))
    sent_to_all = outgoing.sent_to_all(tx)
    return [
        _described(known.get(server) or Progress(server), sent_to_all)
        for server in sorted({*known, *waiting})
    ]


def _described(progress: Progress, sent_to_all: int | None) -> Json:
    is_failing = progress.tries > 0
    failing_ms = max(0, progress.next_try_ts - (progress.failing_since_ts or 0))
    interval = outgoing.wait_ms(progress.tries - 1, failing_ms) if is_failing else 0
    # the time of an attempt is not stored; NEVER and 0 are not times at which another is made
    is_timed = interval < progress.next_try_ts < outgoing.NEVER
    last = progress.next_try_ts - interval if is_timed else progress.failing_since_ts
    upto = sent_to_all if progress.sent_upto is None else progress.sent_upto
    return {
        "destination": progress.server,
        "failure_ts": progress.failing_since_ts,
        "retry_last_ts": (last or 0) if is_failing else 0,
        "retry_interval": interval,
        "last_successful_stream_ordering": upto if progress.last_sent_ts and upto else None,
    }
