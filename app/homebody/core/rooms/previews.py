"""What a room is like, in one answer: its state, its last events, what the user keeps about it.

Spec: client-server-api#room-previews
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from sqlalchemy import bindparam, select

from homebody.core.events import history, state, visibility
from homebody.core.rooms import directory
from homebody.models.account_data import AccountData
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

_ACCOUNT_DATA = select(AccountData.type, AccountData.content).where(
    AccountData.user_id == bindparam("user_id"), AccountData.room_id == bindparam("room_id")
)


@dataclass(frozen=True, slots=True)
class Preview:
    """A room as a user may see it: as it is now, or was when they left."""

    membership: str | None
    events: list[ClientEvent]
    """The last ones, in chronological order."""
    start: int
    """Position from which to go backwards."""
    end: int
    """Position from which to go forwards."""
    state: list[ClientEvent]
    directory: str
    """Whether it stands in the room directory: "public" or "private"."""
    account_data: list[Json]


def preview(tx: Reader, user_id: str, room_id: str, limit: int) -> Preview:
    """A room with its last `limit` events. Raises M_FORBIDDEN as visibility.may_read does."""
    left = visibility.upto(tx, user_id, room_id)
    end = tx.position if left is None else left
    page = history.messages(
        tx, user_id, room_id, start=end, stop=None, is_backwards=True, limit=limit
    )
    kept = tx.sql.execute(_ACCOUNT_DATA, {"user_id": user_id, "room_id": room_id})
    return Preview(
        membership=state.membership_of(tx, room_id, user_id),
        events=page.events[::-1],
        start=page.end or 0,
        end=end,
        state=history.state_at(tx, user_id, room_id, end, filters.EVERY_ROOM_EVENT, ()),
        directory=directory.visibility(tx, room_id),
        account_data=[{"type": row.type, "content": orjson.loads(row.content)} for row in kept],
    )
