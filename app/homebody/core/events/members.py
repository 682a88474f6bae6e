"""The members of a room, now or at a position: from the intervals of its state.

Messages of clients that know no `m.mentions` may mention members by their names, so the names of a
room's members are kept in memory together. This module alone changes that cache.
Spec: client-server-api#get_matrixclientv3roomsroomidmembers,
client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import orjson
from sqlalchemy import bindparam, func, or_, select

from homebody import errors
from homebody.core.events import client_events, state, visibility
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec import identifiers, room_state
from homebody.spec.events import Json
from homebody.spec.push_conditions import MAX_NAME_LENGTH
from homebody.storage.caches import CacheKind, ClientEvent, declare
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import in_effect


class Names(NamedTuple):
    """The names by which messages may mention a member, in lower case."""

    display_name: str
    """"" where there is none."""
    localpart: str


NAMES: CacheKind[str, dict[str, Names]] = declare("member_names", 4, lambda names: 300 * len(names))
"""{user_id: names} of the local members, by room_id: only they are notified here."""

_MEMBERS = (
    select(StateInterval.event_number)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.type == state.MEMBER,
        in_effect(StateInterval, bindparam("position")),
    )
    .order_by(StateInterval.event_number)
)
_OF_USERS = select(StateInterval.event_number).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.type == state.MEMBER,
    StateInterval.state_key.in_(bindparam("user_ids", expanding=True)),
    in_effect(StateInterval, bindparam("position"), is_end_indexed=False),
)
_FIRST = (
    select(StoredEvent.position, StoredEvent.type)
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.position.is_not(None))
    .order_by(StoredEvent.position)
    .limit(2)
)
_JOINED = (
    select(StateInterval.state_key, StoredEvent.pdu)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)
_JOINED_NAMES = _JOINED.with_only_columns(
    StateInterval.state_key,
    func.json_extract(StoredEvent.pdu, "$.content.displayname").label("display_name"),
).where(StateInterval.state_key.endswith(bindparam("domain"), autoescape=False))


def members(
    tx: Reader,
    user_id: str,
    room_id: str,
    *,
    at: int | None = None,
    membership: str | None = None,
    not_membership: str | None = None,
) -> list[ClientEvent]:
    """Return the member events of a room, as this user may see them now or `at` a position.

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
    return client_events.hide(tx, user_id, client_events.load(tx, found.all()))


def of_users(
    tx: Reader, room_id: str, user_ids: Collection[str], position: int
) -> list[ClientEvent]:
    """Return the member events of these users, as they were after a position."""
    if not user_ids:
        return []
    key = {"room_id": room_id, "position": position, "user_ids": sorted(user_ids)}
    return client_events.load(tx, tx.sql.execute(_OF_USERS, key).scalars().all())


def joined(tx: Reader, user_id: str, room_id: str) -> Json:
    """Return `{user_id: {display_name, avatar_url}}` of the members; null where one has none.

    Raises M_FORBIDDEN unless the user is one of them.
    """
    # Deviates: the specification leaves out what a member has not set, and has no null. matrix-nio
    # up to 0.24 takes no user for joined where a key is missing, and can't encrypt.
    state.check_joined(tx, room_id, user_id)
    rows = tx.sql.execute(_JOINED, {"room_id": room_id})
    return {row.state_key: _profile(orjson.loads(row.pdu)["content"]) for row in rows}


def names(tx: Reader, room_id: str) -> Mapping[str, Names]:
    """Return {user_id: names} of the local members."""
    known = tx.cached(NAMES, room_id)
    if known is None:
        asked = {"room_id": room_id, "domain": f":{tx.server.name}"}
        local = state.joined(tx, room_id).local
        found = [it for it in tx.sql.execute(_JOINED_NAMES, asked) if it.state_key in local]
        known = {row.state_key: _names(row.state_key, row.display_name) for row in found}
        tx.fill(NAMES, room_id, known)
    return known


def follow(tx: Tx, room_id: str, user_id: str, content: Json | None) -> None:
    """Update the names after a change of membership; None: the user is not in the room.

    Called by timeline/current_state.py alone.
    """
    if not tx.server.is_local(user_id):
        return
    known = tx.cached(NAMES, room_id)
    if known is None:
        tx.forget(NAMES, room_id)
        return
    others = {other: names for other, names in known.items() if other != user_id}
    if content is not None:
        others[user_id] = _names(user_id, content.get("displayname"))
    tx.remember(NAMES, room_id, others)


def forget_names(tx: Tx, room_id: str) -> None:
    """Forget the names of a room, so that they are read when next needed."""
    tx.forget(NAMES, room_id)


def remove_room(tx: Tx, room_id: str) -> None:
    """Remove what is kept of a room; called by rooms/purge.py alone."""
    forget_names(tx, room_id)


def _position(tx: Reader, user_id: str, room_id: str, at: int | None) -> int:
    """Return the position whose members are shown."""
    end = visibility.upto(tx, user_id, room_id)
    if at is None or at >= end:
        return end
    seen = visibility.history(tx, user_id, room_id).first_seen(at)
    if seen is None:
        raise errors.forbidden("You may not see the members at that time")
    # The first prev_batch of a room is before its creation, when it had no members. Clients use it
    # to get the members of what they show: that is the creator, as in Synapse's response.
    oldest = tx.sql.execute(_FIRST, {"room_id": room_id}).all()
    if oldest and oldest[0].type == room_state.CREATE[0]:  # else what was before is not there
        del oldest[0]
    first = oldest[0].position if oldest and oldest[0].type == state.MEMBER else 0
    return min(max(seen, first), end)


def _profile(content: Json) -> Json:
    fields = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
    return {name: value if isinstance(value, str) else None for name, value in fields.items()}


def _names(user_id: str, display_name: object) -> Names:
    name = display_name.lower() if isinstance(display_name, str) else ""
    if len(name) > MAX_NAME_LENGTH:
        name = ""
    return Names(name, identifiers.localpart(user_id).lower())
