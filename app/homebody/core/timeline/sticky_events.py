"""Sticky events (MSC4354): which there are, and that servers get them when they come into a room.

An event that is sticky is also one of the timeline. /sync adds those that no timeline of the
response has, so members learn of them however much was sent since.

This module alone writes the table sticky_events.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, or_, select

from homebody.core import outgoing
from homebody.core.user_data import account_data
from homebody.models.base import EventNumber
from homebody.models.events import SOFT_FAILED, StoredEvent
from homebody.models.sticky_events import StickyEvent
from homebody.spec import sticky
from homebody.spec.events import Event
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx

UNTIL: CacheKind[str, int] = declare("sticky_events", 1, lambda _until_ts: 28)
"""Until when (ms) the last sticky event is one; mostly there is none, and nothing is read."""
ALL: Final = ""
"""The only key of the cache."""

_EXPIRE = delete(StickyEvent).where(
    or_(StickyEvent.until_ts <= bindparam("now_ms"), StickyEvent.number == bindparam("anew"))
)
_UNTIL = select(func.max(StickyEvent.until_ts))
_IS_SHOWN = (StoredEvent.redacted_by.is_(None), StoredEvent.position.is_not(None))
"""Not redacted, nor rejected since."""
_SINCE = (
    select(StickyEvent.room_id, StickyEvent.number, StickyEvent.position, StickyEvent.sender)
    .join(StoredEvent, StoredEvent.number == StickyEvent.number)
    .where(StickyEvent.until_ts > bindparam("now_ms"), *_IS_SHOWN)
    .order_by(StickyEvent.position)
)
_HIDDEN = (
    select(StoredEvent.event_id)
    .join(StickyEvent, StoredEvent.number == StickyEvent.number)
    .where(
        StickyEvent.room_id == bindparam("room_id"),
        StickyEvent.until_ts > bindparam("now_ms"),
        StickyEvent.position.is_(None),
        StoredEvent.standing == SOFT_FAILED,
    )
    .order_by(StickyEvent.number)
)
_OF_ROOM = (
    select(StickyEvent.number, StickyEvent.sender, StoredEvent.pdu)
    .join(StoredEvent, StoredEvent.number == StickyEvent.number)
    .where(
        StickyEvent.room_id == bindparam("room_id"),
        StickyEvent.until_ts > bindparam("now_ms"),
        *_IS_SHOWN,
    )
    .order_by(StickyEvent.position)
)


def note(tx: Tx, event: Event, number: EventNumber, position: int | None) -> None:
    """Note an event that is sticky, and forget those that are not any more.

    One without a position was soft-failed, and may be shown after all.
    """
    duration = sticky.duration_ms(event.pdu)
    until_ts = sticky.until_ts(tx.now_ms, event.origin_server_ts, duration)
    if until_ts <= tx.now_ms:
        return
    tx.sql.execute(_EXPIRE, {"now_ms": tx.now_ms, "anew": number})
    row = {"number": number, "room_id": event.room_id, "position": position}
    tx.sql.execute(insert(StickyEvent), {**row, "sender": event.sender, "until_ts": until_ts})
    tx.forget(UNTIL, ALL)


def since(
    tx: Reader, user_id: str, rooms: Collection[str], new_rooms: Collection[str], position: int
) -> dict[str, list[EventNumber]]:
    """Return {room ID: the sticky events of a room since a position}, of new rooms all.

    Those of users whom this user ignores are left out.
    """
    _remember_until(tx)
    ignored = account_data.ignored_users(tx, user_id)
    found: dict[str, list[EventNumber]] = {}
    for row in tx.sql.execute(_SINCE, {"now_ms": tx.now_ms}):
        is_new = row.position > position or row.room_id in new_rooms
        if row.room_id in rooms and is_new and row.sender not in ignored:
            found.setdefault(row.room_id, []).append(row.number)
    return found


def send_to(tx: Tx, room_id: str, server: str) -> None:
    """Send the sticky events of this server's users in a room to a server that has joined it."""
    for row in tx.sql.execute(_OF_ROOM, {"room_id": room_id, "now_ms": tx.now_ms}):
        if tx.server.is_local(row.sender):
            position = tx.next_position()
            outgoing.log(tx, position, row.number, ())
            tx.federate(position, room_id, row.pdu.encode(), [server])


def is_any(tx: Reader) -> bool:
    """Return whether there is a sticky event in any room."""
    _remember_until(tx)
    until_ts = tx.cached(UNTIL, ALL)
    return until_ts is None or until_ts > tx.now_ms


def hidden(tx: Reader, room_id: str) -> list[str]:
    """Return the ids of the sticky events of a room that were soft-failed."""
    found = tx.sql.execute(_HIDDEN, {"room_id": room_id, "now_ms": tx.now_ms})
    return list(found.scalars())


def remove_room(tx: Tx, room_id: str) -> None:
    """Forget the sticky events of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(StickyEvent).where(StickyEvent.room_id == room_id))
    tx.forget(UNTIL, ALL)


def _remember_until(tx: Reader) -> None:
    if tx.cached(UNTIL, ALL) is None:
        tx.fill(UNTIL, ALL, tx.sql.execute(_UNTIL).scalar() or 0)
