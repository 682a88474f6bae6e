"""What a user does in rooms, for administrators: memberships, joins, and invites sent."""

from __future__ import annotations

from sqlalchemy import bindparam, distinct, func, select
from sqlalchemy.orm import aliased

from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.storage.database import Reader

_MEMBERSHIPS = (
    select(Room.room_id, StateInterval.membership)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.is_not(None),
    )
    .order_by(Room.room_id)
)
_JOINS = (
    select(func.count(distinct(StateInterval.room_number)))
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.membership == "join",
        StoredEvent.origin_server_ts >= bindparam("from_ts"),
    )
)
_OWN = aliased(StateInterval)
# no index has the sender: what is read are the members of the rooms in which the user ever was
_INVITES = (
    select(func.count())
    .select_from(StateInterval)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        StateInterval.room_number.in_(
            select(_OWN.room_number).where(
                _OWN.state_key == bindparam("user_id"), _OWN.membership.is_not(None)
            )
        ),
        StateInterval.membership == "invite",
        StoredEvent.sender == bindparam("user_id"),
        StoredEvent.origin_server_ts >= bindparam("from_ts"),
    )
)


def memberships(tx: Reader, user_id: str) -> dict[str, str]:
    """Return {room_id: membership} of a user, of this server or another, as far as it is known."""
    rows = tx.sql.execute(_MEMBERSHIPS, {"user_id": user_id})
    return {row.room_id: row.membership for row in rows}


def count_of_joined_rooms(tx: Reader, user_id: str, from_ts: int) -> int:
    """Return how many rooms a user has joined since a time in ms, also those left again."""
    return int(tx.sql.execute(_JOINS, {"user_id": user_id, "from_ts": from_ts}).scalar() or 0)


def count_of_sent_invites(tx: Reader, user_id: str, from_ts: int) -> int:
    """Return how many invites a user has sent since a time in ms."""
    ((count,),) = tx.sql.execute_long(_INVITES, {"user_id": user_id, "from_ts": from_ts})
    return int(count)
