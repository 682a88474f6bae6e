"""What users know of rooms that this server is not in: the state that came with an invite or knock.

This module alone writes the table stripped_state.
Spec: client-server-api#stripped-state
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.core.events import state
from homebody.models.rooms import StrippedState
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx


class Known(NamedTuple):
    """What is known of a room."""

    events: list[Json]
    """Stripped state events, without the user's own membership."""
    servers: list[str]
    """Servers that are in the room, by which it may be joined."""


_PUT = insert(StrippedState)
_PUT = _PUT.on_conflict_do_update(
    index_elements=[StrippedState.room_id, StrippedState.user_id],
    set_={name: _PUT.excluded[name] for name in ("events", "servers")},
)
_FIND = select(StrippedState.events, StrippedState.servers).where(
    StrippedState.room_id == bindparam("room_id"), StrippedState.user_id == bindparam("user_id")
)
_REMOVE = delete(StrippedState).where(
    StrippedState.room_id == bindparam("in_room"), StrippedState.user_id == bindparam("of_user")
)
_REMOVE_ROOM = delete(StrippedState).where(StrippedState.room_id == bindparam("the_room"))


def put(tx: Tx, room_id: str, user_id: str, events: Sequence[Any], servers: Sequence[str]) -> None:
    """Store what a user may know of a room, in place of what they knew before."""
    key = {"room_id": room_id, "user_id": user_id}
    tx.sql.execute(_PUT, {**key, "events": list(events), "servers": list(servers)})


def find(tx: Reader, room_id: str, user_id: str) -> Known | None:
    """Return what a user knows of a room that this server is not in; None for other rooms."""
    if tx.server.name in state.joined(tx, room_id).servers:
        return None  # another user has joined since
    row = tx.sql.execute(_FIND, {"room_id": room_id, "user_id": user_id}).first()
    return None if row is None else Known(row.events, row.servers)


def remove(tx: Tx, room_id: str, user_id: str) -> None:
    """Delete what a user knows of a room, as they have joined it, or will not."""
    tx.sql.execute(_REMOVE, {"in_room": room_id, "of_user": user_id})


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete what users know of a room; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
