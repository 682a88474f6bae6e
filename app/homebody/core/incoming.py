"""PDUs of other servers that wait until their predecessors are fetched.

Their form, hash and signatures were checked, and the transactions that brought them are
acknowledged. This module alone writes the table inbound_pdus.
Spec: server-server-api#transactions
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody.models.federation import InboundPdu
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed, unindexed


class Waiting(NamedTuple):
    """A waiting PDU; `pdu` is canonical JSON."""

    id: int
    event_id: str
    origin: str
    pdu: str
    received_ts: int
    """In ms."""
    tries: int
    """Failed ones."""


MAX_TRIES: Final = 8
"""The last one comes after some two hours."""
FIRST_DELAY_MS: Final = 60_000
MAX_WAITING: Final = 4000
"""PDUs of one room; one server may have half of what others leave free, so that it can't keep out
theirs. More are dropped, and found later as predecessors of others."""


_KEEP = insert(InboundPdu).on_conflict_do_nothing(index_elements=["event_id"])
_COUNT = select(func.count()).where(InboundPdu.room_id == bindparam("in_room"))
_COUNT_OF_SERVER = _COUNT.where(unindexed(InboundPdu.origin) == bindparam("of_server"))
_IDS = listed("event_ids")
_IN_ROOM = InboundPdu.room_id == bindparam("in_room")
_IS_DUE = InboundPdu.next_try_ts <= bindparam("now_ms")
_DUE = (
    select(
        InboundPdu.id,
        InboundPdu.event_id,
        InboundPdu.origin,
        InboundPdu.pdu,
        InboundPdu.received_ts,
        InboundPdu.tries,
    )
    .where(_IN_ROOM, InboundPdu.id > bindparam("after"), _IS_DUE)
    .order_by(InboundPdu.id)
    .limit(bindparam("count"))
)
_ARE_DUE = (
    select(InboundPdu.id)
    .where(
        InboundPdu.event_id.in_(select(_IDS.c.value)),
        unindexed(InboundPdu.room_id) == bindparam("in_room"),
        _IS_DUE,
    )
    .limit(1)
)
_ROOMS = select(InboundPdu.room_id).distinct()
_NEXT_TRY = select(func.min(InboundPdu.next_try_ts)).where(
    InboundPdu.room_id == bindparam("in_room")
)
_LATER_TRY = _NEXT_TRY.where(InboundPdu.next_try_ts > bindparam("now_ms"))
_PUT_OFF = (
    update(InboundPdu)
    .where(InboundPdu.event_id == bindparam("of_event"))
    .values(tries=InboundPdu.tries + 1, next_try_ts=bindparam("not_before_ts"))
)
_TRY_NOW = (
    update(InboundPdu)
    .where(InboundPdu.room_id == bindparam("of_room"))
    .values(tries=0, next_try_ts=0)
)
_DROP = delete(InboundPdu).where(InboundPdu.event_id == bindparam("of_event"))
_REMOVE_ROOM = delete(InboundPdu).where(InboundPdu.room_id == bindparam("the_room"))


def keep(tx: Tx, origin: str, room_id: str, pdus: Iterable[tuple[str, str]]) -> None:
    """Store PDUs of one room, unless they wait already, or too many do.

    `pdus` are (event ID, canonical JSON).
    """
    total = tx.sql.execute(_COUNT, {"in_room": room_id}).scalar_one()
    own = 0
    if total >= MAX_WAITING // 2:  # else none has too many
        asked = {"in_room": room_id, "of_server": origin}
        own = tx.sql.execute(_COUNT_OF_SERVER, asked).scalar_one()
    free = (MAX_WAITING - total + own) // 2 - own
    rows = [
        {
            "room_id": room_id,
            "origin": origin,
            "event_id": event_id,
            "pdu": pdu,
            "received_ts": tx.now_ms,
            "tries": 0,
            "next_try_ts": 0,
        }
        for event_id, pdu in islice(pdus, max(free, 0))
    ]
    if rows:
        tx.sql.execute(_KEEP, rows)


def rooms(tx: Reader) -> Collection[str]:
    """Return the rooms that have waiting PDUs."""
    return tx.sql.execute(_ROOMS).scalars().all()


def due(tx: Reader, room_id: str, after: int, count: int) -> list[Waiting]:
    """Return the first PDUs of a room after the row `after` that may be tried now."""
    asked = {"in_room": room_id, "now_ms": tx.now_ms, "after": after, "count": count}
    return [Waiting(*row) for row in tx.sql.execute(_DUE, asked)]


def are_due(tx: Reader, room_id: str, event_ids: Collection[str]) -> bool:
    """Return whether one of these events is among the PDUs of a room that may be tried now."""
    asked = {"in_room": room_id, "now_ms": tx.now_ms, "event_ids": event_ids}
    return tx.sql.execute(_ARE_DUE, asked).first() is not None


def next_try_ts(tx: Reader, room_id: str) -> int | None:
    """Return the time (ms) of the next try for a PDU of a room; None: there is no PDU."""
    found: int | None = tx.sql.execute(_NEXT_TRY, {"in_room": room_id}).scalar()
    return found


def later_try_ts(tx: Reader, room_id: str) -> int | None:
    """Return the time (ms) of the next try for the PDUs of a room that were put off, or None."""
    asked = {"in_room": room_id, "now_ms": tx.now_ms}
    found: int | None = tx.sql.execute(_LATER_TRY, asked).scalar()
    return found


def put_off(tx: Tx, waiting: Waiting) -> None:
    """Try again later, or drop a PDU that has been tried often enough."""
    if waiting.tries + 1 >= MAX_TRIES:
        drop(tx, waiting.event_id)
        return
    not_before_ts = tx.now_ms + FIRST_DELAY_MS * 2**waiting.tries
    tx.sql.execute(_PUT_OFF, {"of_event": waiting.event_id, "not_before_ts": not_before_ts})


def try_now(tx: Tx, room_id: str) -> None:
    """Let the PDUs of a room be tried at once, as more is known of it."""
    tx.sql.execute(_TRY_NOW, {"of_room": room_id})


def drop(tx: Tx, event_id: str) -> None:
    """Delete a PDU that is stored, or can't be."""
    tx.sql.execute(_DROP, {"of_event": event_id})


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the PDUs of a room; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
