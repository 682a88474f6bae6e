"""Filters: which events, of which rooms, with which of their fields a client wants.

`parse` checks a filter once and compiles it; `matches` then asks it for every event of an answer.
What is stored, and given back by GET /filter, is the JSON that the client sent: keys that nobody
knows yet are kept there and ignored here. Everywhere an absent list admits all, an empty one of
what to include admits nothing, and a `not_…` list wins over its positive.
Spec: client-server-api#filtering
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Annotated, Final, Literal

import msgspec

from homebody.spec import globs, identifiers, property_paths
from homebody.spec.events import Json

MAX_IDS: Final = 10_000
"""In a list of rooms or users. Clients name all the rooms that they show."""
MAX_NAMES: Final = 1000
"""In a list of event types, relation types or event fields."""
MAX_NAME_LENGTH: Final = 255
_MAX_REMEMBERED_TYPES: Final = 500
_SLOW: Final = 4000
"""Characters of patterns with which a type is matched: it takes 0.1 ms with 10,000 of them."""


class UserId(str):
    """An element of a list of senders."""

    __slots__ = ()


class RoomId(str):
    """An element of a list of rooms."""

    __slots__ = ()


Pause = Callable[[], None]
"""Called between pieces of work that take long together, so that others can go on meanwhile."""


def _go_on() -> None:
    """Where nobody waits."""


class Types:
    """Patterns of event types, in which `*` is the only wildcard."""

    def __init__(self, patterns: Iterable[str], pause: Pause = _go_on) -> None:
        patterns = frozenset(patterns)
        self.exact: Final = frozenset(pattern for pattern in patterns if "*" not in pattern)
        """For SQL: with no `globs`, these are all that can match."""
        wild = sorted(patterns - self.exact)
        self.globs: Final = tuple(wild)
        self._prefixes: Final = tuple(it[:-1] for it in wild if it.index("*") == len(it) - 1)
        """Nearly all patterns are such as `m.room.*`, and one step sees whether any fits."""
        inner = [it for it in wild if it.index("*") < len(it) - 1]
        self._inner: Final = globs.AnyOf(inner)
        self._is_slow: Final = sum(map(len, inner)) > _SLOW
        self._pause: Final = pause
        self._remembered: dict[str, bool] = {}

    def __contains__(self, event_type: str) -> bool:
        if not self.globs:
            return event_type in self.exact
        answer = self._remembered.get(event_type)
        if answer is None:
            answer = event_type in self.exact or self._matches(event_type)
            if len(self._remembered) < _MAX_REMEMBERED_TYPES:  # anybody may send any type
                self._remembered[event_type] = answer
        return answer

    def _matches(self, event_type: str) -> bool:
        if event_type.startswith(self._prefixes):
            return True
        answer = bool(self._inner) and self._inner.matches(event_type)
        if self._is_slow:
            self._pause()
        return answer


Tree = dict[str, "Tree | None"]
"""Names of properties, and under each what is wanted of its value: None for all of it."""


class Fields:
    """The paths of `event_fields`, as a tree."""

    def __init__(self, paths: Iterable[property_paths.Path]) -> None:
        self.tree: Final[Tree] = {}
        for path in sorted(paths):  # `content` before `content.body`, which adds nothing to it
            node = self.tree
            for name in path[:-1]:
                below = node.setdefault(name, {})
                if below is None:
                    break
                node = below
            else:
                node[path[-1]] = None


Limit = Annotated[int, msgspec.Meta(ge=0)]
"""The spec wants 1 or more, clients that want no timeline send 0. The caller caps it."""
Users = Annotated[frozenset[UserId], msgspec.Meta(max_length=MAX_IDS)]
Rooms = Annotated[frozenset[RoomId], msgspec.Meta(max_length=MAX_IDS)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
Names = Annotated[frozenset[Name], msgspec.Meta(max_length=MAX_NAMES)]


class EventFilter(msgspec.Struct, frozen=True):
    """Of events outside rooms: presence and account data."""

    limit: Limit | None = None
    types: Types | None = None
    not_types: Types | None = None
    senders: Users | None = None
    not_senders: Users = frozenset()


class RoomEventFilter(EventFilter, frozen=True):
    """Of events in rooms. Relations and lazy loading are the caller's, who has the other events."""

    rooms: Rooms | None = None
    not_rooms: Rooms = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    related_by_rel_types: Names | None = None
    related_by_senders: Users | None = None


class RoomFilter(msgspec.Struct, frozen=True):
    """Of rooms, and for each part of what /sync tells about them."""

    rooms: Rooms | None = None
    not_rooms: Rooms = frozenset()
    include_leave: bool = False
    timeline: RoomEventFilter = RoomEventFilter()
    state: RoomEventFilter = RoomEventFilter()
    ephemeral: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()


class Filter(msgspec.Struct, frozen=True):
    """A filter as it is stored or given to /sync."""

    event_fields: Fields | None = None
    event_format: Literal["client", "federation"] = "client"
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()


EVERYTHING: Final = Filter()
"""What a request without a filter asks for."""
EVERY_ROOM_EVENT: Final = RoomEventFilter()


def parse(json: object, pause: Pause = _go_on) -> Filter:
    """Return the filter that this JSON describes. Raises ValueError, which names the wrong key.

    A filter may have thousands of wildcards, and an answer hundreds of types to match with them:
    `pause` is called in between.
    """
    return msgspec.convert(json, Filter, dec_hook=functools.partial(_decoded, pause))


def parse_room_event_filter(json: object, pause: Pause = _go_on) -> RoomEventFilter:
    """Return the bare filter that /messages and /context take. Like `parse`."""
    return msgspec.convert(json, RoomEventFilter, dec_hook=functools.partial(_decoded, pause))


def matches(
    event_filter: EventFilter,
    event_type: str,
    sender: str | None,
    room_id: str = "",
    content: object = None,
) -> bool:
    """Whether the filter admits an event.

    Without a sender (typing, receipts, account data) no list of `senders` admits it, and
    `not_senders` doesn't concern it.
    """
    it = event_filter
    if it.types is not None and event_type not in it.types:
        return False
    if it.not_types is not None and event_type in it.not_types:
        return False
    if it.senders is not None and sender not in it.senders:
        return False
    if sender in it.not_senders:
        return False
    return not isinstance(it, RoomEventFilter) or _matches_room_event(it, room_id, content)


def admits_room(room_filter: RoomFilter | RoomEventFilter, room_id: str) -> bool:
    """Whether anything of this room is wanted."""
    if room_id in room_filter.not_rooms:
        return False
    return room_filter.rooms is None or room_id in room_filter.rooms


def pick(event: Json, fields: Fields | None) -> Json:
    """The event with just these fields; those that it lacks are left out. None: all of them."""
    return event if fields is None else _picked(event, fields.tree)


def _matches_room_event(it: RoomEventFilter, room_id: str, content: object) -> bool:
    if not admits_room(it, room_id):
        return False
    if it.contains_url is None:
        return True
    return it.contains_url == (isinstance(content, dict) and "url" in content)


def _picked(json: Json, tree: Tree) -> Json:
    picked: Json = {}
    for name, below in tree.items():
        if name in json and below is None:
            picked[name] = json[name]
        elif below is not None and isinstance(json.get(name), dict):
            picked[name] = _picked(json[name], below)
    return picked


def _decoded(pause: Pause, wanted: type, value: object) -> object:
    """What msgspec can't make by itself. Raises ValueError, to which msgspec adds the key."""
    if wanted is Types:
        return Types(_names(value), pause)
    if wanted is Fields:
        return Fields(map(property_paths.parse, _names(value)))
    if wanted is UserId:
        if not identifiers.is_user_id(value):
            raise ValueError("Not a user id")
        return UserId(value)
    if not identifiers.is_room_id(value):
        raise ValueError("Not a room id")
    return RoomId(value)


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise ValueError(f"Not an array of at most {MAX_NAMES} strings")
    if not all(isinstance(name, str) and len(name) <= MAX_NAME_LENGTH for name in value):
        raise ValueError(f"Not an array of strings of at most {MAX_NAME_LENGTH} characters")
    return value
