"""State events that others cite, as the thousands that come with the state of a room.

They were checked in a process of their own (core/federation/bulk.py), and have no place in the
room's history. This module inserts into the table events, like store.py.
Spec: server-server-api#joining-rooms
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select

from homebody.core.events import auth_chains, client_events, state_changes
from homebody.core.timeline import store
from homebody.models.events import OUT_OF_BAND, StoredEvent
from homebody.storage.database import Tx
from homebody.storage.expressions import listed

_INSERT = insert(StoredEvent)
_IDS = listed("event_ids")
_OUT_OF_BAND = select(StoredEvent.event_id, StoredEvent.number).where(
    StoredEvent.event_id.in_(select(_IDS.c.value)), StoredEvent.standing == OUT_OF_BAND
)
_REMOVE_EVENT = delete(StoredEvent).where(StoredEvent.number == bindparam("which"))


@dataclass(slots=True)
class Outlier:
    """A state event that others cite, as `bulk_check.py` describes it."""

    pdu: str
    event_id: str
    standing: str
    is_in_state: bool
    type: str
    state_key: str
    sender: str
    origin_server_ts: int
    auth_event_ids: list[str]
    membership: str | None
    number: int = 0
    """Set when it is stored."""


def store_many(tx: Tx, room_id: str, outliers: Sequence[Outlier]) -> None:
    """Insert state events that others cite and that were checked, those that are cited first.

    Events that are stored already stay as they are.
    """
    ids = [it.event_id for it in outliers]
    known = auth_chains.numbers_of(tx, ids)
    out_of_band = {
        row.event_id: row.number for row in tx.sql.execute(_OUT_OF_BAND, {"event_ids": ids})
    }
    for event_id, number in out_of_band.items():  # they get their auth events, and another number
        del known[event_id]
        tx.sql.execute(_REMOVE_EVENT, {"which": number})
        tx.forget(client_events.CLIENT_EVENTS, number)
    new = [it for it in outliers if it.event_id not in known]
    if not new:
        return
    rows = []
    for it in new:
        it.number = known[it.event_id] = tx.next_event_number()
        if it.event_id in out_of_band:
            key = (it.type, it.state_key)
            state_changes.renumber(tx, room_id, key, out_of_band[it.event_id], it.number)
        rows.append(
            {
                **store.NOTHING_DERIVED,
                "number": it.number,
                "event_id": it.event_id,
                "room_id": room_id,
                "standing": it.standing,
                "type": it.type,
                "state_key": it.state_key,
                "sender": it.sender,
                "origin_server_ts": it.origin_server_ts,
                "pdu": it.pdu,
            }
        )
    tx.sql.execute(_INSERT, rows)
    auth_chains.add_many(tx, room_id, {it.number: it.auth_event_ids for it in new}, known)
