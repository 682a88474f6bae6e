"""Rooms that administrators have blocked: no user of this server can join them.

Users who are in such a room stay there. Invites and knocks are refused as well.

This module alone writes the table blocked_rooms.
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core import audit
from homebody.models.moderation import BlockedRoom
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

_ALL = select(BlockedRoom.room_id, BlockedRoom.user_id, BlockedRoom.blocked_ts).order_by(
    BlockedRoom.blocked_ts, BlockedRoom.room_id
)
_FIND = select(BlockedRoom.user_id).where(BlockedRoom.room_id == bindparam("room_id"))


def blocked_by(tx: Reader, room_id: str) -> str | None:
    """Return the administrator who has blocked a room; None if it is not blocked."""
    found: str | None = tx.sql.execute(_FIND, {"room_id": room_id}).scalar()
    return found


def all_blocked(tx: Reader) -> list[Json]:
    """Return all blocked rooms: room_id, user_id of the administrator, blocked_ts (ms)."""
    return [dict(row) for row in tx.sql.execute(_ALL).mappings()]


def check(tx: Reader, room_id: str) -> None:
    """Raise M_FORBIDDEN if a room is blocked."""
    if blocked_by(tx, room_id) is not None:
        raise errors.forbidden("This room has been blocked on this server")


def block(tx: Tx, actor: str, room_id: str) -> None:
    """Block a room, which need not be known. The first administrator to block it is recorded."""
    if blocked_by(tx, room_id) is not None:
        return
    row = {"room_id": room_id, "user_id": actor, "blocked_ts": tx.now_ms}
    tx.sql.execute(insert(BlockedRoom), row)
    audit.note(tx, actor, "room.block", room_id)


def unblock(tx: Tx, actor: str, room_id: str) -> None:
    """Let users join a room again."""
    if tx.sql.execute(delete(BlockedRoom).where(BlockedRoom.room_id == room_id)).rowcount:
        audit.note(tx, actor, "room.unblock", room_id)
