"""The summary of a room: name, avatar, members, unread counts and `bump_stamp`.

Only what may have changed is included; None means that a value was removed.
Spec: client-server-api#calculating-the-display-name-for-a-room
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Integer, bindparam, func, select

from homebody.core.events import state
from homebody.core.push import counts
from homebody.core.sliding_sync.order import RoomOrder
from homebody.core.sliding_sync.required_state import AVATAR, NAME, RoomUpdate
from homebody.core.sync import summaries
from homebody.core.user_data import account_data
from homebody.models.events import StoredEvent
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Reader
from homebody.storage.expressions import item, listed

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
_ROOMS = listed("rooms")  # [room_id, bump_stamp if there are no events]
_MOST = bindparam("most", type_=Integer())
_NEWEST = (
    select(StoredEvent.position, StoredEvent.type, StoredEvent.sender)
    .where(StoredEvent.room_id == item(_ROOMS, 0), StoredEvent.position <= bindparam("upto"))
    .order_by(StoredEvent.position.desc())
    .correlate(_ROOMS)
)
_SCANNED = _NEWEST.limit(_MOST).subquery()
_LAST_BUMP = select(_SCANNED.c.position).where(
    _SCANNED.c.type.in_(sorted(_BUMPING)),
    _SCANNED.c.sender.not_in(bindparam("ignored", expanding=True)),
)
# If none of the last _MAX_SCANNED events bumps the room, the oldest of them counts. Like the newest
# message, it only moves forward.
_LAST_SCANNED = _NEWEST.with_only_columns(StoredEvent.position).limit(1).offset(_MOST - 1)
_BUMPS = select(
    item(_ROOMS, 0),
    func.coalesce(
        _LAST_BUMP.limit(1).scalar_subquery(), _LAST_SCANNED.scalar_subquery(), item(_ROOMS, 1)
    ),
)
_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")


def name_and_avatar(contents: Mapping[StateKey, Json]) -> Json:
    """Return `name` and `avatar` of a room with this state, as far as it has them."""
    found: Json = {}
    for key, field, name in ((NAME, "name", "name"), (AVATAR, "url", "avatar")):
        value = contents[key].get(field) if key in contents else None
        if isinstance(value, str) and value:
            found[name] = value
    return found


def names(tx: Reader, update: RoomUpdate) -> Json:
    """Return name and avatar if they may have changed; None for one that was removed."""
    held = state.current_many(tx, update.span.room_id, [NAME, AVATAR])
    found = name_and_avatar({key: event.content for key, event in held.items()})
    if update.is_initial:
        return found
    pairs = ((NAME, "name"), (AVATAR, "avatar"))
    return {name: found.get(name) for key, name in pairs if key in update.changed}


def add_members(
    tx: Reader, user_id: str, shown: Iterable[RoomUpdate], entries: dict[str, Json]
) -> None:
    """Add member counts and heroes where they may have changed."""
    changed = [
        update.span.room_id
        for update in shown
        if update.is_initial
        or update.may_have_redactions
        or any(key[0] == state.MEMBER or key in {NAME, _ALIAS} for key in update.changed)
    ]
    for room_id, summary in summaries.load(tx, user_id, changed).items() if changed else ():
        entry = entries[room_id]
        entry["joined_count"] = summary["m.joined_member_count"]
        entry["invited_count"] = summary["m.invited_member_count"]
        if summary.get("m.heroes"):
            keys = [(state.MEMBER, user) for user in summary["m.heroes"]]
            members = state.current_many(tx, room_id, keys)
            entry["heroes"] = [
                _hero(key[1], members[key].content) for key in keys if key in members
            ]


def _hero(user_id: str, content: Json) -> Json:
    named = {key: content.get(key) for key in ("displayname", "avatar_url")}
    return {"user_id": user_id, **{key: value for key, value in named.items() if value}}


def add_counts(tx: Reader, user_id: str, entries: dict[str, Json]) -> None:
    """Add the unread counts of each room."""
    unread = counts.unread_in(tx, user_id, entries.keys()) if entries else {}
    for room_id, entry in entries.items():
        pairs = unread.get(room_id, {}).values()
        entry["notification_count"] = sum(pair[0] for pair in pairs)
        entry["highlight_count"] = sum(pair[1] for pair in pairs)


def bumps(tx: Reader, user_id: str, shown: list[RoomUpdate], order: RoomOrder) -> dict[str, int]:
    """Return {room_id: bump_stamp}, the position of the last message; it never decreases."""
    found: dict[str, int] = {}
    queried: dict[str, int] = {}
    for update in shown:
        room_id = update.span.room_id
        if update.before is None:
            queried[room_id] = order.rooms[room_id].since
        elif update.has_gap:
            queried[room_id] = update.before.bump_stamp
        else:
            said = [it.position for it in update.span.timeline if it.type in _BUMPING]
            found[room_id] = max([update.before.bump_stamp, *said])
    if not queried:
        return found
    values = {
        "rooms": queried.items(),
        "ignored": sorted(account_data.ignored_users(tx, user_id)),
        "upto": tx.position,
        "most": _MAX_SCANNED,
    }
    before = {it.span.room_id: it.before.bump_stamp for it in shown if it.before is not None}
    for room_id, bump in tx.sql.execute(_BUMPS, values):
        found[room_id] = max(bump, before.get(room_id, 0))
    return found
