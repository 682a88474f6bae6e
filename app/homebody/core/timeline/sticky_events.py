"""Sticky events (MSC4354): which there are, and that servers get them when they come into a room.

An event that is sticky is also one of the timeline. /sync adds those that no timeline of the
response has, so members learn of them however much was sent since.

This module alone writes the table sticky_events.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, or_, select

from homebody.core import outgoing
from homebody.core.events import state
from homebody.core.user_data import account_data
from homebody.models.base import EventNumber
from homebody.models.events import SOFT_FAILED, StoredEvent
from homebody.models.sticky_events import StickyEvent
from homebody.spec import sticky
from homebody.spec.events import Event
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed, unindexed

MAX_OF_SENDER: Final = 100
"""The events of a user in a room that are sticky at once, the latest; older ones lose that. Else
one account could send thousands an hour, which every member would have to be sent."""
MAX_AT_ONCE: Final = 1000
"""In one response."""
MAX_CHECKED: Final = 50
"""The soft-failed ones that are looked at after each event of their room, the latest."""

UNTIL: CacheKind[str, int] = declare("sticky_events", 1, lambda _until_ts: 28)
"""Until when (ms) the last sticky event is one; mostly there is none, and nothing is read."""
ALL: Final = ""
"""The only key of the cache."""

_EXPIRE = delete(StickyEvent).where(
    or_(StickyEvent.until_ts <= bindparam("now_ms"), StickyEvent.number == bindparam("anew"))
)
_KEEP_LATEST = delete(StickyEvent).where(
    StickyEvent.number.in_(
        select(StickyEvent.number)
        .where(StickyEvent.room_id == bindparam("of_room"), StickyEvent.sender == bindparam("by"))
        .order_by(StickyEvent.number.desc())
        .offset(MAX_OF_SENDER)
    )
)
_UNTIL = select(func.max(StickyEvent.until_ts))
_IS_SHOWN = (StoredEvent.redacted_by.is_(None), StoredEvent.position.is_not(None))
"""Not redacted, nor rejected since."""
_SHOWN = (
    select(StickyEvent.position, StickyEvent.number, StickyEvent.room_id, StickyEvent.sender)
    .join(StoredEvent, StoredEvent.number == StickyEvent.number)
    # else all that are sticky on the server are read
    .where(unindexed(StickyEvent.until_ts) > bindparam("now_ms"), *_IS_SHOWN)
)
_SINCE = _SHOWN.where(StickyEvent.position > bindparam("since"))
_IN_ROOMS = _SHOWN.where(StickyEvent.room_id.in_(select(listed("room_ids").c.value)))
_HIDDEN = (
    select(StoredEvent.event_id, StickyEvent.sender)
    .join(StickyEvent, StoredEvent.number == StickyEvent.number)
    .where(
        StickyEvent.room_id == bindparam("room_id"),
        StickyEvent.until_ts > bindparam("now_ms"),
        unindexed(StickyEvent.position).is_(None),
        StoredEvent.standing == SOFT_FAILED,
    )
    .order_by(StickyEvent.number.desc())
)
_PDUS = (
    select(StickyEvent.number, StickyEvent.sender, StoredEvent.pdu)
    .join(StoredEvent, StoredEvent.number == StickyEvent.number)
    .where(
        StickyEvent.room_id == bindparam("room_id"),
        StickyEvent.until_ts > bindparam("now_ms"),
        *_IS_SHOWN,
    )
    .order_by(StickyEvent.position)
)


class Place(NamedTuple):
    """Where a sticky event is."""

    position: int
    number: EventNumber
    room_id: str


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
    tx.sql.execute(_KEEP_LATEST, {"of_room": event.room_id, "by": event.sender})
    tx.forget(UNTIL, ALL)


def since(
    tx: Reader, user_id: str, rooms: Collection[str], new_rooms: Collection[str], position: int
) -> list[Place]:
    """Return the sticky events of rooms since a position, of new rooms all, the oldest first.

    Those of users whom this user ignores are left out.
    """
    if not is_any(tx):
        return []
    ignored = account_data.ignored_users(tx, user_id)
    now = {"now_ms": tx.now_ms}
    rows = list(tx.sql.execute(_SINCE, {**now, "since": position}))
    if new_rooms and position:
        rows += tx.sql.execute(_IN_ROOMS, {**now, "room_ids": new_rooms})
    return sorted(
        {Place(*row[:3]) for row in rows if row.room_id in rooms and row.sender not in ignored}
    )


def send_to(tx: Tx, room_id: str, server: str) -> None:
    """Send the sticky events of this server's users in a room to a server that has joined it."""
    for row in tx.sql.execute(_PDUS, {"room_id": room_id, "now_ms": tx.now_ms}):
        if tx.server.is_local(row.sender):
            position = tx.next_position()
            outgoing.log(tx, position, row.number, ())
            tx.federate(position, room_id, row.pdu.encode(), [server])


def is_any(tx: Reader) -> bool:
    """Return whether there is a sticky event in any room."""
    until_ts = tx.cached(UNTIL, ALL)
    if until_ts is None:
        until_ts = tx.sql.execute(_UNTIL).scalar() or 0
        tx.fill(UNTIL, ALL, until_ts)
    return until_ts > tx.now_ms


def hidden(tx: Reader, room_id: str) -> list[str]:
    """Return the ids of the soft-failed sticky events of a room whose senders are in it now."""
    rows = tx.sql.execute(_HIDDEN, {"room_id": room_id, "now_ms": tx.now_ms})
    joined = {it: state.is_joined(tx, room_id, it) for it in {row.sender for row in rows}}
    return [row.event_id for row in rows if joined[row.sender]][:MAX_CHECKED]


def remove_room(tx: Tx, room_id: str) -> None:
    """Forget the sticky events of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(StickyEvent).where(StickyEvent.room_id == room_id))
    tx.forget(UNTIL, ALL)
