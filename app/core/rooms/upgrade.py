"""A room's move to another version: a new room takes its place, with what the old one had.

Everything happens in the caller's transaction, so a refusal anywhere leaves the old room as it was.
People are not moved, as nobody can join in the name of others: their clients follow the tombstone,
and personal_settings.py then brings along what they keep about the room.
Spec: client-server-api#room-upgrades
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, or_, select

from app import errors
from app.core.rooms import aliases, creation, directory, membership, rows, state, timeline
from app.db import Reader, Tx
from app.errors import MatrixError
from app.models.base import NOW_AND_LATER
from app.models.events import StoredEvent
from app.models.state import StateInterval
from app.spec import identifiers, room_state
from app.spec.events import Json
from app.spec.room_state import PowerLevels
from app.spec.room_versions import RoomVersion

TOMBSTONE: Final = "m.room.tombstone"
BODY: Final = "This room has been replaced"

COPIED: Final = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)
"""What the spec recommends, in its order, but for power levels: those end the creator's power to
set all else, so they come last."""
COPIED_BY_KEY: Final = ("m.space.child", "m.room.image_pack")
"""Besides: a space would be empty without its rooms, and the room's own stickers would be gone."""
COPIED_OF_CREATE: Final = ("type", "m.federate")
CLOSED_LEVEL: Final = 50
TOMBSTONE_LEVEL: Final = 150

_KEPT = (
    select(StateInterval.type, StateInterval.state_key, StoredEvent.pdu)
    .join(StoredEvent, StoredEvent.position == StateInterval.event_position)
    .where(
        StateInterval.room_id == bindparam("room_id"),
        StateInterval.to_position == NOW_AND_LATER,
        or_(
            StateInterval.type.in_((*COPIED, *COPIED_BY_KEY)),
            StateInterval.membership == "ban",
        ),
    )
    .order_by(StateInterval.event_position)
)


def upgrade(
    tx: Tx, user_id: str, room_id: str, version: RoomVersion, creators: Collection[str] = ()
) -> str:
    """The id of the room of this version that takes the place of an old one.

    `creators` are those besides the user; versions before 12 know none.
    Raises M_FORBIDDEN for who may not send m.room.tombstone in the old room, M_INVALID_PARAM for a
    creator that is no user id.
    """
    if not state.is_joined(tx, room_id, user_id):
        raise errors.forbidden("You are not in this room")
    known = state.current_many(tx, room_id, [room_state.CREATE, room_state.POWER_LEVELS])
    levels = room_state.power_levels(known)
    content = {
        key: value
        for key, value in known[room_state.CREATE].content.items()
        if key in COPIED_OF_CREATE
    }
    if version.has_privileged_creators:
        content |= _additional_creators(creators)
    new_id = _replace(tx, user_id, room_id, version, content)
    membership.join(tx, new_id, user_id)
    _copy_state(tx, user_id, room_id, new_id, version)
    aliases.move(tx, room_id, new_id, user_id)
    _move_in_directory(tx, room_id, new_id)
    if room_state.POWER_LEVELS in known:
        new_creators = {user_id, *content.get("additional_creators", ())}
        copied = _power_levels(levels, version, new_creators)
        _set(tx, user_id, new_id, (*room_state.POWER_LEVELS, copied))
        _close(tx, user_id, room_id, levels)
    return new_id


def _additional_creators(creators: Collection[str]) -> Json:
    for user_id in creators:
        if not identifiers.is_user_id(user_id):
            raise errors.invalid_param(f"additional_creators: {user_id!r} is no user id")
    return {"additional_creators": list(dict.fromkeys(creators))} if creators else {}


def _replace(tx: Tx, user_id: str, room_id: str, version: RoomVersion, content: Json) -> str:
    """The id of the new room, which names the old one, and the old one names it.

    Each should know an event of the other. Up to version 11 the new room's id is free to choose, so
    that the tombstone can come first; since version 12 its first event makes the id.
    """
    predecessor: Json = {"room_id": room_id}
    content["predecessor"] = predecessor
    if version.has_privileged_creators:
        predecessor["event_id"] = rows.head(tx, room_id).forward_extremities[-1]
        first = creation.first_event(user_id, version, content, "")
        new_id = timeline.create(tx, version, first)
        _bury(tx, user_id, room_id, new_id)
        return new_id
    new_id = creation.new_room_id(tx)
    predecessor["event_id"] = _bury(tx, user_id, room_id, new_id)
    first = creation.first_event(user_id, version, content, new_id)
    return timeline.create(tx, version, first)


def _bury(tx: Tx, user_id: str, room_id: str, new_id: str) -> str:
    """The id of the old room's tombstone. Raises M_FORBIDDEN for who may not send one."""
    return _set(tx, user_id, room_id, (TOMBSTONE, "", {"body": BODY, "replacement_room": new_id}))


def _copy_state(tx: Tx, user_id: str, room_id: str, new_id: str, version: RoomVersion) -> None:
    for event in _kept(tx, room_id):
        event_type, state_key, content = event
        if event_type == "m.room.join_rules":
            content = _understood(content, version)
        elif event_type == state.MEMBER:
            content = {key: content[key] for key in ("membership", "reason") if key in content}
        _set(tx, user_id, new_id, (event_type, state_key, content))


def _kept(tx: Reader, room_id: str) -> Iterator[creation.StateEvent]:
    """The state that goes along, in the order in which it was set."""
    for row in list(tx.sql.execute(_KEPT, {"room_id": room_id})):
        content = orjson.loads(row.pdu)["content"]
        is_single = row.type in COPIED
        if is_single and row.state_key != "":
            continue  # some other event, that happens to have the type
        if not content or (row.type == "m.space.child" and "via" not in content):
            continue  # was redacted, or taken back
        yield row.type, row.state_key, content


def _understood(content: Json, version: RoomVersion) -> Json:
    """Join rules as the version knows them: one that it does not would let in nobody, ever."""
    rule = content.get("join_rule")
    is_known = {
        "knock": version.may_knock,
        "restricted": version.may_restrict_joins,
        "knock_restricted": version.may_knock_restricted,
    }
    return content if is_known.get(str(rule), True) else {"join_rule": "invite"}


def _move_in_directory(tx: Tx, room_id: str, new_id: str) -> None:
    if directory.visibility(tx, room_id) == "public":
        directory.publish(tx, room_id, is_published=False)
        directory.publish(tx, new_id, is_published=True)


def _power_levels(old: PowerLevels, version: RoomVersion, creators: Set[str]) -> Json:
    """The old room's power levels in a form that the new version takes.

    Who made the old room and does not count as a creator of the new one keeps the highest level
    that there is: nobody shall lose a room by an upgrade.
    """
    content: Json = {}
    for key, value in old.content.items():
        if isinstance(value, dict):
            content[key] = _levels(value)
        elif key not in room_state.DEFAULTS:
            content[key] = value
        elif (level := room_state.read_level(value)) is not None:
            content[key] = level
    users = content.get("users", {})
    highest = max([creation.CREATOR_LEVEL, *users.values()])
    users |= dict.fromkeys(sorted(old.creators), highest)
    content["users"] = users
    if version.has_privileged_creators:
        content["users"] = {user: users[user] for user in users if user not in creators}
        content["events"] = _with_tombstone(content.get("events", {}), old)
    return content


def _with_tombstone(events: dict[str, int], old: PowerLevels) -> dict[str, int]:
    """The levels of events; what a tombstone takes is above state_default, as since version 12."""
    least = old.named("state_default") + 1
    if events.get(TOMBSTONE, 0) >= least:
        return events
    return {**events, TOMBSTONE: max(TOMBSTONE_LEVEL, int(least))}


def _levels(entries: dict[str, Any]) -> dict[str, int]:
    """Integers alone: up to version 9 a level could be a text."""
    read = {key: room_state.read_level(value) for key, value in entries.items()}
    return {key: level for key, level in read.items() if level is not None}


def _close(tx: Tx, user_id: str, room_id: str, levels: PowerLevels) -> None:
    """Let only moderators talk and invite in the old room, as far as the user has that power."""
    least = max(CLOSED_LEVEL, int(levels.named("users_default")) + 1)
    closed = {name: max(least, int(levels.named(name))) for name in ("events_default", "invite")}
    try:
        _set(tx, user_id, room_id, (*room_state.POWER_LEVELS, {**levels.content, **closed}))
    except MatrixError as refusal:
        # "If possible, the power levels in the old room should also be modified"
        if refusal.errcode != "M_FORBIDDEN":
            raise


def _set(tx: Tx, user_id: str, room_id: str, event: creation.StateEvent) -> str:
    event_type, state_key, content = event
    return timeline.send(tx, timeline.Draft(room_id, user_id, event_type, content, state_key))
