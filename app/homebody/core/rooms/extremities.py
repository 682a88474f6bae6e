"""The forward extremities of rooms, as administrators see them: the ends of their event graphs.

A room has one, as a rule. Where servers were apart for long, or one of them misbehaves, there may
be many, and each makes the next event more expensive.
"""

from __future__ import annotations

from sqlalchemy import select

from homebody.core import audit
from homebody.core.events import state
from homebody.core.timeline import store
from homebody.errors import MatrixError
from homebody.models.events import StoredEvent
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

_IDS = listed("event_ids")
_POSITIONS = select(StoredEvent.event_id, StoredEvent.position).where(
    StoredEvent.event_id.in_(select(_IDS.c.value))
)


def describe(tx: Reader, room_id: str) -> list[Json]:
    """Return the extremities of a room: event_id, depth, received_ts (ms), state_group.

    The last is the position at which the room's state is that after the event, as there are no
    state groups; received_ts is when the event was sent. Of an unknown room there are none.
    """
    ends = _ends(tx, room_id)
    known = state.find_many(tx, ends)
    return [
        {
            "event_id": event_id,
            "state_group": known[event_id].position or 0,
            "depth": known[event_id].event.depth,
            "received_ts": known[event_id].event.pdu["origin_server_ts"],
        }
        for event_id in ends
        if event_id in known
    ]


def remove_all_but_one(tx: Tx, actor: str, room_id: str) -> int:
    """Let the newest event be the only end of a room's graph; return how many others there were.

    The room's state becomes that after this event.
    """
    ends = _ends(tx, room_id)
    if len(ends) < 2:
        return 0
    positions = {
        row.event_id: row.position or 0 for row in tx.sql.execute(_POSITIONS, {"event_ids": ends})
    }
    newest = max(ends, key=lambda it: positions.get(it, 0))
    store.keep_ends(tx, room_id, [newest])
    audit.note(tx, actor, "room.remove_extremities", room_id, kept=newest, removed=len(ends) - 1)
    return len(ends) - 1


def _ends(tx: Reader, room_id: str) -> list[str]:
    try:
        return state.head(tx, room_id).forward_extremities
    except MatrixError:
        return []
