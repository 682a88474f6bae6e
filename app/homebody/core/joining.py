"""Joins of rooms of other servers that are under way.

Once another server has got a signed join, this server is in the room for all others. So the join is
written down before: after a crash or a timeout the same event is sent again, or a leave.

This module alone writes the table joining.
Spec: server-server-api#joining-rooms
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.models.federation import Joining
from homebody.storage.database import Reader, Tx


class Join(NamedTuple):
    """A join that another server may have got already."""

    room_id: str
    user_id: str
    event_id: str
    pdu: str
    """Canonical JSON."""
    servers: list[str]
    """The servers to send it to, in this order."""


_COLUMNS = (Joining.room_id, Joining.user_id, Joining.event_id, Joining.pdu, Joining.servers)
_BEGIN = insert(Joining)
_BEGIN = _BEGIN.on_conflict_do_update(
    index_elements=[Joining.room_id, Joining.user_id],
    set_={name: _BEGIN.excluded[name] for name in ("event_id", "pdu", "servers", "since_ts")},
)
_ALL = select(*_COLUMNS).order_by(Joining.since_ts)
_IN_ROOM = select(Joining.user_id).where(Joining.room_id == bindparam("room_id")).limit(1)
_END = delete(Joining).where(
    Joining.room_id == bindparam("in_room"), Joining.user_id == bindparam("of_user")
)
_REMOVE_ROOM = delete(Joining).where(Joining.room_id == bindparam("the_room"))


def begin(tx: Tx, join: Join) -> None:
    """Write a join down, in place of an earlier one by the same user."""
    tx.sql.execute(_BEGIN, {**join._asdict(), "since_ts": tx.now_ms})


def every(tx: Reader) -> Sequence[Join]:
    """Return all joins under way, the oldest first."""
    return [Join(*row) for row in tx.sql.execute(_ALL)]


def is_under_way(tx: Reader, room_id: str) -> bool:
    """Return whether a user of this server is joining the room."""
    return tx.sql.execute(_IN_ROOM, {"room_id": room_id}).first() is not None


def end(tx: Tx, room_id: str, user_id: str) -> None:
    """Forget a join that is done, or has failed."""
    tx.sql.execute(_END, {"in_room": room_id, "of_user": user_id})


def remove_room(tx: Tx, room_id: str) -> None:
    """Forget the joins of a room; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
