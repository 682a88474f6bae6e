"""Copying of a user's settings to the room that replaces another: tags, m.direct, push rules.

The old room keeps them. They are copied once: when the user joins or, where the new room was
created before the tombstone, with the tombstone. So a setting that the user removes in the new room
does not return with the next join.
Spec: client-server-api#room-upgrades
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, func, select

from homebody.core.events import state
from homebody.core.user_data import account_data, push_rules
from homebody.errors import MatrixError
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec import room_state
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

DIRECT: Final = "m.direct"
TOMBSTONE: Final[StateKey] = ("m.room.tombstone", "")
USERS_AT_ONCE: Final = 20
"""Per transaction; each takes about a millisecond."""
MAX_TOMBSTONES: Final = 20
"""Per room, the first ones: each has up to 64 KiB, and all are read during a join."""

_TOMBSTONES = (
    select(StateInterval.from_position, StoredEvent.pdu)
    .join(StateInterval, StateInterval.event_number == StoredEvent.number)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.type == TOMBSTONE[0],
        StateInterval.state_key == TOMBSTONE[1],
    )
    .order_by(StateInterval.from_position)
    .limit(MAX_TOMBSTONES)
)
_LAST_LEFT = select(func.max(StateInterval.to_position)).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.type == state.MEMBER,
    StateInterval.state_key == bindparam("user_id"),
    StateInterval.membership == "join",
    StateInterval.to_position < NOW_AND_LATER,
)
"""The end of the last time that the user was joined."""


def copy_to_replacement(tx: Tx, user_id: str, room_id: str) -> None:
    """Copy the user's settings of the room that this one replaces, unless that was done."""
    old_id = predecessor_of(tx, room_id)
    if old_id is None or state.membership_of(tx, old_id, user_id) is None:
        return
    if _was_there_before(tx, user_id, old_id, room_id):
        return
    for bring in (_copy_tags, _add_to_direct_chats, _copy_push_rules):
        try:
            bring(tx, user_id, old_id, room_id)
        except MatrixError as error:  # a limit of these must not prevent the join
            LOG.warning("could not copy settings of %s to %s: %s", user_id, room_id, error)


def members_of_replacement(tx: Reader, room_id: str, since: int) -> list[str]:
    """Return the local members of the room that a tombstone set after the position `since` names.

    `room_id` is the old room. Empty when the new room does not name the old one as its predecessor,
    or when an earlier tombstone named it: then the settings were copied.
    """
    tombstone = state.current(tx, room_id, *TOMBSTONE)
    new_id = None if tombstone is None else tombstone.content.get("replacement_room")
    if tombstone is None or not isinstance(new_id, str) or predecessor_of(tx, new_id) != room_id:
        return []
    first = _first_tombstone(tx, room_id, new_id)
    if first is None or first <= since:
        return []
    return sorted(state.joined(tx, new_id).local)


def copy_for_users(db: Database, room_id: str, user_ids: Sequence[str]) -> None:
    """Copy the settings of these users to the room that the tombstone of `room_id` names."""
    for some in batches(user_ids, USERS_AT_ONCE):
        with db.write() as tx:
            tombstone = state.current(tx, room_id, *TOMBSTONE)
            new_id = None if tombstone is None else tombstone.content.get("replacement_room")
            for user_id in some:
                if isinstance(new_id, str) and state.is_joined(tx, new_id, user_id):
                    copy_to_replacement(tx, user_id, new_id)


def predecessor_of(tx: Reader, room_id: str) -> str | None:
    """Return the id of the room that this one replaces, or None unless both rooms say so.

    Anybody could create a room that claims to replace another one.
    """
    create = state.current(tx, room_id, *room_state.CREATE)
    predecessor = None if create is None else create.content.get("predecessor")
    old_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
    if not isinstance(old_id, str):
        return None
    tombstone = state.current(tx, old_id, *TOMBSTONE)
    if tombstone is None or tombstone.content.get("replacement_room") != room_id:
        return None
    return old_id


def _first_tombstone(tx: Reader, old_id: str, room_id: str) -> int | None:
    """Return the position at which the old room first named this one as its replacement.

    None where it had named other rooms MAX_TOMBSTONES times before.
    """
    for row in tx.sql.execute(_TOMBSTONES, {"room_id": old_id}).all():
        if orjson.loads(row.pdu)["content"].get("replacement_room") == room_id:
            return int(row.from_position)
    return None


def _was_there_before(tx: Reader, user_id: str, old_id: str, room_id: str) -> bool:
    """Return whether the user has been in the room since the tombstone, and has left it again."""
    first = _first_tombstone(tx, old_id, room_id)
    params = {"room_id": room_id, "user_id": user_id}
    last = tx.sql.execute(_LAST_LEFT, params).scalar()
    return first is not None and last is not None and last > first


def _copy_tags(tx: Tx, user_id: str, old_id: str, room_id: str) -> None:
    content = account_data.find(tx, user_id, account_data.TAGS, old_id)
    if content is not None and account_data.find(tx, user_id, account_data.TAGS, room_id) is None:
        account_data.store(tx, user_id, account_data.TAGS, content, room_id)


def _add_to_direct_chats(tx: Tx, user_id: str, old_id: str, room_id: str) -> None:
    direct = account_data.find(tx, user_id, DIRECT) or {}
    with_new = {other: _with_room(rooms, old_id, room_id) for other, rooms in direct.items()}
    if with_new != direct:
        account_data.store(tx, user_id, DIRECT, with_new)


def _with_room(rooms: Any, old_id: str, room_id: str) -> Any:
    """Add the new room to a list with the old one; clients may store anything in m.direct."""
    if not isinstance(rooms, list) or old_id not in rooms or room_id in rooms:
        return rooms
    return [*rooms, room_id]


def _copy_push_rules(tx: Tx, user_id: str, old_id: str, room_id: str) -> None:
    """Copy rules of the kind `room`, and of `override`, with which clients mute rooms."""
    for kind in ("room", "override"):
        known = push_rules.all_rules(tx, user_id)["global"][kind]
        taken = {rule["rule_id"] for rule in known}
        for rule in known:
            if not rule["default"] and _is_about(rule, old_id):
                new_id = rule["rule_id"].replace(old_id, room_id)
                if new_id not in taken:  # an existing rule of the new room is newer
                    push_rules.put(tx, user_id, kind, new_id, _for_room(rule, old_id, room_id))
                    push_rules.set_enabled(tx, user_id, kind, new_id, rule["enabled"])


def _is_about(rule: Json, room_id: str) -> bool:
    return rule["rule_id"] == room_id or any(
        _names(condition, room_id) for condition in rule.get("conditions", ())
    )


def _names(condition: Json, room_id: str) -> bool:
    return condition.get("key") == "room_id" and condition.get("pattern") == room_id


def _for_room(rule: Json, old_id: str, room_id: str) -> Json:
    """Return the rule as a client would set it for the new room."""
    copied = {"actions": rule["actions"]}
    if "conditions" in rule:
        copied["conditions"] = [
            {**condition, "pattern": room_id} if _names(condition, old_id) else condition
            for condition in rule["conditions"]
        ]
    return copied
