"""The authorization rules of `m.room.power_levels`: no changes above one's own level.

Spec: rooms/v12#authorisation-rules (rule 10), rooms/v1#authorisation-rules (rule 10)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from homebody.spec import identifiers, room_state
from homebody.spec.events import Event, Json
from homebody.spec.room_state import AuthError, ContentError, Level, StateMap
from homebody.spec.room_versions import RoomVersion


def check(event: Event, state: StateMap, create: Event) -> None:
    """Raise AuthError unless the sender may set these power levels."""
    _check_values(event.content, event.version)
    _check_users(event.content, event.version)
    if event.version.has_privileged_creators:
        _check_creators_are_not_named(event.content, create)
    current = state.get(room_state.POWER_LEVELS)
    if current is None:
        return
    own = room_state.power_levels(state, create).of_user(event.sender)
    _check_named_levels(current.content, event.content, own)
    _check_entries("events", current.content, event.content, own)
    if event.version.checks_notification_levels:
        _check_entries("notifications", current.content, event.content, own)
    _check_changes_of_users(event, current.content, own)


def _check_values(content: Json, version: RoomVersion) -> None:
    """Check that every level is an integer.

    Before version 10 the rules require this of `users` alone, but the spec says elsewhere that
    strings "must be the following format" and that a level out of range causes "the powerlevel
    event to be rejected". In those versions null counts as absent, as in other servers.
    """
    for name in room_state.DEFAULTS:
        if name in content and not _is_level(content[name], version):
            raise ContentError(f"The power level {name!r} is not an integer")
    for name in _properties_with_entries(version):
        entries = content.get(name, {})
        if entries is None and not version.has_integer_power_levels:
            continue
        if not isinstance(entries, dict):
            raise ContentError(f"{name!r} in the power levels is not an object")
        for key, value in entries.items():
            if not _is_level(value, version):
                raise ContentError(f"The power level of {key!r} in {name!r} is not an integer")


def _properties_with_entries(version: RoomVersion) -> tuple[str, ...]:
    return ("events", "notifications") if version.checks_notification_levels else ("events",)


def _is_level(value: Any, version: RoomVersion) -> bool:
    if version.has_integer_power_levels:
        return type(value) is int
    return value is None or room_state.read_level(value) is not None


def _check_users(content: Json, version: RoomVersion) -> None:
    users = content.get("users", {})
    if not isinstance(users, dict):
        raise ContentError("'users' in the power levels is not an object")
    for user_id, value in users.items():
        if not identifiers.is_user_id(user_id):
            raise ContentError(f"{user_id!r} in the power levels is not a user id")
        if value is None or not _is_level(value, version):
            raise ContentError(f"The power level of {user_id} is not an integer")


def _check_creators_are_not_named(content: Json, create: Event) -> None:
    named = room_state.creators(create) & content.get("users", {}).keys()
    if named:
        raise ContentError(f"The power level of {min(named)}, a creator, can't be set")


def _check_named_levels(old: Json, new: Json, own: Level) -> None:
    for name in room_state.DEFAULTS:
        before, after = room_state.read_level(old.get(name)), room_state.read_level(new.get(name))
        if before != after:
            _check_within(own, before, after, name)


def _check_entries(name: str, old: Json, new: Json, own: Level) -> None:
    for key, before, after in _changes(old, new, name):
        _check_within(own, before, after, key)


def _check_changes_of_users(event: Event, old: Json, own: Level) -> None:
    for user_id, before, after in _changes(old, event.content, "users"):
        if user_id != event.sender and before is not None and before >= own:
            raise AuthError(f"You can't change the power level of {user_id}: it is not lower")
        if after is not None and after > own:
            raise AuthError(f"You can't give {user_id} power level {after}: your own is {own}")


def _changes(old: Json, new: Json, name: str) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield (key, level before, level after) for each entry added, changed or removed."""
    olds, news = _entries(old, name), _entries(new, name)
    for key in olds.keys() | news.keys():
        before, after = room_state.read_level(olds.get(key)), room_state.read_level(news.get(key))
        if before != after:
            yield key, before, after


def _entries(content: Json, name: str) -> Json:
    entries = content.get(name)
    return entries if isinstance(entries, dict) else {}  # state from other servers may be malformed


def _check_within(own: Level, before: int | None, after: int | None, what: str) -> None:
    for level in (before, after):
        if level is not None and level > own:
            raise AuthError(
                f"You can't change {what!r} from or to {level}: your own level is {own}"
            )
