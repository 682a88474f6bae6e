"""What a sliding sync request wants, whichever of the two dialects it is in.

A request has lists, which are windows onto the sorted rooms, and subscriptions to single rooms.
What is wanted of one room is its `RoomConfig`, the union of all lists and subscriptions with it.
deployed.py and merged.py make it of the bodies that clients send.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import msgspec

from homebody import errors
from homebody.core.events import state
from homebody.spec import identifiers
from homebody.spec.events import StateKey

MAX_TIMELINE: Final = 100
MAX_LISTS: Final = 100
"""As in the proposal."""
MANY_ROOMS: Final = 100
MAX_PATTERNS: Final = 200
"""Entries of `required_state` in one list or subscription."""
MAX_DIFFERENT_PATTERNS: Final = 500
"""In a whole request, and in what a connection state keeps about a room."""

ANY: Final = "\0"
"""Stands for all types or all state keys in a pattern; no client names a type so."""
LAZY: Final[StateKey] = (state.MEMBER, "\0lazy")
"""The members that a timeline needs."""
ALL: Final[StateKey] = (ANY, ANY)
ALL_BUT_MEMBERS: Final[StateKey] = (ANY, "\0lazy")
"""All state, if members are loaded lazily."""
_ALL_MEMBERS: Final = frozenset({ALL, (state.MEMBER, ANY)})

Natural = Annotated[int, msgspec.Meta(ge=0)]
ListName = Annotated[str, msgspec.Meta(max_length=255)]


class Extension(msgspec.Struct):
    """Whether an extension is enabled and for which rooms; `since` is for to-device messages."""

    enabled: bool = False
    since: str | None = None
    lists: list[str] | None = None
    """Lists whose rooms are included. None or "*": all lists."""
    rooms: list[str] | None = None
    """Subscribed rooms that are included. None or "*": all of them."""

    @property
    def is_about_all(self) -> bool:
        """Whether it includes all rooms that were sent on the connection."""
        return self.lists is None and self.rooms is None


class ThreadSubscriptions(Extension):
    """That for thread subscriptions (MSC4308), of all rooms."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 100
    """The number of changes in one response."""


class Profiles(Extension):
    """That for profiles (MSC4262)."""

    fields: list[str] | None = None
    """None: all."""


class StickyEvents(Extension):
    """That for sticky events (MSC4354)."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 100
    """The number of events in one response."""


STICKY_EVENTS: Final = "org.matrix.msc4354.sticky_events"
THREAD_SUBSCRIPTIONS: Final = "io.element.msc4308.thread_subscriptions"
PROFILES: Final = "org.matrix.msc4262.profiles"


class Extensions(
    msgspec.Struct,
    rename={
        "thread_subscriptions": THREAD_SUBSCRIPTIONS,
        "profiles": PROFILES,
        "sticky_events": STICKY_EVENTS,
    },
):
    """The supported extensions, the same in both dialects."""

    to_device: Extension = msgspec.field(default_factory=Extension)
    e2ee: Extension = msgspec.field(default_factory=Extension)
    account_data: Extension = msgspec.field(default_factory=Extension)
    receipts: Extension = msgspec.field(default_factory=Extension)
    typing: Extension = msgspec.field(default_factory=Extension)
    thread_subscriptions: ThreadSubscriptions = msgspec.field(default_factory=ThreadSubscriptions)
    profiles: Profiles = msgspec.field(default_factory=Profiles)
    sticky_events: StickyEvents = msgspec.field(default_factory=StickyEvents)

    def about_rooms(self) -> tuple[Extension, ...]:
        """Return those whose rooms depend on the request."""
        return self.account_data, self.receipts, self.typing, self.profiles, self.sticky_events


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a list."""

    is_dm: bool | None = None
    spaces: Sequence[str] | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    room_types: Sequence[str | None] | None = None
    not_room_types: Sequence[str | None] = ()
    room_name_like: str | None = None
    tags: Sequence[str] | None = None
    not_tags: Sequence[str] = ()


class Selection(NamedTuple):
    """The state that matches one set of patterns, and does not match another."""

    include: frozenset[StateKey]
    exclude: frozenset[StateKey]


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """What is wanted of one room."""

    limit: int
    """The number of timeline events."""
    required: frozenset[StateKey]
    """The required state as (type, state key), either of which may be ANY."""
    selections: frozenset[Selection] = frozenset()
    """More of the required state."""

    def __or__(self, other: RoomConfig) -> RoomConfig:
        if self.covers(other):
            return self
        return RoomConfig(
            max(self.limit, other.limit),
            self.required | other.required,
            self.selections | other.selections,
        )

    @property
    def is_lazy(self) -> bool:
        """Whether members are lazy-loaded."""
        return LAZY in self.required and not self.wants_all_members

    @property
    def wants_all_members(self) -> bool:
        """Whether all members are required, or all but a few."""
        return not self.required.isdisjoint(_ALL_MEMBERS) or any(
            not it.include.isdisjoint(_ALL_MEMBERS) and it.exclude.isdisjoint(_ALL_MEMBERS)
            for it in self.selections
        )

    @property
    def pattern_count(self) -> int:
        """The number of patterns."""
        more = sum(len(it.include) + len(it.exclude) for it in self.selections)
        return len(self.required) + more

    def requires_all_of(self, other: RoomConfig) -> bool:
        """Return whether this config has all patterns of the other one."""
        return self.required >= other.required and self.selections >= other.selections

    def covers(self, other: RoomConfig) -> bool:
        """Return whether this config includes everything that the other one wants."""
        return self.limit >= other.limit and self.requires_all_of(other)

    def wants(self, key: StateKey) -> bool:
        """Return whether this entry of the state is required."""
        return _matches(self.required, key) or any(
            _matches(it.include, key) and not _matches(it.exclude, key) for it in self.selections
        )

    def named_members(self) -> set[str]:
        """Return the users whose membership is required by user ID."""
        every = self.required.union(*(it.include for it in self.selections))
        kinds = {state.MEMBER, ANY}
        return {key for kind, key in every if kind in kinds} - {ANY, LAZY[1], ""}


def _matches(patterns: frozenset[StateKey], key: StateKey) -> bool:
    event_type, state_key = key
    if event_type != state.MEMBER and ALL_BUT_MEMBERS in patterns:
        return True
    return not patterns.isdisjoint((key, (event_type, ANY), (ANY, state_key), ALL))


@dataclass(frozen=True, slots=True)
class RoomList:
    """A window onto the sorted rooms."""

    config: RoomConfig
    ranges: Sequence[tuple[int, int]] | None = None
    """Of (first, last). None: all rooms."""
    filters: Filters | None = None


@dataclass(frozen=True, slots=True)
class SlidingSyncRequest:
    """A request."""

    conn_id: str
    lists: Mapping[str, RoomList]
    room_subscriptions: Mapping[str, RoomConfig]
    extensions: Extensions
    digest: bytes
    """A digest of everything about rooms, for comparison with the previous request."""
    is_merged: bool = False
    """Whether it is in the dialect of the merged proposal, which has no unread counts."""

    @property
    def is_wide(self) -> bool:
        """Whether it is about more than MANY_ROOMS."""
        ranges = [it for one in self.lists.values() for it in one.ranges or [(0, MANY_ROOMS)]]
        count = sum(1 + last - first for first, last in ranges if first <= last)
        return count + len(self.room_subscriptions) > MANY_ROOMS


def digest(*parts: object) -> bytes:
    """Return a digest of the parts of a body."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).digest()


def check(
    conn_id: str,
    lists: Collection[object],
    subscriptions: Collection[object],
    *,
    max_subscriptions: int,
) -> None:
    """Raise M_INVALID_PARAM if there is too much in a request."""
    if not identifiers.has_at_most_255_bytes(conn_id):
        raise errors.invalid_param("conn_id may have at most 255 bytes")
    if len(lists) > MAX_LISTS:
        raise errors.invalid_param(f"A request may have {MAX_LISTS} lists")
    if len(subscriptions) > max_subscriptions:
        raise errors.invalid_param(f"A request may have {max_subscriptions} subscriptions")


def check_patterns(required: Collection[Collection[object]]) -> None:
    """Raise M_INVALID_PARAM if there are too many patterns of state, given for each place."""
    if any(len(patterns) > MAX_PATTERNS for patterns in required):
        raise errors.invalid_param(f"required_state may have {MAX_PATTERNS} entries")
    if len({pattern for patterns in required for pattern in patterns}) > MAX_DIFFERENT_PATTERNS:
        raise errors.invalid_param(
            f"All required_state may have {MAX_DIFFERENT_PATTERNS} different entries"
        )


def is_possible(pattern: StateKey) -> bool:
    """Return whether events may have such a type and state key."""
    return all(len(part) <= identifiers.MAX_BYTES for part in pattern)
