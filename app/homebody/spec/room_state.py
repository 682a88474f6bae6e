"""Read a room's state: creators, memberships, join rule, power levels.

Used by the authorization rules and by the rest of the server. Nothing is copied from the events.
Spec: client-server-api#mroompower_levels, client-server-api#mroommember
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from homebody.spec.events import Event, Json, StateKey

StateMap = Mapping[StateKey, Event]
"""{(type, state_key): event}: a room's state, or the part of it that is needed."""
Level = float
"""A power level: an int, or `math.inf` for the creators of a version 12 room."""

CREATE: Final[StateKey] = ("m.room.create", "")
POWER_LEVELS: Final[StateKey] = ("m.room.power_levels", "")
JOIN_RULES: Final[StateKey] = ("m.room.join_rules", "")

NOBODY: Final[Set[str]] = frozenset()
CREATOR_LEVEL_WITHOUT_POWER_LEVELS: Final = 100
DEFAULTS: Final[Mapping[str, int]] = {
    "ban": 50,
    "events_default": 0,
    "invite": 0,
    "kick": 50,
    "redact": 50,
    "state_default": 50,
    "users_default": 0,
}
"""Levels that apply when `m.room.power_levels`, or its property, is missing."""

INTEGER_IN_STRING: Final = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)


class AuthError(ValueError):
    """The event is not allowed in this state. The message says which rule rejected it."""


class ContentError(AuthError):
    """The event's content is not valid for any sender."""


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """The power levels of a room, with the spec's defaults for whatever is not set."""

    content: Json
    """The content of `m.room.power_levels`, or an empty object."""
    creators: Set[str]
    """Users whose level is always `creator_level`."""
    creator_level: Level

    def of_user(self, user_id: str) -> Level:
        """Return the user's level; `math.inf` for a creator since version 12."""
        if user_id in self.creators:
            return self.creator_level
        own = _entry(self.content, "users", user_id)
        return self.named("users_default") if own is None else own

    def to_send(self, event_type: str, *, is_state: bool) -> Level:
        """Return the *required power level* of an event type."""
        own = _entry(self.content, "events", event_type)
        return self.named("state_default" if is_state else "events_default") if own is None else own

    def named(self, name: str) -> Level:
        """Return the level with one of the names in `DEFAULTS`."""
        level = read_level(self.content.get(name))
        return DEFAULTS[name] if level is None else level

    def notification(self, key: str) -> Level:
        """Return the level required to notify by this key ("room" for @room)."""
        own = _entry(self.content, "notifications", key)
        return 50 if own is None else own

    @property
    def to_redact(self) -> Level:
        """The level required to redact other users' events."""
        return self.named("redact")

    @property
    def to_invite(self) -> Level:
        """The *invite level*."""
        return self.named("invite")

    @property
    def to_kick(self) -> Level:
        """The *kick level*."""
        return self.named("kick")

    @property
    def to_ban(self) -> Level:
        """The *ban level*."""
        return self.named("ban")


def read_level(value: object) -> int | None:
    """Return the power level represented by a JSON value, or None if it is not valid.

    Up to version 9, strings with an integer are valid as well and, where canonical JSON is not
    enforced (up to version 5), floats. Since version 10 the authorization rules reject both.
    Spec: rooms/v1#mroompower_levels-events-accept-values-as-strings
    """
    if type(value) is int:  # not isinstance(): bool is a subclass of int
        return value
    try:
        if isinstance(value, float):
            return int(value)
        if isinstance(value, str) and INTEGER_IN_STRING.fullmatch(value):
            return int(value)
    except (OverflowError, ValueError):  # Infinity, NaN, thousands of digits
        return None
    return None


def power_levels(state: StateMap, create: Event | None = None) -> PowerLevels:
    """Return the current power levels. `create` is needed if `state` lacks the create event."""
    levels = state.get(POWER_LEVELS)
    return levels_after(levels, create or state.get(CREATE))


def levels_after(levels: Event | None, create: Event | None) -> PowerLevels:
    """Return the power levels defined by these two events, either of which may be missing."""
    content = {} if levels is None else levels.content
    if create is not None and create.version.has_privileged_creators:
        return PowerLevels(content, creators(create), math.inf)
    if levels is None and create is not None:
        return PowerLevels(content, creators(create), CREATOR_LEVEL_WITHOUT_POWER_LEVELS)
    return PowerLevels(content, NOBODY, 0)


def creators(create: Event) -> Set[str]:
    """Return the user IDs of the creators as defined by the room version."""
    version = create.version
    if version.has_privileged_creators:
        others = create.content.get("additional_creators")
        return {create.sender, *others} if others else {create.sender}
    if version.has_creator_in_sender:
        return {create.sender}
    creator = create.content.get("creator")  # may be any JSON: the rules only require the key
    return {creator} if isinstance(creator, str) else NOBODY


def membership(state: StateMap, user_id: str) -> str:
    """Return the user's membership; "leave" if they have never been in the room."""
    member = state.get(("m.room.member", user_id))
    if member is None:
        return "leave"
    value: str = member.content["membership"]
    return value


def join_rule(state: StateMap) -> str:
    """Return the room's join rule, which defaults to "invite"."""
    rules = state.get(JOIN_RULES)
    value = None if rules is None else rules.content.get("join_rule")
    return value if isinstance(value, str) else "invite"


def domain_of(identifier: str) -> str:
    """Return the server name in a user, room or event ID, or "" if there is none."""
    return identifier.partition(":")[2]


def _entry(content: Json, name: str, key: str) -> int | None:
    """Return the level of a key in `users`, `events` or `notifications`, or None."""
    entries = content.get(name)
    return read_level(entries.get(key)) if isinstance(entries, dict) else None
