"""The rooms that guests may join, as m.room.guest_access says.

Spec: client-server-api#guest-access
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.models.accounts import Account
from homebody.models.base import NOW_AND_LATER
from homebody.models.state import StateInterval
from homebody.storage.database import Reader

GUEST_ACCESS: Final = "m.room.guest_access"


_JOINED_GUESTS = (
    select(StateInterval.state_key)
    .join(Account, Account.user_id == StateInterval.state_key)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
        Account.is_guest,
    )
)


def is_open(tx: Reader, room_id: str) -> bool:
    """Return whether guests may join the room."""
    setting = state.current(tx, room_id, GUEST_ACCESS)
    return setting is not None and setting.content.get("guest_access") == "can_join"


def check_may_join(tx: Reader, room_id: str, user_id: str) -> None:
    """Raise M_GUEST_ACCESS_FORBIDDEN for a guest in a room that does not allow guests."""
    if is_open(tx, room_id):
        return
    if accounts.is_guest(tx, user_id):
        raise errors.guest_access_forbidden("Guests can't join this room")


def joined_guests(tx: Reader, room_id: str) -> list[str]:
    """Return the guests who are in the room."""
    return tx.sql.execute(_JOINED_GUESTS, {"room_id": room_id}).scalars()
