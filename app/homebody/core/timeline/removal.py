"""Deleting the events of a room that is purged, or that was never joined in the end.

This module deletes from the table events.
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, select

from homebody.core.events import auth_chains, client_events, search_index
from homebody.models.events import OUTLIER, REJECTED, StoredEvent
from homebody.storage.database import Tx

_SOME_EVENTS = (
    select(StoredEvent.number)
    .where(StoredEvent.room_id == bindparam("room_id"))
    .order_by(StoredEvent.position)
    .limit(bindparam("count"))
)
_SOME_OUTLIERS = (
    select(StoredEvent.number)
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.position.is_(None),
        StoredEvent.state_at.is_(None),
        StoredEvent.standing.in_((OUTLIER, REJECTED)),
    )
    .limit(bindparam("count"))
)
_REMOVE_EVENT = delete(StoredEvent).where(StoredEvent.number == bindparam("which"))


def remove_events(tx: Tx, room_id: str, count: int) -> int:
    """Delete at most `count` of the oldest events of a removed room; return how many there were."""
    numbers = tx.sql.execute(_SOME_EVENTS, {"room_id": room_id, "count": count}).scalars().all()
    if numbers:
        tx.sql.execute(_REMOVE_EVENT, [{"which": number} for number in numbers])
    for number in numbers:
        tx.forget(client_events.CLIENT_EVENTS, number)
        search_index.forget(tx, number)
    return len(numbers)


def remove_outliers(tx: Tx, room_id: str, count: int) -> int:
    """Delete at most `count` events that a room never had in its graph; return their number."""
    asked = {"room_id": room_id, "count": count}
    numbers = tx.sql.execute(_SOME_OUTLIERS, asked).scalars().all()
    if numbers:
        tx.sql.execute(_REMOVE_EVENT, [{"which": number} for number in numbers])
        auth_chains.remove(tx, room_id, numbers)
    for number in numbers:
        tx.forget(client_events.CLIENT_EVENTS, number)
    return len(numbers)
