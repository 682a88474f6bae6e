"""The rooms that two users share.

Spec: client-server-api#mutual-rooms
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from typing import Final

from homebody import errors
from homebody.core.events import state
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader

MAX_ROOMS: Final = 100
"""In one answer."""


def shared(tx: Reader, user_id: str, other: str, start: str | None) -> Json:
    """A page of the rooms where both are joined, and how many there are.

    Pages follow the ids of rooms, and a token is the last id of the page before: so it never
    expires, and what changes meanwhile moves no room to another page.
    Raises M_INVALID_PARAM for what is no token, for no user id, and for one's own.
    """
    if not identifiers.is_user_id(other):
        raise errors.invalid_param("user_id is no user id")
    if other == user_id:
        raise errors.invalid_param("You share all your rooms with yourself")
    rooms = sorted(state.joined_rooms(tx, user_id) & state.joined_rooms(tx, other))
    first = 0 if start is None else bisect_right(rooms, _room_of(start))
    page = rooms[first : first + MAX_ROOMS]
    answer: Json = {"joined": page, "count": len(rooms)}
    if first + MAX_ROOMS < len(rooms):
        answer["next_batch"] = _token(page[-1])
    return answer


def _token(room_id: str) -> str:
    return base64.urlsafe_b64encode(room_id.encode()).decode().rstrip("=")


def _room_of(token: str) -> str:
    """Raises M_INVALID_PARAM."""
    try:
        room_id = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)).decode()
    except (binascii.Error, ValueError):
        room_id = ""
    if not identifiers.is_room_id(room_id):
        raise errors.invalid_param("from is no token of this server")
    return room_id
