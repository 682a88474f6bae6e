"""What a user keeps about a room goes along when they follow it to the room that replaces it.

Tags, the list of direct chats and push rules of their own. The old room keeps them too.
Spec: client-server-api#room-upgrades
"""

from __future__ import annotations

from typing import Any, Final

from app.core.push import rules
from app.core.rooms import state
from app.core.sync import account_data
from app.db import Reader, Tx
from app.spec import room_state
from app.spec.events import Json

DIRECT: Final = "m.direct"


def bring_along(tx: Tx, user_id: str, room_id: str) -> None:
    """Give a room that the user has just joined what they keep about the one that it replaces."""
    old_id = replaced_by(tx, room_id)
    if old_id is None or state.membership_of(tx, old_id, user_id) is None:
        return
    _copy_tags(tx, user_id, old_id, room_id)
    _add_to_direct_chats(tx, user_id, old_id, room_id)
    _copy_push_rules(tx, user_id, old_id, room_id)


def replaced_by(tx: Reader, room_id: str) -> str | None:
    """The id of the room that this one replaces, where that room agrees; else None.

    Anybody could make a room and say that it replaces another one.
    """
    create = state.current(tx, room_id, *room_state.CREATE)
    predecessor = None if create is None else create.content.get("predecessor")
    old_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
    if not isinstance(old_id, str):
        return None
    tombstone = state.current(tx, old_id, "m.room.tombstone")
    if tombstone is None or tombstone.content.get("replacement_room") != room_id:
        return None
    return old_id


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
    """A list of rooms, with the new one if the old one is in it; clients may write anything."""
    if not isinstance(rooms, list) or old_id not in rooms or room_id in rooms:
        return rooms
    return [*rooms, room_id]


def _copy_push_rules(tx: Tx, user_id: str, old_id: str, room_id: str) -> None:
    """Rules of the kind `room`, and those by which clients silence a room: `override`."""
    for kind in ("room", "override"):
        for rule in rules.all_rules(tx, user_id)["global"][kind]:
            if not rule["default"] and _is_about(rule, old_id):
                new_id = rule["rule_id"].replace(old_id, room_id)
                if new_id != rule["rule_id"]:
                    rules.put(tx, user_id, kind, new_id, _for_room(rule, old_id, room_id))
                    rules.set_enabled(tx, user_id, kind, new_id, rule["enabled"])


def _is_about(rule: Json, room_id: str) -> bool:
    return rule["rule_id"] == room_id or any(
        _names(condition, room_id) for condition in rule.get("conditions", ())
    )


def _names(condition: Json, room_id: str) -> bool:
    return condition.get("key") == "room_id" and condition.get("pattern") == room_id


def _for_room(rule: Json, old_id: str, room_id: str) -> Json:
    """The rule as a client would put it for the new room."""
    copied = {"actions": rule["actions"]}
    if "conditions" in rule:
        copied["conditions"] = [
            {**condition, "pattern": room_id} if _names(condition, old_id) else condition
            for condition in rule["conditions"]
        ]
    return copied
