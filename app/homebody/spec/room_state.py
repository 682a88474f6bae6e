"""What a room's state says about its people: creators, memberships, join rule, power levels.

The authorization rules are written in these terms, and the rest of the server asks the same
questions. Everything here reads the contents of events in place and copies nothing.
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
"""(type, state_key) -> event: a room's state, or the part of it that a question needs."""
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
"""What a named level is when `m.room.power_levels`, or its property, is missing."""

INTEGER_IN_STRING: Final = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)


class AuthError(ValueError):
    """An event may not follow the state. The text says which rule refused, and is for people."""


class ContentError(AuthError):
    """An event that nobody may send, whatever their power: its own content is wrong."""


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """Who may do what. Answers with the spec's defaults where the room's state says nothing."""

    content: Json
    """The content of `m.room.power_levels`, or an empty object."""
    creators: Set[str]
    """Those whose level is `creator_level` whatever the content says."""
    creator_level: Level

    def of_user(self, user_id: str) -> Level:
        """The user's level; `math.inf` for a creator since version 12."""
        if user_id in self.creators:
            return self.creator_level
        own = _entry(self.content, "users", user_id)
        return self.named("users_default") if own is None else own

    def to_send(self, event_type: str, *, is_state: bool) -> Level:
        """The *required power level* of an event type."""
        own = _entry(self.content, "events", event_type)
        return self.named("state_default" if is_state else "events_default") if own is None else own

    def named(self, name: str) -> Level:
        """The level of one of the names in `DEFAULTS`."""
        level = read_level(self.content.get(name))
        return DEFAULTS[name] if level is None else level

    def notification(self, key: str) -> Level:
        """What it takes to notify by this key ("room" for @room)."""
        own = _entry(self.content, "notifications", key)
        return 50 if own is None else own

    @property
    def to_redact(self) -> Level:
        """What it takes to redact the events of others."""
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
    """The power level that a JSON value stands for; None if it stands for none.

    Until version 9 strings with an integer count too and, where canonical JSON is not enforced
    (until version 5), floats. Since version 10 the rules keep both out of the state.
    Spec: rooms/v1#mroompower_levels-events-accept-values-as-strings
    """
    if type(value) is int:  # a bool is an int to isinstance(), and no level to Matrix
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
    """The power levels in force; `create` if the create event isn't in `state` itself."""
    levels = state.get(POWER_LEVELS)
    return levels_after(levels, create or state.get(CREATE))


def levels_after(levels: Event | None, create: Event | None) -> PowerLevels:
    """The power levels that these two events make, either of which may be missing."""
    content = {} if levels is None else levels.content
    if create is not None and create.version.has_privileged_creators:
        return PowerLevels(content, creators(create), math.inf)
    if levels is None and create is not None:
        return PowerLevels(content, creators(create), CREATOR_LEVEL_WITHOUT_POWER_LEVELS)
    return PowerLevels(content, NOBODY, 0)


def creators(create: Event) -> Set[str]:
    """The user ids of those who made the room, by its version's idea of that."""
    version = create.version
    if version.has_privileged_creators:
        others = create.content.get("additional_creators")
        return {create.sender, *others} if others else {create.sender}
    if version.has_creator_in_sender:
        return {create.sender}
    creator = create.content.get("creator")  # any JSON, as the rules only ask that it is there
    return {creator} if isinstance(creator, str) else NOBODY


def membership(state: StateMap, user_id: str) -> str:
    """The user's membership, "leave" for somebody who never was here."""
    member = state.get(("m.room.member", user_id))
    if member is None:
        return "leave"
    value: str = member.content["membership"]
    return value


def join_rule(state: StateMap) -> str:
    """The room's join rule, "invite" where it has none: what is not opened stays closed."""
    rules = state.get(JOIN_RULES)
    value = None if rules is None else rules.content.get("join_rule")
    return value if isinstance(value, str) else "invite"


def domain_of(identifier: str) -> str:
    """The server name in a user, room or event id, "" where there is none."""
    return identifier.partition(":")[2]


def _entry(content: Json, name: str, key: str) -> int | None:
    """The level of one key in `users`, `events` or `notifications`; None where it has none."""
    entries = content.get(name)
    return read_level(entries.get(key)) if isinstance(entries, dict) else None
