"""PDUs of other servers that wait until their predecessors are fetched.

Their form, hash and signatures were checked, and the transactions that brought them are
acknowledged. This module alone writes the table inbound_pdus.
Spec: server-server-api#transactions
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.models.federation import InboundPdu
from homebody.storage.database import Reader, Tx


class Waiting(NamedTuple):
    """A waiting PDU; `pdu` is canonical JSON."""

    event_id: str
    origin: str
    pdu: str


_KEEP = insert(InboundPdu).on_conflict_do_nothing(index_elements=["event_id"])
_OLDEST = (
    select(InboundPdu.event_id, InboundPdu.origin, InboundPdu.pdu)
    .where(InboundPdu.room_id == bindparam("in_room"))
    .order_by(InboundPdu.id)
    .limit(1)
)
_ROOMS = select(InboundPdu.room_id).distinct()
_DROP = delete(InboundPdu).where(InboundPdu.event_id == bindparam("of_event"))
_REMOVE_ROOM = delete(InboundPdu).where(InboundPdu.room_id == bindparam("the_room"))


def keep(tx: Tx, origin: str, room_id: str, event_id: str, pdu: str) -> None:
    """Store a PDU, unless it waits already."""
    row = {
        "room_id": room_id,
        "origin": origin,
        "event_id": event_id,
        "pdu": pdu,
        "received_ts": tx.now_ms,
    }
    tx.sql.execute(_KEEP, row)


def rooms(tx: Reader) -> Collection[str]:
    """Return the rooms that have waiting PDUs."""
    return tx.sql.execute(_ROOMS).scalars().all()


def oldest(tx: Reader, room_id: str) -> Waiting | None:
    """Return the PDU of a room that has waited longest, or None."""
    row = tx.sql.execute(_OLDEST, {"in_room": room_id}).first()
    return None if row is None else Waiting(row.event_id, row.origin, row.pdu)


def drop(tx: Tx, event_id: str) -> None:
    """Delete a PDU that is stored, or can't be."""
    tx.sql.execute(_DROP, {"of_event": event_id})


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the PDUs of a room; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
