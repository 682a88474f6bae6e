"""Gaps in the history of rooms: events that this server lacks, and others follow.

A gap lies just before a position. There the timeline of /sync is limited, and /messages fetches
older events from other servers (core/federation/backfill.py). An event that was missing is not an
end of the room's graph when it comes, as others follow it already.

This module alone writes the table gaps.
Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody.core.events import state
from homebody.models.events import OUT_OF_BAND, OUTLIER, StoredEvent
from homebody.models.federation import Gap as Row
from homebody.models.rooms import Room
from homebody.spec.events import Event
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import item, listed

HIGHEST: CacheKind[str, int] = declare("gaps", 1, lambda _: 0)
"""No room has a gap above this position."""
ONLY_ONE: Final = "highest"
"""The only key of HIGHEST."""


class Gap(NamedTuple):
    """The events that are missing just before a position."""

    position: int
    event_ids: list[str]
    tries: int
    """Failed ones."""
    next_try_ts: int
    """In ms."""


_IDS, _SPANS = listed("event_ids"), listed("spans")
_STORED = select(StoredEvent.event_id).where(
    StoredEvent.event_id.in_(select(_IDS.c.value)),
    StoredEvent.standing.not_in((OUTLIER, OUT_OF_BAND)),
)
_IN_ROOM = Row.room_number == state.ROOM_NUMBER
_NEW = insert(Row).values(
    room_number=state.ROOM_NUMBER,
    event_id=bindparam("missing"),
    position=bindparam("place"),
    tries=0,
    next_try_ts=0,
)
_ADD = _NEW.on_conflict_do_update(  # the event stands before all that follow it
    index_elements=["room_number", "event_id"],
    set_={
        "position": func.min(
            func.coalesce(Row.position, _NEW.excluded.position),
            func.coalesce(_NEW.excluded.position, Row.position),
        )
    },
)
_FILL = delete(Row).where(_IN_ROOM, Row.event_id == bindparam("missing"))
_IS_MISSING = select(Row.event_id).where(_IN_ROOM, Row.event_id == bindparam("missing"))
_MOVE = (
    update(Row)
    .where(_IN_ROOM, Row.position == bindparam("from_place"))
    .values(position=bindparam("place"), tries=0, next_try_ts=0)
)
_PUT_OFF = (
    update(Row)
    .where(_IN_ROOM, Row.position == bindparam("place"))
    .values(tries=Row.tries + 1, next_try_ts=bindparam("not_before_ts"))
)
_TOP = (
    select(Row.position)
    .where(_IN_ROOM, Row.position > bindparam("after"), Row.position <= bindparam("upto"))
    .order_by(Row.position.desc())
    .limit(1)
)
_AT = select(Row.event_id, Row.tries, Row.next_try_ts).where(
    _IN_ROOM, Row.position == bindparam("place")
)
_HIGHEST = select(func.coalesce(func.max(Row.position), 0))
_TOPS = (
    select(item(_SPANS, 0).label("room_id"), func.max(Row.position).label("position"))
    .select_from(_SPANS)
    .join(Room, Room.room_id == item(_SPANS, 0))
    .join(
        Row,
        (Row.room_number == Room.number)
        & (Row.position > item(_SPANS, 1))
        & (Row.position <= item(_SPANS, 2)),
    )
    .group_by(item(_SPANS, 0))
)
_NEWEST_ROOMS = (
    select(Room.room_id)
    .join(Row, Row.room_number == Room.number)
    .where(Row.position.is_not(None))
    .group_by(Room.number)
    .order_by(func.max(Row.position).desc())
    .limit(bindparam("count"))
)
_REMOVE_BEFORE = delete(Row).where(_IN_ROOM, Row.position <= bindparam("place"))
_REMOVE_ROOM = delete(Row).where(_IN_ROOM)


def add(tx: Tx, room_id: str, event_ids: Collection[str], position: int | None) -> None:
    """Note which of these events are missing, all cited by events from `position` on.

    Outliers are missing as well: they have no place in the timeline.
    """
    stored = set(tx.sql.execute(_STORED, {"event_ids": event_ids}).scalars())
    missing = [it for it in event_ids if it not in stored]
    if not missing:
        return
    rows = [{"room_id": room_id, "missing": it, "place": position} for it in missing]
    tx.sql.execute(_ADD, rows)
    if position is not None:
        tx.remember(HIGHEST, ONLY_ONE, max(position, _highest(tx)))


def fill(tx: Tx, event: Event) -> bool:
    """Note that an event is missing no more. Return whether it was."""
    asked = {"room_id": event.room_id, "missing": event.event_id}
    return tx.sql.execute(_FILL, asked).rowcount > 0


def is_missing(tx: Reader, event: Event) -> bool:
    """Return whether an event is missing, and others follow it."""
    asked = {"room_id": event.room_id, "missing": event.event_id}
    return tx.sql.execute(_IS_MISSING, asked).first() is not None


def fill_many(tx: Tx, room_id: str, event_ids: Iterable[str]) -> None:
    """Note that events are missing no more."""
    rows = [{"room_id": room_id, "missing": it} for it in event_ids]
    if rows:
        tx.sql.execute(_FILL, rows)


def move(tx: Tx, room_id: str, position: int, to: int) -> None:
    """Move what is still missing before `position`, after older events were put there."""
    tx.sql.execute(_MOVE, {"room_id": room_id, "from_place": position, "place": to})


def put_off(tx: Tx, room_id: str, position: int, not_before_ts: int) -> None:
    """Note that the events before a position could not be fetched, and when to try again."""
    asked = {"room_id": room_id, "place": position, "not_before_ts": not_before_ts}
    tx.sql.execute(_PUT_OFF, asked)


def newest(tx: Reader, room_id: str, after: int, upto: int) -> Gap | None:
    """Return the newest gap of a room whose position is in (after, upto], or None."""
    if _highest(tx) <= after:
        return None
    asked = {"room_id": room_id, "after": after, "upto": upto}
    position = tx.sql.execute(_TOP, asked).scalar()
    return None if position is None else at(tx, room_id, position)


def at(tx: Reader, room_id: str, position: int) -> Gap | None:
    """Return the gap before a position, or None."""
    rows = tx.sql.execute(_AT, {"room_id": room_id, "place": position}).all()
    if not rows:
        return None
    return Gap(
        position,
        [row.event_id for row in rows],
        max(row.tries for row in rows),
        max(row.next_try_ts for row in rows),
    )


def newest_of_spans(tx: Reader, spans: Collection[tuple[str, int, int]]) -> dict[str, int]:
    """Return {room_id: position of its newest gap in (after, upto]} of (room_id, after, upto)."""
    if not spans or _highest(tx) <= min(after for _, after, _ in spans):
        return {}
    rows = tx.sql.execute(_TOPS, {"spans": spans})
    return {row.room_id: row.position for row in rows}


def newest_rooms(tx: Reader, count: int) -> list[str]:
    """Return rooms that have gaps, those with the newest ones first."""
    return list(tx.sql.execute(_NEWEST_ROOMS, {"count": count}).scalars())


def remove_before(tx: Tx, room_id: str, position: int) -> None:
    """Forget what is missing before the event at a position, which is to be the room's first."""
    tx.sql.execute(_REMOVE_BEFORE, {"room_id": room_id, "place": position})


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the gaps of a room; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"room_id": room_id})


def _highest(tx: Reader) -> int:
    """Return a position above which there are no gaps. Filled gaps may have been there."""
    found = tx.cached(HIGHEST, ONLY_ONE)
    if found is None:
        found = int(tx.sql.execute(_HIGHEST).scalar_one())
        tx.fill(HIGHEST, ONLY_ONE, found)
    return found
