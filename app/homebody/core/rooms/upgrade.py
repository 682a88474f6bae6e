"""Room upgrades: a new room of another version replaces the old one, with a copy of its state.

This is one transaction, unless there is so much state (thousands of bans, say) that other writers
would have to wait. Then the new room is created first and filled by several transactions, during
which nobody can join it and the old room is unchanged. The last one does the rest of the
specification's list at once: join rules, aliases, tombstone, power levels. So no banned user joins
before their ban is copied, and after a crash the user finds a room of which they are the only
member, and repeats the request.

Members are not moved, as nobody can join on behalf of others: their clients follow the tombstone,
and personal_settings.py then copies their settings of the room.
Spec: client-server-api#room-upgrades
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, or_, select

from homebody import errors
from homebody.core.events import state
from homebody.core.rooms import (
    aliases,
    blocked,
    creation,
    directory,
    membership,
    personal_settings,
)
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec import identifiers, room_state
from homebody.spec.events import Json
from homebody.spec.room_state import PowerLevels
from homebody.spec.room_versions import RoomVersion
from homebody.storage.database import Database, Reader, Tx

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
)
"""The types that the specification recommends, in its order. Join rules, which open the room, and
power levels, which end the creator's power to set the rest, come last."""
COPIED_BY_KEY: Final = ("m.space.child", "m.room.image_pack")
"""In addition: the rooms of a space, and a room's own stickers."""
COPIED_OF_CREATE: Final = ("type", "m.federate")
CLOSED_LEVEL: Final = 50
TOMBSTONE_LEVEL: Final = 150
AT_ONCE: Final = 50
"""State entries copied in one transaction; most rooms have fewer."""

_KEPT = (
    select(StateInterval.type, StateInterval.state_key, StateInterval.event_number, StoredEvent.pdu)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.event_number > bindparam("after"),
        or_(
            StateInterval.type.in_((*COPIED, *COPIED_BY_KEY)),
            StateInterval.membership == "ban",
        ),
    )
    .order_by(StateInterval.event_number)
    .limit(bindparam("count"))
)


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A user's request to upgrade a room.

    `creators` are all additional creators of the new room, for versions since 12. None: the client
    says nothing about them.
    """

    user_id: str
    room_id: str
    version: RoomVersion
    creators: Collection[str] | None = None


def upgrade(db: Database, request: UpgradeRequest) -> str:
    """Replace a room by one of another version, and return the new room's id.

    Raises M_FORBIDDEN for users who may not send m.room.tombstone in the old room, and for a
    blocked one, whose users would go on in the new room; M_INVALID_PARAM for a creator that is not
    a user ID.
    """
    new_id, copied_upto, is_done = "", 0, False
    try:
        while not is_done:
            with db.write() as tx:
                entries = _next_kept(tx, request.room_id, copied_upto)
                is_done = len(entries) < AT_ONCE
                new_id = new_id or _begin(tx, request, is_whole=is_done)
                _copy_state(tx, request, new_id, entries)
                if is_done:
                    _finish(tx, request, new_id)
            copied_upto = entries[-1].event_number if entries else 0
    except MatrixError:
        if copied_upto:
            with db.write() as tx:
                membership.leave(tx, new_id, request.user_id)
        raise
    return new_id


def _begin(tx: Tx, request: UpgradeRequest, *, is_whole: bool) -> str:
    """Create the new room, join it, and return its id. `is_whole`: the caller does the rest now."""
    state.check_joined(tx, request.room_id, request.user_id)
    blocked.check(tx, request.room_id)
    known = state.current_many(tx, request.room_id, [room_state.CREATE, room_state.POWER_LEVELS])
    levels = room_state.power_levels(known)
    if levels.of_user(request.user_id) < levels.to_send(TOMBSTONE, is_state=True):
        raise errors.forbidden("You may not send m.room.tombstone in this room")
    content = _content_of_create(known[room_state.CREATE].content, request)
    new_id = _create(tx, request, content, is_whole=is_whole)
    membership.join(tx, new_id, request.user_id)
    return new_id


def _finish(tx: Tx, request: UpgradeRequest, new_id: str) -> None:
    """Open the new room, and close the old one with a tombstone that points to it."""
    user_id, room_id = request.user_id, request.room_id
    keys = [room_state.CREATE, room_state.JOIN_RULES, room_state.POWER_LEVELS]
    known = state.current_many(tx, room_id, keys)
    rules = known.get(room_state.JOIN_RULES)
    if rules is not None and rules.content:
        supported = _supported(rules.content, request.version)
        _set(tx, user_id, new_id, (*room_state.JOIN_RULES, supported))
    aliases.move(tx, room_id, new_id, user_id)
    _move_in_directory(tx, room_id, new_id)
    _send_tombstone(tx, user_id, room_id, new_id)  # no change where the first transaction sent it
    personal_settings.copy_to_replacement(tx, user_id, new_id)
    if room_state.POWER_LEVELS in known:
        levels = room_state.power_levels(known)
        create = state.current_many(tx, new_id, [room_state.CREATE])[room_state.CREATE]
        copied = _power_levels(levels, request, room_state.creators(create))
        _set(tx, user_id, new_id, (*room_state.POWER_LEVELS, copied))
        _close(tx, user_id, room_id, levels)


def _content_of_create(old: Json, request: UpgradeRequest) -> Json:
    content = {key: value for key, value in old.items() if key in COPIED_OF_CREATE}
    if request.version.has_privileged_creators:
        content |= _additional_creators(request.creators or ())
    return content


def _additional_creators(creators: Collection[str]) -> Json:
    for user_id in creators:
        if not identifiers.is_user_id(user_id):
            raise errors.invalid_param(f"additional_creators: {user_id!r} is not a user ID")
    return {"additional_creators": list(dict.fromkeys(creators))} if creators else {}


def _create(tx: Tx, request: UpgradeRequest, content: Json, *, is_whole: bool) -> str:
    """Create the new room with a reference to the old one, and return its id.

    Up to version 11 its id can be chosen before the room exists, so the tombstone can come first
    and be part of the reference; in large rooms it is the last event. Since version 12 clients
    search for the tombstone.
    """
    user_id, room_id, version = request.user_id, request.room_id, request.version
    content["predecessor"] = {"room_id": room_id}
    new_id = "" if version.has_privileged_creators else creation.new_room_id(tx)
    if new_id and is_whole:
        content["predecessor"]["event_id"] = _send_tombstone(tx, user_id, room_id, new_id)
    elif new_id:
        content["predecessor"]["event_id"] = state.head(tx, room_id).forward_extremities[-1]
    return sending.create(tx, version, creation.first_event(user_id, version, content, new_id))


def _send_tombstone(tx: Tx, user_id: str, room_id: str, new_id: str) -> str:
    """Send the tombstone and return its id. Raises M_FORBIDDEN for users who may not send it."""
    return _set(tx, user_id, room_id, (TOMBSTONE, "", {"body": BODY, "replacement_room": new_id}))


def _copy_state(
    tx: Tx, request: UpgradeRequest, new_id: str, entries: Iterable[state.AnyRow]
) -> None:
    for event in _copied(entries):
        _set(tx, request.user_id, new_id, event)


def _next_kept(tx: Reader, room_id: str, after: int) -> list[state.AnyRow]:
    """Return the next state entries to copy, in the order in which they were set."""
    params = {"room_id": room_id, "after": after, "count": AT_ONCE}
    return list(tx.sql.execute(_KEPT, params))


def _copied(entries: Iterable[state.AnyRow]) -> Iterator[creation.StateEvent]:
    """Yield the entries that are not redacted or removed, as the new room gets them."""
    for row in entries:
        content = orjson.loads(row.pdu)["content"]
        is_single = row.type in COPIED
        if is_single and row.state_key != "":
            continue  # the specification gives these types no other state key
        if not content or (row.type == "m.space.child" and "via" not in content):
            continue  # redacted or removed
        if row.type == state.MEMBER:
            content = {key: content[key] for key in ("membership", "reason") if key in content}
        yield row.type, row.state_key, content


def _supported(content: Json, version: RoomVersion) -> Json:
    """Return join rules of the version; with an unknown one nobody could ever join."""
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


def _power_levels(old: PowerLevels, request: UpgradeRequest, creators: Set[str]) -> Json:
    """Return the old room's power levels in a form that the new version accepts.

    A creator of the old room who is not a creator of the new one gets the highest level, so that an
    upgrade takes the room from nobody by accident. Clients that name the new room's creators may
    want just that.
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
    if request.creators is None or not request.version.has_privileged_creators:
        highest = max([creation.CREATOR_LEVEL, *users.values()])
        users |= dict.fromkeys(sorted(old.creators), highest)
    content["users"] = users
    if request.version.has_privileged_creators:
        content["users"] = {user: users[user] for user in users if user not in creators}
        content["events"] = _with_tombstone(content.get("events", {}), old)
    return content


def _with_tombstone(events: dict[str, int], old: PowerLevels) -> dict[str, int]:
    """Return the levels of events, with a tombstone above state_default, as version 12 requires."""
    least = old.named("state_default") + 1
    if events.get(TOMBSTONE, 0) >= least:
        return events
    return {**events, TOMBSTONE: max(TOMBSTONE_LEVEL, int(least))}


def _levels(entries: dict[str, Any]) -> dict[str, int]:
    """Return the levels as integers; up to version 9 they could be strings."""
    read = {key: room_state.read_level(value) for key, value in entries.items()}
    return {key: level for key, level in read.items() if level is not None}


def _close(tx: Tx, user_id: str, room_id: str, levels: PowerLevels) -> None:
    """Let only moderators send messages and invite in the old room, if the user may do that."""
    least = max(CLOSED_LEVEL, int(levels.named("users_default")) + 1)
    closed = {name: max(least, int(levels.named(name))) for name in ("events_default", "invite")}
    try:
        _set(tx, user_id, room_id, (*room_state.POWER_LEVELS, {**levels.content, **closed}))
    except MatrixError as error:
        # "If possible, the power levels in the old room should also be modified"
        if error.errcode not in {"M_FORBIDDEN", "M_BAD_JSON"}:
            raise


def _set(tx: Tx, user_id: str, room_id: str, event: creation.StateEvent) -> str:
    event_type, state_key, content = event
    return sending.send(tx, sending.Draft(room_id, user_id, event_type, content, state_key))
