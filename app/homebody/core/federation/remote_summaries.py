"""Summaries of rooms by other servers, checked before clients get them.

One value of a wrong type would make some clients reject a whole page of rooms.

Spec: client-server-api#published-room-directory, client-server-api#room-summaries
"""

from __future__ import annotations

from typing import Any, Final

from homebody.core.rooms import spaces
from homebody.spec import identifiers
from homebody.spec.events import Json

MAX_ALLOWED_ROOMS: Final = 100
MAX_CHILDREN: Final = 1000
_TEXTS: Final = (
    *("avatar_url", "canonical_alias", "encryption", "join_rule", "name", "room_type"),
    *("room_version", "topic"),
)
_FLAGS: Final = ("world_readable", "guest_can_join")


def checked(room: object) -> Json | None:
    """Return a summary with those of its keys that are valid, None without the required ones."""
    if not isinstance(room, dict) or not identifiers.is_room_id(room.get("room_id")):
        return None
    members = room.get("num_joined_members")
    if type(members) is not int or members < 0:
        return None
    found: Json = {"room_id": room["room_id"], "num_joined_members": members}
    found |= {name: room.get(name) is True for name in _FLAGS}
    found |= {name: room[name] for name in _TEXTS if isinstance(room.get(name), str)}
    allowed = room.get("allowed_room_ids")
    if isinstance(allowed, list):
        valid = [it for it in allowed if identifiers.is_room_id(it)]
        found["allowed_room_ids"] = valid[:MAX_ALLOWED_ROOMS]
    return found


def checked_children(events: object) -> list[Json]:
    """Return the valid ones of the m.space.child events of a space, in their order.

    Spec: client-server-api#ordering-of-children-within-a-space
    """
    found = [_child(it) for it in events] if isinstance(events, list) else []
    return sorted((it for it in found if it is not None), key=spaces.place)[:MAX_CHILDREN]


def _child(event: Any) -> Json | None:
    if not isinstance(event, dict) or event.get("type") != spaces.CHILD:
        return None
    content, ts = event.get("content"), event.get("origin_server_ts")
    if not isinstance(content, dict) or not spaces.is_child(content) or type(ts) is not int:
        return None
    if not identifiers.is_room_id(event.get("state_key")):
        return None
    if not identifiers.is_user_id(event.get("sender")):
        return None
    keys = ("type", "state_key", "sender", "content", "origin_server_ts")
    return {key: event[key] for key in keys}
