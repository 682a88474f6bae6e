"""Redacting what a user has sent, in some rooms or in all, on an administrator's order.

A user of this server who is in the room redacts their own events. Otherwise the administrator does,
who has to be in the room, with the power to redact. The newest events are redacted first, a few in
each write; after an interruption the same call goes on with those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Final

import orjson
from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core import audit, tasks
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.core.tasks import Task
from homebody.core.timeline import local_rules, sending
from homebody.errors import MatrixError
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec import event_auth, room_state
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

ACTION: Final = "redact_all_events"
"""The name of the task."""
DEFAULT_LIMIT: Final = 1000
EVENTS_AT_ONCE: Final = 20
ROWS_AT_ONCE: Final = 2000
"""Of a room, read to find those of the user."""

_ROOMS = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.membership.is_not(None),
        StateInterval.type == state.MEMBER,
    )
    .distinct()
    .order_by(Room.room_id)
)
_ROWS = (
    select(
        StoredEvent.number,
        StoredEvent.event_id,
        StoredEvent.position,
        StoredEvent.sender,
        StoredEvent.type,
        StoredEvent.state_key,
        StoredEvent.origin_server_ts,
        StoredEvent.redacted_by,
    )
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.position < bindparam("before"))
    .order_by(StoredEvent.position.desc())
    .limit(bindparam("count"))
)
_PDU = select(StoredEvent.pdu).where(StoredEvent.number == bindparam("number"))


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is wanted."""

    actor: str
    user_id: str
    rooms: Collection[str] = ()
    """Empty: all in which the user is or was."""
    reason: str | None = None
    limit: int = DEFAULT_LIMIT
    """How many of the user's newest events in each room."""
    by: str | None = None
    """The user who redacts, in place of the sender."""
    before_ts: int | None = None
    after_ts: int | None = None


Report = Callable[[Json], None]


def nothing(_so_far: Json) -> None:
    """Report to nobody."""


def order(db: Database, wanted: Redaction) -> str:
    """Order the task that redacts the events of a user, who need not be known; return its ID."""
    if wanted.limit < 0:
        raise errors.invalid_param("limit must not be negative")
    with db.write() as tx:
        note(tx, wanted)
        params = {**asdict(wanted), "rooms": list(wanted.rooms)}
        return tasks.add(tx, ACTION, params, wanted.user_id)


def note(tx: Tx, wanted: Redaction) -> None:
    """Add the audit log's entry of a redaction."""
    details = {"rooms": list(wanted.rooms), "reason": wanted.reason, "limit": wanted.limit}
    audit.note(tx, wanted.actor, "user.redact", wanted.user_id, **details)


def rooms_of(tx: Reader, user_id: str) -> list[str]:
    """Return the rooms in which a user is or was, or to which they were invited."""
    return list(tx.sql.execute(_ROOMS, {"user_id": user_id}).scalars())


def run(db: Database, task: Task, report: Report) -> Json:
    """Do what `order` has ordered."""
    return redact(db, Redaction(**task.params), report)


def redact(db: Database, wanted: Redaction, report: Report = nothing) -> Json:
    """Redact a user's events.

    Return `redacted`, the number of events, `failed_redactions`, {event ID: why not}, and `rooms`,
    the number of rooms that are done; `report` is called with the same after each write, and while
    the events are searched for.
    """
    rooms = list(wanted.rooms)
    if not rooms:
        with db.read() as tx:
            rooms = rooms_of(tx, wanted.user_id)
    result: Json = {"redacted": 0, "failed_redactions": {}, "rooms": 0}
    for room_id in rooms:
        for some in batches(_events(db, wanted, room_id, lambda: report(result)), EVENTS_AT_ONCE):
            _redact_some(db, wanted, room_id, some, result)
            report(result)
            event_loop.pause()
        result["rooms"] += 1
    return result


def _events(db: Database, wanted: Redaction, room_id: str, report: Callable[[], None]) -> list[str]:
    """Return the ids of the events to redact, the newest first."""
    found: list[str] = []
    seen, before = 0, 2**62
    while seen < wanted.limit:
        with db.read() as tx:
            asked = {"room_id": room_id, "before": before, "count": ROWS_AT_ONCE}
            rows = tx.sql.execute(_ROWS, asked).all()
            own = [row for row in rows if row.sender == wanted.user_id and _is_in_time(wanted, row)]
            own = [row for row in own if _is_wanted(tx, row)][: wanted.limit - seen]
        seen += len(own)
        found += [row.event_id for row in own if row.redacted_by is None]
        if len(rows) < ROWS_AT_ONCE:
            break
        before = rows[-1].position
        report()
        event_loop.pause()
    return found


def _is_in_time(wanted: Redaction, row: state.AnyRow) -> bool:
    ts = row.origin_server_ts
    return (wanted.before_ts is None or ts < wanted.before_ts) and (
        wanted.after_ts is None or ts > wanted.after_ts
    )


def _is_wanted(tx: Reader, row: state.AnyRow) -> bool:
    """Return whether a redaction of the event makes sense: of members only joins have names."""
    if row.type == local_rules.REDACTION:
        return False
    if row.type in local_rules.NEVER_REDACTED and row.state_key is not None:
        return False
    if row.type != state.MEMBER:
        return True
    pdu = orjson.loads(tx.sql.execute(_PDU, {"number": row.number}).scalar() or "{}")
    return bool(pdu.get("content", {}).get("membership") == "join")


def _redact_some(
    db: Database, wanted: Redaction, room_id: str, event_ids: list[str], result: Json
) -> None:
    content = {} if wanted.reason is None else {"reason": wanted.reason}
    with db.write() as tx:
        by, problem = _redactor(tx, wanted, room_id)
        if by is None:
            result["failed_redactions"] |= dict.fromkeys(event_ids, problem)
            return
        for event_id in event_ids:
            draft = sending.Draft(
                room_id, by.user_id, local_rules.REDACTION, content, redacts=event_id, requester=by
            )
            try:
                sending.send(tx, draft, is_forced=True)
                result["redacted"] += 1
            except MatrixError as refusal:
                if refusal.status >= 500:
                    raise
                result["failed_redactions"][event_id] = refusal.message


def _redactor(tx: Reader, wanted: Redaction, room_id: str) -> tuple[Requester | None, str]:
    """Return who redacts the user's events in a room, or None and why nobody can."""
    own = wanted.user_id
    if wanted.by is None and tx.server.is_local(own) and _is_joined(tx, room_id, own):
        return Requester(own, "", b""), ""
    by = wanted.by or wanted.actor
    if not _is_joined(tx, room_id, by):
        return None, f"{own} can't redact their events there, and {by} is not in the room"
    keys = [room_state.CREATE, room_state.POWER_LEVELS]
    levels = event_auth.power_levels(state.current_many(tx, room_id, keys))
    if levels.of_user(by) < levels.to_redact and not tx.server.is_local(own):
        return None, f"{by} does not have the power to redact in this room"
    account = accounts.find(tx, by)
    return Requester(by, "", b"", is_admin=account is not None and account.is_admin), ""


def _is_joined(tx: Reader, room_id: str, user_id: str) -> bool:
    try:
        return state.is_joined(tx, room_id, user_id)
    except MatrixError:  # an unknown room
        return False
