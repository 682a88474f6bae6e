"""Who is, was or is to be in a room, now or at a position: from the state's intervals.

Spec: client-server-api#get_matrixclientv3roomsroomidmembers,
client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

from collections.abc import Collection

import orjson
from sqlalchemy import bindparam, or_, select

from homebody import errors
from homebody.core.events import client_events, erasure, state, visibility
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

_MEMBERS = (
    select(StateInterval.event_position)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.type == state.MEMBER,
        StateInterval.from_position <= bindparam("position"),
        StateInterval.to_position > bindparam("position"),
    )
    .order_by(StateInterval.event_position)
)
_OF_USERS = select(StateInterval.event_position).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.type == state.MEMBER,
    StateInterval.state_key.in_(bindparam("user_ids", expanding=True)),
    StateInterval.from_position <= bindparam("position"),
    # the sum keeps SQLite from the index on to_position, by which it would read all members
    StateInterval.to_position + 0 > bindparam("position"),
)
_FIRST = (
    select(StoredEvent.position)
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.type == state.MEMBER)
    .order_by(StoredEvent.position)
    .limit(1)
)
_JOINED = (
    select(StateInterval.state_key, StoredEvent.pdu)
    .join(StoredEvent, StoredEvent.position == StateInterval.event_position)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)


def members(
    tx: Reader,
    user_id: str,
    room_id: str,
    *,
    at: int | None = None,
    membership: str | None = None,
    not_membership: str | None = None,
) -> list[ClientEvent]:
    """The member events of a room, as this user may see them now or `at` a position.

    With both conditions a member has to fulfil one of them.
    Raises M_FORBIDDEN as visibility.may_read does, and for a time that is hidden from the user.
    """
    query = _MEMBERS
    wanted = []
    if membership is not None:
        wanted.append(StateInterval.membership == membership)
    if not_membership is not None:
        wanted.append(StateInterval.membership != not_membership)
    if wanted:
        query = query.where(or_(*wanted))
    position = _position(tx, user_id, room_id, at)
    found = tx.sql.execute(query, {"room_id": room_id, "position": position}).scalars()
    return erasure.hide(tx, user_id, client_events.load(tx, found.all()))


def of_users(
    tx: Reader, room_id: str, user_ids: Collection[str], position: int
) -> list[ClientEvent]:
    """The member events of these users, as they were after a position."""
    if not user_ids:
        return []
    key = {"room_id": room_id, "position": position, "user_ids": sorted(user_ids)}
    return client_events.load(tx, tx.sql.execute(_OF_USERS, key).scalars().all())


def joined(tx: Reader, user_id: str, room_id: str) -> Json:
    """Return `{user_id: {display_name, avatar_url}}` of the members; null where one has none.

    Raises M_FORBIDDEN unless the user is one of them.
    """
    # Deviates: the specification leaves out what a member has not set, and has no null. matrix-nio
    # up to 0.24 takes nobody for joined where a key is missing, and can't encrypt.
    if not state.is_joined(tx, room_id, user_id):
        raise errors.forbidden("You are not in this room")
    rows = tx.sql.execute(_JOINED, {"room_id": room_id})
    return {row.state_key: _profile(orjson.loads(row.pdu)["content"]) for row in rows}


def _position(tx: Reader, user_id: str, room_id: str, at: int | None) -> int:
    """The position whose members are shown."""
    end = visibility.upto(tx, user_id, room_id)
    if end is None:
        end = tx.position
    if at is None or at >= end:
        return end
    seen = visibility.history(tx, user_id, room_id).first_seen(at)
    if seen is None:
        raise errors.forbidden("You may not know who was in the room then")
    # The first prev_batch of a room stands before its creation, when nobody was in it. Clients ask
    # with it who is in what they show: then it is the creator, as in Synapse's answer.
    first = tx.sql.execute(_FIRST, {"room_id": room_id}).scalar() or 0
    return min(max(seen, first), end)


def _profile(content: Json) -> Json:
    fields = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
    return {name: value if isinstance(value, str) else None for name, value in fields.items()}
