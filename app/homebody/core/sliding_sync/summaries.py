"""What stands above a room: its name, who is in it, what is unread, and its stamp.

Only what may have changed is told; None says that it has been taken away.
Spec: client-server-api#calculating-the-display-name-for-a-room
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson
from sqlalchemy import text

from homebody.core.events import state
from homebody.core.push import counts
from homebody.core.sliding_sync.order import Order
from homebody.core.sliding_sync.state import AVATAR, NAME, News
from homebody.core.sync import summaries
from homebody.core.user_data import ignored_users
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Reader

_BUMPING: Final = frozenset(
    {
        "m.room.create",
        "m.room.message",
        "m.room.encrypted",
        "m.sticker",
        "m.call.invite",
        "m.poll.start",
        "m.beacon_info",
    }
)
_MAX_SCANNED: Final = 5000
# In a room where for so long nobody has said anything, the oldest event looked at counts: it only
# ever moves forward, as the newest message does
_BUMPS = text(
    "SELECT room.key AS room_id, coalesce("
    " (SELECT position FROM (SELECT position, type, sender FROM events"
    "   WHERE room_id = room.key AND position <= :upto ORDER BY position DESC LIMIT :most)"
    "  WHERE type IN (SELECT value FROM json_each(:types))"
    "  AND sender NOT IN (SELECT value FROM json_each(:ignored)) LIMIT 1),"
    " (SELECT position FROM events WHERE room_id = room.key AND position <= :upto"
    "  ORDER BY position DESC LIMIT 1 OFFSET :most - 1),"
    " room.value) AS bump FROM json_each(:rooms) AS room"
)
_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")


def names(tx: Reader, one: News) -> Json:
    """Name and avatar, where the client does not know them; None: it has been taken away."""
    held = state.current_many(tx, one.span.room_id, [NAME, AVATAR])
    found: Json = {}
    for key, field, name in ((NAME, "name", "name"), (AVATAR, "url", "avatar")):
        if not one.is_initial and key not in one.changed:
            continue
        value = held[key].content.get(field) if key in held else None
        if isinstance(value, str) and value:
            found[name] = value
        elif not one.is_initial:
            found[name] = None
    return found


def add_members(tx: Reader, user_id: str, shown: Iterable[News], entries: dict[str, Json]) -> None:
    """Who is there, and after whom the room is called, where that may have changed."""
    changed = [
        one.span.room_id
        for one in shown
        if one.is_initial
        or one.may_have_redactions
        or any(key[0] == state.MEMBER or key in {NAME, _ALIAS} for key in one.changed)
    ]
    for room_id, summary in summaries.load(tx, user_id, changed).items() if changed else ():
        entry = entries[room_id]
        entry["joined_count"] = summary["m.joined_member_count"]
        entry["invited_count"] = summary["m.invited_member_count"]
        if summary.get("m.heroes"):
            keys = [(state.MEMBER, user) for user in summary["m.heroes"]]
            members = state.current_many(tx, room_id, keys)
            entry["heroes"] = [_hero(key[1], event.content) for key, event in members.items()]


def _hero(user_id: str, content: Json) -> Json:
    named = {key: content.get(key) for key in ("displayname", "avatar_url")}
    return {"user_id": user_id, **{key: value for key, value in named.items() if value}}


def add_counts(tx: Reader, user_id: str, entries: dict[str, Json]) -> None:
    """How much is unread in each room."""
    unread = counts.unread_in(tx, user_id, entries.keys()) if entries else {}
    for room_id, entry in entries.items():
        pairs = unread.get(room_id, {}).values()
        entry["notification_count"] = sum(pair[0] for pair in pairs)
        entry["highlight_count"] = sum(pair[1] for pair in pairs)


def bumps(tx: Reader, user_id: str, shown: list[News], order: Order) -> dict[str, int]:
    """{room_id: the position of the last thing that was said in it}; it never goes back."""
    found: dict[str, int] = {}
    asked: dict[str, int] = {}
    for one in shown:
        room_id = one.span.room_id
        if one.before is None:
            asked[room_id] = order.rooms[room_id].since
        elif one.has_gap:
            asked[room_id] = one.before.bump
        else:
            said = [it.position for it in one.span.timeline if it.type in _BUMPING]
            found[room_id] = max([one.before.bump, *said])
    if not asked:
        return found
    values = {
        "rooms": orjson.dumps(asked).decode(),
        "types": orjson.dumps(sorted(_BUMPING)).decode(),
        "ignored": orjson.dumps(sorted(ignored_users.of(tx, user_id))).decode(),
        "upto": tx.position,
        "most": _MAX_SCANNED,
    }
    before = {one.span.room_id: one.before.bump for one in shown if one.before is not None}
    for room_id, bump in tx.sql.execute(_BUMPS, values):
        found[room_id] = max(bump, before.get(room_id, 0))
    return found
