"""Delayed events: which are scheduled, and what became of the others (MSC4140).

A client schedules an event that is sent later, or never if it cancels it before. Calls depend on
it: each client schedules that it leaves the call, and restarts the delay every few seconds, so the
others learn it when the client is gone. A scheduled event is in the database before its request is
answered, and so is each restart: it costs one UPDATE, and restarts share COMMITs with all other
writes.

Whether the user may send the event is decided when it is sent: core/rooms/delayed_sending.py sends
one, and finalises it in the same write, so it is sent once; background/delayed_events.py says when.

This module alone writes the table delayed_events.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, exists, func, insert, or_, select, update

from homebody import errors
from homebody.core.timeline.sending import Draft
from homebody.errors import MatrixError
from homebody.models.delayed_events import DelayedEvent
from homebody.models.devices import Device
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.statements import Result

KEPT_MS: Final = 7 * 86_400_000
"""How long a client can ask what became of an event."""
MAX_KEPT: Final = 1000
"""The same as a number of events of one user."""

_COLUMNS = (
    DelayedEvent.delay_id,
    DelayedEvent.user_id,
    DelayedEvent.room_id,
    DelayedEvent.type,
    DelayedEvent.state_key,
    DelayedEvent.content,
    DelayedEvent.origin_server_ts,
    DelayedEvent.sticky_ms,
    DelayedEvent.delay_ms,
    DelayedEvent.scheduled_ts,
    DelayedEvent.due_ts,
    DelayedEvent.finalised_ts,
    DelayedEvent.event_id,
    DelayedEvent.error,
)
_FIND = select(*_COLUMNS).where(DelayedEvent.delay_id == bindparam("delay_id"))
_SCHEDULED = (
    select(*_COLUMNS)
    .where(DelayedEvent.user_id == bindparam("user_id"), DelayedEvent.due_ts.is_not(None))
    .order_by(DelayedEvent.due_ts, DelayedEvent.scheduled_ts)
)
_COUNT = select(func.count(), func.min(DelayedEvent.due_ts)).where(
    DelayedEvent.user_id == bindparam("user_id"), DelayedEvent.due_ts.is_not(None)
)
_SENT_BEFORE = select(DelayedEvent.delay_id, DelayedEvent.room_id, DelayedEvent.type).where(
    DelayedEvent.user_id == bindparam("user_id"),
    DelayedEvent.device_id == bindparam("device_id"),
    DelayedEvent.txn_id == bindparam("txn_id"),
)
_DUE = (
    select(DelayedEvent.delay_id)
    .where(DelayedEvent.due_ts <= bindparam("now_ms"))
    .order_by(DelayedEvent.due_ts, DelayedEvent.scheduled_ts)
)
_NEXT = select(func.min(DelayedEvent.due_ts)).where(DelayedEvent.due_ts > bindparam("now_ms"))
_RESTART = (
    update(DelayedEvent)
    .where(DelayedEvent.delay_id == bindparam("which"), DelayedEvent.due_ts.is_not(None))
    .values(scheduled_ts=bindparam("at"), due_ts=bindparam("at") + DelayedEvent.delay_ms)
)
_RESTART_BY_ID = _RESTART.where(
    or_(
        DelayedEvent.device_id == "",
        exists().where(
            Device.user_id == DelayedEvent.user_id, Device.device_id == DelayedEvent.device_id
        ),
    )
)
_FINALISE = (
    update(DelayedEvent)
    .where(DelayedEvent.delay_id == bindparam("which"), DelayedEvent.due_ts.is_not(None))
    .values(
        due_ts=None,
        finalised_ts=bindparam("at"),
        event_id=bindparam("as_event"),
        error=bindparam("problem"),
    )
)
_CANCEL_ALL = (
    update(DelayedEvent)
    .where(DelayedEvent.due_ts.is_not(None))
    .values(due_ts=None, finalised_ts=bindparam("at"))
)
_FORGET_OLD = delete(DelayedEvent).where(DelayedEvent.finalised_ts < bindparam("before"))
_FORGET_MANY = delete(DelayedEvent).where(
    DelayedEvent.delay_id.in_(
        select(DelayedEvent.delay_id)
        .where(DelayedEvent.user_id == bindparam("of_user"), DelayedEvent.finalised_ts.is_not(None))
        .order_by(DelayedEvent.finalised_ts.desc())
        .offset(MAX_KEPT)
    )
)


class Delayed(NamedTuple):
    """A row of the table; see models/delayed_events.py."""

    delay_id: str
    user_id: str
    room_id: str
    type: str
    state_key: str | None
    content: Json
    origin_server_ts: int | None
    sticky_ms: int | None
    delay_ms: int
    scheduled_ts: int
    due_ts: int | None
    finalised_ts: int | None
    event_id: str | None
    error: Json | None

    def shown(self) -> Json:
        """Return what the user sees of it."""
        found: Json = {
            "delay_id": self.delay_id,
            "room_id": self.room_id,
            "type": self.type,
            "delay_ms": self.delay_ms,
            "scheduled_at": self.scheduled_ts,
            "content": self.content,
        }
        more: dict[str, Any] = {
            "state_key": self.state_key,
            "finalised_ts": self.finalised_ts,
            "event_id": self.event_id,
            "error": self.error,
        }
        return found | {name: value for name, value in more.items() if value is not None}


def schedule(tx: Tx, draft: Draft, delay_ms: int) -> Delayed:
    """Schedule an event, unless the same request has done that before.

    `draft.device_id` is that of the request. Raises M_FORBIDDEN where the server allows none,
    M_LIMIT_EXCEEDED.
    """
    if (known := scheduled_before(tx, draft)) is not None:
        return known
    _check_number(tx, draft.sender)
    row = Delayed(
        delay_id=f"delay_{secrets.token_urlsafe(24)}",  # all that one needs to restart and send it
        user_id=draft.sender,
        room_id=draft.room_id,
        type=draft.type,
        state_key=draft.state_key,
        content=draft.content,
        origin_server_ts=draft.origin_server_ts,
        sticky_ms=draft.sticky_ms,
        delay_ms=delay_ms,
        scheduled_ts=tx.now_ms,
        due_ts=tx.now_ms + delay_ms,
        finalised_ts=None,
        event_id=None,
        error=None,
    )
    of_request = {"device_id": draft.device_id or "", "txn_id": draft.txn_id}
    tx.sql.execute(insert(DelayedEvent), {**row._asdict(), **of_request})
    return row


def scheduled_before(tx: Reader, draft: Draft) -> Delayed | None:
    """Return what this device has scheduled on the same path by this transaction ID."""
    if draft.txn_id is None:
        return None
    asked = {"user_id": draft.sender, "device_id": draft.device_id, "txn_id": draft.txn_id}
    for delay_id, room_id, event_type in tx.sql.execute(_SENT_BEFORE, asked):
        if (room_id, event_type) == (draft.room_id, draft.type):
            return find(tx, delay_id)
    return None


def find(tx: Reader, delay_id: str, user_id: str | None = None) -> Delayed:
    """Return an event, scheduled or not; with `user_id` only one of that user.

    Raises M_NOT_FOUND.
    """
    row = tx.sql.execute(_FIND, {"delay_id": delay_id}).first()
    if row is None or (user_id is not None and row.user_id != user_id):
        raise errors.not_found("There is no such delayed event")
    return Delayed(*row)


def scheduled(tx: Reader, user_id: str) -> list[Delayed]:
    """Return the events that a user has scheduled, in the order in which they will be sent."""
    return [Delayed(*row) for row in tx.sql.execute(_SCHEDULED, {"user_id": user_id})]


def restart(tx: Tx, delay_id: str, user_id: str | None = None) -> None:
    """Let the delay of a scheduled event begin again.

    Without `user_id`, only while the device that has scheduled it is logged in: a program that
    knows the id could otherwise put it off for ever, and send it when it likes.
    Raises M_NOT_FOUND, also for one that was sent: the client then schedules another; M_UNKNOWN
    (409) for one that was cancelled.
    """
    if user_id is not None:
        find(tx, delay_id, user_id)
    statement = _RESTART_BY_ID if user_id is None else _RESTART
    if tx.sql.execute(statement, {"which": delay_id, "at": tx.now_ms}).rowcount:
        return
    found = find(tx, delay_id, user_id)
    if found.due_ts is not None:
        raise errors.not_found("The device that has scheduled the event is logged out")
    if found.event_id is not None:
        raise errors.not_found("The event was sent already")
    raise _conflict("The event was cancelled already")


def cancel(tx: Tx, delay_id: str, user_id: str | None = None) -> None:
    """Cancel a scheduled event. Raises M_NOT_FOUND; M_UNKNOWN (409) for one that was sent."""
    if find(tx, delay_id, user_id).event_id is not None:
        raise _conflict("The event was sent already")
    _finalise(tx, delay_id)


def to_send(tx: Reader, delay_id: str, user_id: str | None = None) -> Delayed | None:
    """Return an event that is to be sent now, None for one that was sent before.

    Raises M_NOT_FOUND; M_UNKNOWN (409) for one that was cancelled.
    """
    found = find(tx, delay_id, user_id)
    if found.event_id is not None:
        return None
    if found.due_ts is None:
        raise _conflict("The event was cancelled already")
    return found


def if_due(tx: Reader, delay_id: str) -> Delayed | None:
    """Return an event if it is to be sent by now: it may have been restarted or cancelled."""
    row = tx.sql.execute(_FIND, {"delay_id": delay_id}).first()
    found = None if row is None else Delayed(*row)
    is_due = found is not None and found.due_ts is not None and found.due_ts <= tx.now_ms
    return found if is_due else None


def note_sent(tx: Tx, delay_id: str, event_id: str) -> None:
    """Record that an event was sent. To be called in the write that sends it."""
    _finalise(tx, delay_id, event_id=event_id)


def note_failed(tx: Tx, delay_id: str, error: MatrixError) -> None:
    """Record that an event could not be sent, and why."""
    _finalise(tx, delay_id, error=error.body)


def due(tx: Reader) -> list[str]:
    """Return the ids of the events that are to be sent now, in their order."""
    return list(tx.sql.execute(_DUE, {"now_ms": tx.now_ms}).scalars())


def next_due_ts(tx: Reader) -> int | None:
    """Return when (ms) the next event is to be sent that is not due yet; None if there is none."""
    found: int | None = tx.sql.execute(_NEXT, {"now_ms": tx.now_ms}).scalar()
    return found


def cancel_all(tx: Tx) -> None:
    """Cancel all scheduled events, after a restore: most were sent since the backup."""
    tx.sql.execute(_CANCEL_ALL, {"at": tx.now_ms})


def forget_old(tx: Tx) -> None:
    """Delete what became of events long ago."""
    tx.sql.execute(_FORGET_OLD, {"before": tx.now_ms - KEPT_MS})


def remove_user(tx: Tx, user_id: str) -> None:
    """Delete the delayed events of a user whose account is closed."""
    tx.sql.execute(delete(DelayedEvent).where(DelayedEvent.user_id == user_id))


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the delayed events of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(DelayedEvent).where(DelayedEvent.room_id == room_id))


def _check_number(tx: Reader, user_id: str) -> None:
    most = tx.server.config.delayed_events.max_scheduled
    if most == 0:
        raise errors.forbidden("This server sends no delayed events")
    row = tx.sql.execute(_COUNT, {"user_id": user_id}).first()
    count, next_ts = row if row is not None else (0, None)
    if count >= most:
        wait_ms = max(1, (next_ts or 0) - tx.now_ms)
        raise MatrixError(
            429,
            "M_LIMIT_EXCEEDED",
            f"You have scheduled {most} events already, the most that is allowed",
            retry_after_ms=wait_ms,
        )


def _finalise(
    tx: Tx, delay_id: str, *, event_id: str | None = None, error: Json | None = None
) -> None:
    which = {"which": delay_id, "at": tx.now_ms, "as_event": event_id, "problem": error}
    done: Result = tx.sql.execute(_FINALISE, which)
    if done.rowcount:
        of_user = find(tx, delay_id).user_id
        tx.sql.execute(_FORGET_MANY, {"of_user": of_user})


def _conflict(message: str) -> MatrixError:
    return errors.unknown(message, 409)
