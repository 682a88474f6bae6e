"""Mutual rooms: rooms that two users share.

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
"""Per response."""


def shared(tx: Reader, user_id: str, other: str, start: str | None) -> Json:
    """Return a page of the rooms that both users have joined, and their number.

    Rooms are ordered by id, and a token is the last id of the page before: it never expires, and
    changes between two requests do not move other rooms to another page.
    Raises M_INVALID_PARAM for an invalid token or user ID, and for one's own.
    """
    if not identifiers.is_user_id(other):
        raise errors.invalid_param("user_id is not a user ID")
    if other == user_id:
        raise errors.invalid_param("You share all your rooms with yourself")
    rooms = sorted(state.joined_rooms(tx, user_id) & state.joined_rooms(tx, other))
    first = 0 if start is None else bisect_right(rooms, _room_of(start))
    page = rooms[first : first + MAX_ROOMS]
    response: Json = {"joined": page, "count": len(rooms)}
    if first + MAX_ROOMS < len(rooms):
        response["next_batch"] = _token(page[-1])
    return response


def _token(room_id: str) -> str:
    return base64.urlsafe_b64encode(room_id.encode()).decode().rstrip("=")


def _room_of(token: str) -> str:
    """Decode a token. Raises M_INVALID_PARAM."""
    try:
        room_id = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)).decode()
    except (binascii.Error, ValueError):
        room_id = ""
    if not identifiers.is_room_id(room_id):
        raise errors.invalid_param("from is not a token of this server")
    return room_id
