"""Tags of rooms: `m.tag` in the account data of a room, one tag at a time.

Spec: client-server-api#room-tagging
"""

from __future__ import annotations

from homebody import errors
from homebody.core.user_data import account_data
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx


def get(tx: Reader, user_id: str, room_id: str) -> Json:
    """{tag: its information} of a room, with what clients have put there themselves."""
    content = account_data.find(tx, user_id, account_data.TAGS, room_id) or {}
    tags = content.get("tags")  # clients may also write m.tag as a whole, and anything into it
    return tags if isinstance(tags, dict) else {}


def put(tx: Tx, user_id: str, room_id: str, tag: str, information: Json) -> None:
    """Give the room a tag, or the tag other information. Raises M_INVALID_PARAM, M_BAD_JSON."""
    if not identifiers.has_at_most_255_bytes(tag):
        raise errors.invalid_param("A tag has at most 255 bytes")
    _check_order(information)
    tags = get(tx, user_id, room_id) | {tag: information}
    account_data.put(tx, user_id, account_data.TAGS, {"tags": tags}, room_id)


def remove(tx: Tx, user_id: str, room_id: str, tag: str) -> None:
    """Take a tag from the room; one that it has not is no error."""
    tags = get(tx, user_id, room_id)
    if tag in tags:
        left = {name: information for name, information in tags.items() if name != tag}
        account_data.put(tx, user_id, account_data.TAGS, {"tags": left}, room_id)


def _check_order(information: Json) -> None:
    order = information.get("order", 0)
    if not isinstance(order, int | float) or isinstance(order, bool) or not 0 <= order <= 1:
        raise errors.bad_json("order is a number from 0 to 1")
