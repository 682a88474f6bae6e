"""Filters: which events of which rooms a client wants, and with which fields.

`parse` validates and compiles a filter once; `matches` then applies it to every event of a
response. The server stores and returns (GET /filter) the JSON that the client sent, so unknown keys
are kept there and ignored here. An absent list matches everything, an empty list of what to include
matches nothing, and a `not_…` list takes precedence over its counterpart.
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
"""In a list of rooms or users. Some clients list all the rooms that they show."""
MAX_NAMES: Final = 1000
"""In a list of event types, relation types or event fields."""
MAX_NAME_LENGTH: Final = 255
_MAX_CACHED_TYPES: Final = 500
_SLOW: Final = 4000
"""Total characters of patterns above which `pause` is called: matching 10,000 takes 0.1 ms."""


class UserId(str):
    """A validated element of a list of senders."""

    __slots__ = ()


class RoomId(str):
    """A validated element of a list of rooms."""

    __slots__ = ()


Pause = Callable[[], None]
"""Called during long computations so that other greenlets can run."""


def _no_pause() -> None:
    """Do nothing: the default `Pause`."""


class Types:
    """A set of patterns of event types; `*` is the only wildcard."""

    def __init__(self, patterns: Iterable[str], pause: Pause = _no_pause) -> None:
        patterns = frozenset(patterns)
        self.exact: Final = frozenset(pattern for pattern in patterns if "*" not in pattern)
        """Types without wildcards, for use in SQL if `globs` is empty."""
        wild = sorted(patterns - self.exact)
        self.globs: Final = tuple(wild)
        self._prefixes: Final = tuple(it[:-1] for it in wild if it.index("*") == len(it) - 1)
        """Nearly all patterns look like `m.room.*`, which one `startswith` can test together."""
        inner = [it for it in wild if it.index("*") < len(it) - 1]
        self._inner: Final = globs.AnyOf(inner)
        self._is_slow: Final = sum(map(len, inner)) > _SLOW
        self._pause: Final = pause
        self._cached: dict[str, bool] = {}

    def __contains__(self, event_type: str) -> bool:
        if not self.globs:
            return event_type in self.exact
        is_match = self._cached.get(event_type)
        if is_match is None:
            is_match = event_type in self.exact or self._matches(event_type)
            if len(self._cached) < _MAX_CACHED_TYPES:  # clients choose event types freely
                self._cached[event_type] = is_match
        return is_match

    def _matches(self, event_type: str) -> bool:
        if event_type.startswith(self._prefixes):
            return True
        is_match = bool(self._inner) and self._inner.matches(event_type)
        if self._is_slow:
            self._pause()
        return is_match


Tree = dict[str, "Tree | None"]
"""{property name: the wanted properties of its value, or None for all}."""


class Fields:
    """The paths of `event_fields`, as a tree."""

    def __init__(self, paths: Iterable[property_paths.Path]) -> None:
        self.tree: Final[Tree] = {}
        for path in sorted(paths):  # `content` comes before `content.body`, which is then redundant
            node = self.tree
            for name in path[:-1]:
                below = node.setdefault(name, {})
                if below is None:
                    break
                node = below
            else:
                node[path[-1]] = None


Limit = Annotated[int, msgspec.Meta(ge=0)]
"""The spec requires at least 1, but clients that want no timeline send 0. The caller caps it."""
Users = Annotated[frozenset[UserId], msgspec.Meta(max_length=MAX_IDS)]
Rooms = Annotated[frozenset[RoomId], msgspec.Meta(max_length=MAX_IDS)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
Names = Annotated[frozenset[Name], msgspec.Meta(max_length=MAX_NAMES)]


class EventFilter(msgspec.Struct, frozen=True):
    """A filter of events outside rooms: presence and account data."""

    limit: Limit | None = None
    types: Types | None = None
    not_types: Types | None = None
    senders: Users | None = None
    not_senders: Users = frozenset()


class RoomEventFilter(EventFilter, frozen=True):
    """A filter of events in rooms. The caller applies the keys about relations and lazy loading."""

    rooms: Rooms | None = None
    not_rooms: Rooms = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    related_by_rel_types: Names | None = None
    related_by_senders: Users | None = None
    rel_types: Names | None = msgspec.field(name="org.matrix.msc3874.rel_types", default=None)
    not_rel_types: Names = msgspec.field(
        name="org.matrix.msc3874.not_rel_types", default=frozenset()
    )


class RoomFilter(msgspec.Struct, frozen=True):
    """A filter of rooms, and of the sections of a room in /sync."""

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
"""The filter of requests that have none."""
EVERY_ROOM_EVENT: Final = RoomEventFilter()


def parse(json: object, pause: Pause = _no_pause) -> Filter:
    """Return the filter that this JSON describes. Raises ValueError, which names the invalid key.

    A filter may have thousands of wildcards and a response hundreds of event types: `pause` is
    called while they are matched.
    """
    return msgspec.convert(json, Filter, dec_hook=functools.partial(_decoded, pause))


def parse_room_event_filter(json: object, pause: Pause = _no_pause) -> RoomEventFilter:
    """Return the room event filter of /messages and /context. Raises ValueError as `parse` does."""
    return msgspec.convert(json, RoomEventFilter, dec_hook=functools.partial(_decoded, pause))


def matches(
    event_filter: EventFilter,
    event_type: str,
    sender: str | None,
    room_id: str = "",
    content: object = None,
    rel_type: str | None = None,
) -> bool:
    """Return whether an event, which relates to another by `rel_type`, matches the filter.

    An event without a sender (typing, receipts, account data) never matches a list of `senders` and
    is never excluded by `not_senders`.
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
    return not isinstance(it, RoomEventFilter) or _matches_room_event(
        it, room_id, content, rel_type
    )


def admits_room(room_filter: RoomFilter | RoomEventFilter, room_id: str) -> bool:
    """Return whether the filter includes this room."""
    if room_id in room_filter.not_rooms:
        return False
    return room_filter.rooms is None or room_id in room_filter.rooms


def pick(event: Json, fields: Fields | None) -> Json:
    """Return a copy of the event with only these fields; None: the event itself."""
    return event if fields is None else _picked(event, fields.tree)


def _matches_room_event(
    it: RoomEventFilter, room_id: str, content: object, rel_type: str | None
) -> bool:
    if not admits_room(it, room_id) or rel_type in it.not_rel_types:
        return False
    if it.rel_types is not None and rel_type not in it.rel_types:
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
    """Decode the types unknown to msgspec. Raises ValueError, to which msgspec adds the key."""
    if wanted is Types:
        return Types(_names(value), pause)
    if wanted is Fields:
        return Fields(map(property_paths.parse, _names(value)))
    if wanted is UserId:
        if not identifiers.is_user_id(value):
            raise ValueError("Not a user ID")
        return UserId(value)
    if not identifiers.is_room_id(value):
        raise ValueError("Not a room ID")
    return RoomId(value)


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise ValueError(f"Not an array of at most {MAX_NAMES} strings")
    if not all(isinstance(name, str) and len(name) <= MAX_NAME_LENGTH for name in value):
        raise ValueError(f"Not an array of strings of at most {MAX_NAME_LENGTH} characters")
    return value
