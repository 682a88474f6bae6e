"""Deleting old messages as rooms wish (m.room.retention, MSC1763), within the server's limits.

A room's `max_lifetime` counts, or the setting `retention.default_max_lifetime`, but no less than
its `min_lifetime`, and within the bounds of the settings. Off unless `retention.enabled` is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import select

from homebody.config.tables import Retention
from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.rooms import history_purge
from homebody.errors import MatrixError
from homebody.models.rooms import Room
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader

RETENTION: Final = "m.room.retention"

_ROOMS = select(Room.room_id).order_by(Room.number)


def lifetime_ms(policy: Retention, content: Json) -> int | None:
    """Return how long messages are kept in a room with this m.room.retention; None: forever."""
    longest = _duration(content, "max_lifetime") or policy.default_max_lifetime_ms
    if longest is None:
        return None
    longest = max(longest, _duration(content, "min_lifetime") or 0)
    if policy.allowed_lifetime_max_ms is not None:
        longest = min(longest, policy.allowed_lifetime_max_ms)
    return max(longest, policy.allowed_lifetime_min_ms or 0)


def sweep(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Delete the messages of all rooms that are too old; return how many events that were.

    It can be interrupted at any moment, and repeated. `step` is called between two writes.
    """
    if not db.server.config.retention.enabled:
        return 0
    with db.read() as tx:
        rooms = tx.sql.execute(_ROOMS).scalars().all()
    count = 0
    for room_id in rooms:
        try:
            with db.read() as tx:
                before = _bound(tx, room_id)
            if before is not None:
                count += history_purge.purge_history(
                    db, room_id, before, delete_local_events=True, report=lambda _: step()
                )
        except MatrixError as error:
            if error.errcode != "M_NOT_FOUND":  # deleted meanwhile, or without old events
                raise
        event_loop.pause()
    return count


def _bound(tx: Reader, room_id: str) -> int | None:
    """Return the position before which a room's history is too old. Raises M_NOT_FOUND."""
    if partial_rooms.is_partial(tx, room_id):
        return None
    event = state.current(tx, room_id, RETENTION)
    content = {} if event is None else event.content
    longest = lifetime_ms(tx.server.config.retention, content)
    return (
        None if longest is None else history_purge.bound_at_time(tx, room_id, tx.now_ms - longest)
    )


def _duration(content: Json, name: str) -> int | None:
    value = content.get(name)
    is_number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_number else None
