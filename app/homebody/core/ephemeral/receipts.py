"""Receipts: how far users have read.

A receipt covers everything up to its event: in the whole room or, with a thread ID, in one thread
or the main timeline. There is one for each user, type and thread, and it only moves forward.
`m.fully_read` is not a receipt but account data, which this module writes for the read marker.

This module alone writes the table receipts.
Spec: client-server-api#receipts, client-server-api#read-and-unread-markers
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core.appservices import transactions
from homebody.core.ephemeral.sent_receipts import PublicReceipt
from homebody.core.events import client_events, state, visibility
from homebody.core.push import counts
from homebody.core.user_data import account_data
from homebody.models.events import StoredEvent
from homebody.models.receipts import Receipt
from homebody.spec import edus
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

READ: Final = "m.read"
PRIVATE: Final = "m.read.private"
TYPES: Final = (READ, PRIVATE, account_data.FULLY_READ)
MAX_EVENT_IDS: Final = 20
"""Of one receipt of another server."""
_MAX_DEPTH: Final = 10
"""Relations that are followed from an event to the root of a thread."""

_UPSERT = insert(Receipt)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["room_id", "user_id", "receipt_type", "thread_id"],
    set_={
        name: _UPSERT.excluded[name] for name in ("event_id", "event_position", "ts", "position")
    },
)
_EVENT_POSITION = select(Receipt.event_position).where(
    Receipt.room_id == bindparam("room_id"),
    Receipt.user_id == bindparam("user_id"),
    Receipt.receipt_type == bindparam("receipt_type"),
    Receipt.thread_id == bindparam("thread_id"),
)
_VISIBLE = (
    select(
        Receipt.room_id,
        Receipt.user_id,
        Receipt.receipt_type,
        Receipt.thread_id,
        Receipt.event_id,
        Receipt.ts,
        Receipt.event_position,
    )
    .where((Receipt.receipt_type != PRIVATE) | (Receipt.user_id == bindparam("reader")))
    .order_by(Receipt.position)
)
_SINCE = _VISIBLE.where(
    Receipt.position > bindparam("since"), Receipt.position <= bindparam("upto")
)
_PLACES = select(StoredEvent.position, StoredEvent.type, StoredEvent.state_key).where(
    StoredEvent.room_id == bindparam("room_id"),
    StoredEvent.position.in_(bindparam("positions", expanding=True)),
)
_IN_ROOMS = _VISIBLE.where(Receipt.room_id.in_(select(listed("room_ids").c.value)))

_SOME = (
    select(Receipt.user_id)
    .where(Receipt.room_id == bindparam("room_id"))
    .order_by(Receipt.user_id)
    .limit(bindparam("count"))
)
_REMOVE_UPTO = delete(Receipt).where(
    Receipt.room_id == bindparam("in_room"), Receipt.user_id <= bindparam("last")
)


def send(
    tx: Tx,
    user_id: str,
    room_id: str,
    receipt_type: str,
    event_id: str,
    thread_id: str | None = None,
) -> PublicReceipt | None:
    """Record that a user has read up to an event, unless they had read further.

    Return the receipt if the other servers in the room should get it.
    Raises M_FORBIDDEN for users who are not in the room, M_NOT_FOUND for an event that does not
    exist or that the user may not see, M_INVALID_PARAM for a thread that it does not belong to.
    """
    if receipt_type not in TYPES:
        raise errors.invalid_param(f"The type of a receipt must be one of {', '.join(TYPES)}")
    event = _event(tx, user_id, room_id, event_id)
    if receipt_type == account_data.FULLY_READ:
        if thread_id is not None:
            raise errors.invalid_param(f"{receipt_type} does not support threads")
        _move_read_marker(tx, user_id, event)
        return None
    _check_thread(tx, event, thread_id)
    has_moved = _move(tx, user_id, receipt_type, event, thread_id, tx.now_ms)
    # also for the user's own events: not all servers derive it from those
    if not has_moved or receipt_type != READ:
        return None
    return PublicReceipt(room_id, user_id, thread_id, event_id, tx.now_ms)


def receive(tx: Tx, receipt: edus.Receipt) -> bool:
    """Record a receipt of a user of another server, who is in the room.

    Return whether its event is known. Raises M_INVALID_PARAM for a thread that the event does not
    belong to.
    """
    known = [client_events.find(tx, event_id) for event_id in receipt.event_ids[:MAX_EVENT_IDS]]
    in_room = [it for it in known if it is not None and it.room_id == receipt.room_id]
    if not in_room:
        return False
    event = max(in_room, key=lambda it: it.position)
    _check_thread(tx, event, receipt.thread_id)
    _move(tx, receipt.user_id, READ, event, receipt.thread_id, min(receipt.ts, tx.now_ms))
    return True


def since(
    tx: Reader, user_id: str, room_ids: Collection[str], since: int, upto: int
) -> dict[str, Json]:
    """Return {room_id: m.receipt} with the receipts sent in these rooms between two positions."""
    recent = tx.caches.recent
    if recent.knows(since, upto) and recent.receipts <= since:
        return {}
    params = {"reader": user_id, "since": since, "upto": upto}
    found = tx.sql.execute(_SINCE, params)
    return _by_room(_permitted(tx, user_id, [row for row in found if row.room_id in room_ids]))


def in_rooms(tx: Reader, user_id: str, room_ids: Collection[str]) -> dict[str, Json]:
    """Return {room_id: m.receipt} with all receipts of these rooms."""
    params = {"reader": user_id, "room_ids": room_ids}
    return _by_room(_permitted(tx, user_id, tx.sql.execute(_IN_ROOMS, params).all()))


def remove_some(tx: Tx, room_id: str, count: int) -> int:
    """Delete about `count` receipts of a room that is gone; return how many there were.

    Called by rooms/purge.py alone.
    """
    users = tx.sql.execute(_SOME, {"room_id": room_id, "count": count}).scalars().all()
    if not users:
        return 0
    return tx.sql.execute(_REMOVE_UPTO, {"in_room": room_id, "last": users[-1]}).rowcount


def _permitted(tx: Reader, user_id: str, found: Sequence[state.AnyRow]) -> list[state.AnyRow]:
    """Return the receipts without those of ignored users, and of events that the user can't see.

    The latter would reveal the event's id, and which members were active when.
    """
    ignored = account_data.ignored_users(tx, user_id) if found else ()
    by_room: dict[str, list[state.AnyRow]] = {}
    for row in found:
        if row.user_id not in ignored:
            by_room.setdefault(row.room_id, []).append(row)
    return [row for rows in by_room.values() for row in _of_visible(tx, user_id, rows)]


def _of_visible(tx: Reader, user_id: str, of_room: list[state.AnyRow]) -> list[state.AnyRow]:
    """Return those of a room's receipts whose events the user may see, and the user's own."""
    room_id = of_room[0].room_id
    first = min(row.event_position for row in of_room)
    if visibility.sees_all_since(tx, user_id, room_id, first):
        return of_room
    positions = sorted({row.event_position for row in of_room})
    places = tx.sql.execute(_PLACES, {"room_id": room_id, "positions": positions}).all()
    visible = {it.position for it in visibility.visible(tx, user_id, room_id, places)}
    return [row for row in of_room if row.event_position in visible or row.user_id == user_id]


def _event(tx: Reader, user_id: str, room_id: str, event_id: str) -> ClientEvent:
    state.check_joined(tx, room_id, user_id)
    event = client_events.find(tx, event_id)
    is_there = event is not None and event.room_id == room_id
    if event is None or not is_there or not visibility.visible(tx, user_id, room_id, [event]):
        raise errors.not_found("There is no such event in this room")
    return event


def _check_thread(tx: Reader, event: ClientEvent, thread_id: str | None) -> None:
    """Raise M_INVALID_PARAM unless a receipt of this thread may be sent for the event."""
    # The root of a thread is in the main timeline; a receipt for it may name either.
    # Deviates: so may one for an event that leads to the root by other relations, as a reaction
    # does. Clients show it in the thread, and Synapse counts it as read there.
    if thread_id is None:
        return
    if thread_id == "":
        raise errors.invalid_param("thread_id is empty")
    if thread_id in {event.thread_id or counts.MAIN, event.event_id}:
        return
    if event.thread_id is not None or _top(tx, event).event_id != thread_id:
        raise errors.invalid_param("The event does not belong to this thread")


def _top(tx: Reader, event: ClientEvent) -> ClientEvent:
    """Follow the relations of an event up to the last one."""
    for _ in range(_MAX_DEPTH):
        above = client_events.find(tx, event.relates_to) if event.relates_to else None
        if above is None or above.room_id != event.room_id:
            break
        event = above
    return event


def _move(
    tx: Tx, user_id: str, receipt_type: str, event: ClientEvent, thread_id: str | None, ts: int
) -> bool:
    """Move a receipt forward; return False if the user had read further."""
    key = {
        "room_id": event.room_id,
        "user_id": user_id,
        "receipt_type": receipt_type,
        "thread_id": thread_id or "",
    }
    before = tx.sql.execute(_EVENT_POSITION, key).scalar()
    if before is not None and before >= event.position:
        return False
    position = tx.caches.recent.receipts = tx.next_position()
    tx.sql.execute(
        _UPSERT,
        {
            **key,
            "event_id": event.event_id,
            "event_position": event.position,
            "ts": ts,
            "position": position,
        },
    )
    if tx.server.is_local(user_id):
        counts.mark_read(tx, user_id, event.room_id, thread_id, event.position)
    row = (event.room_id, user_id, receipt_type, thread_id or "", event.event_id, ts, 0)
    content = _by_room([row])[event.room_id]["content"]
    is_private = receipt_type == PRIVATE
    transactions.note_receipt(tx, event.room_id, user_id, content, is_private=is_private)
    if is_private:
        tx.wake(user_id)
    else:
        tx.wake_all(state.joined(tx, event.room_id).local)
    return True


def _move_read_marker(tx: Tx, user_id: str, event: ClientEvent) -> None:
    marker = account_data.find(tx, user_id, account_data.FULLY_READ, event.room_id)
    before = None if marker is None else client_events.find(tx, marker["event_id"])
    if before is None or before.position < event.position:
        content = {"event_id": event.event_id}
        account_data.store(tx, user_id, account_data.FULLY_READ, content, event.room_id)


def _by_room(receipts: Iterable[Sequence[Any]]) -> dict[str, Json]:
    """Return {room_id: m.receipt}.

    The event has one place for a user's receipts of one event. Where there are two, the one without
    a thread is used, as it covers more than the other.
    """
    contents: dict[str, Json] = {}
    for room_id, user_id, receipt_type, thread_id, event_id, ts, _ in receipts:
        event = contents.setdefault(room_id, {}).setdefault(event_id, {})
        users = event.setdefault(receipt_type, {})
        if thread_id == "":
            users[user_id] = {"ts": ts}
        elif user_id not in users:
            users[user_id] = {"ts": ts, "thread_id": thread_id}
    return {
        room_id: {"type": "m.receipt", "content": content} for room_id, content in contents.items()
    }
