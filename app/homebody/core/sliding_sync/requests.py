"""The body of a sliding sync request, and what it wants of each room.

A request has lists, which are windows onto the sorted rooms, and subscriptions to single rooms.
What is wanted of one room is its `RoomConfig`, the union of all lists and subscriptions with it.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from homebody import errors
from homebody.core.events import state
from homebody.spec import identifiers
from homebody.spec.events import StateKey

MAX_TIMELINE: Final = 100
MAX_LISTS: Final = 100
"""As in the proposal."""
MAX_RANGES: Final = 20
"""Per list."""
MAX_SUBSCRIPTIONS: Final = 1000
MAX_PATTERNS: Final = 200
"""Entries of `required_state` in one list or subscription."""
MAX_DIFFERENT_PATTERNS: Final = 500
"""In a whole request, and in what a connection state keeps about a room."""

_LAZY: Final[StateKey] = (state.MEMBER, "$LAZY")
_ALL: Final[StateKey] = ("*", "*")
_ALL_BUT_MEMBERS: Final[StateKey] = ("*", "$LAZY")
"""Internal: the meaning of `["*", "*"]` together with `["m.room.member", "$LAZY"]`."""

Natural = Annotated[int, msgspec.Meta(ge=0)]
ListName = Annotated[str, msgspec.Meta(max_length=255)]


class Filters(msgspec.Struct):
    """The filters of a list."""

    is_dm: bool | None = None
    spaces: list[str] | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] = []
    room_name_like: str | None = None
    """From the older proposal (MSC3575); matrix-js-sdk still supports it."""
    tags: list[str] | None = None
    not_tags: list[str] = []


class Subscription(msgspec.Struct):
    """How much of a room the client wants."""

    timeline_limit: Natural = 0
    required_state: list[tuple[str, str]] = []


class RoomList(Subscription):
    """A window onto the sorted rooms; without ranges it includes all of them."""

    ranges: list[tuple[Natural, Natural]] | None = None
    filters: Filters | None = None


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


class Extensions(msgspec.Struct):
    """The supported extensions."""

    to_device: Extension = msgspec.field(default_factory=Extension)
    e2ee: Extension = msgspec.field(default_factory=Extension)
    account_data: Extension = msgspec.field(default_factory=Extension)
    receipts: Extension = msgspec.field(default_factory=Extension)
    typing: Extension = msgspec.field(default_factory=Extension)


class SlidingSyncRequest(msgspec.Struct):
    """The body of a request."""

    conn_id: str = ""
    lists: Annotated[dict[ListName, RoomList], msgspec.Meta(max_length=MAX_LISTS)] = {}
    room_subscriptions: dict[str, Subscription] = {}
    extensions: Extensions = msgspec.field(default_factory=Extensions)

    def check(self) -> None:
        """Raise M_INVALID_PARAM if a limit is exceeded."""
        if not identifiers.has_at_most_255_bytes(self.conn_id):
            raise errors.invalid_param("conn_id may have at most 255 bytes")
        if len(self.room_subscriptions) > MAX_SUBSCRIPTIONS:
            raise errors.invalid_param(f"A request may have {MAX_SUBSCRIPTIONS} subscriptions")
        if any(len(one.ranges or ()) > MAX_RANGES for one in self.lists.values()):
            raise errors.invalid_param(f"A list may have {MAX_RANGES} ranges")
        required = [
            one.required_state for one in (*self.lists.values(), *self.room_subscriptions.values())
        ]
        if any(len(patterns) > MAX_PATTERNS for patterns in required):
            raise errors.invalid_param(f"required_state may have {MAX_PATTERNS} entries")
        if len({pattern for patterns in required for pattern in patterns}) > MAX_DIFFERENT_PATTERNS:
            raise errors.invalid_param(
                f"All required_state may have {MAX_DIFFERENT_PATTERNS} different entries"
            )

    def digest(self) -> bytes:
        """Return a digest of everything about rooms, for comparison with the previous request."""
        wanted = self.extensions
        extensions = (wanted.account_data, wanted.receipts, wanted.typing)
        encoded = msgspec.json.encode((self.lists, self.room_subscriptions, extensions))
        return hashlib.blake2b(encoded, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """What is wanted of one room."""

    limit: int
    """The number of timeline events."""
    required: frozenset[StateKey]
    """The required state as (type, state key), either of which may be "*"."""

    def __or__(self, other: RoomConfig) -> RoomConfig:
        if self.covers(other):
            return self
        return RoomConfig(max(self.limit, other.limit), self.required | other.required)

    @property
    def is_lazy(self) -> bool:
        """Whether members are lazy-loaded."""
        return _LAZY in self.required

    @property
    def wants_all_members(self) -> bool:
        """Whether all members are required."""
        return bool(self.required & {_ALL, (state.MEMBER, "*")})

    def covers(self, other: RoomConfig) -> bool:
        """Return whether this config includes everything that the other one wants."""
        return self.limit >= other.limit and self.required >= other.required

    def wants(self, key: StateKey) -> bool:
        """Return whether this entry of the state is required."""
        event_type, state_key = key
        if event_type != state.MEMBER and _ALL_BUT_MEMBERS in self.required:
            return True
        return not self.required.isdisjoint(
            (key, (event_type, "*"), ("*", state_key), _ALL),
        )

    def named_members(self) -> set[str]:
        """Return the users whose membership is required by user ID."""
        kinds = {state.MEMBER, "*"}
        return {key for kind, key in self.required if kind in kinds} - {"*", "$LAZY", ""}


def room_config(user_id: str, subscription: Subscription) -> RoomConfig:
    """Return what a list or subscription wants of each of its rooms."""
    required = frozenset(_patterns(user_id, subscription.required_state))
    return RoomConfig(min(subscription.timeline_limit, MAX_TIMELINE), required)


def _patterns(user_id: str, required_state: Iterable[tuple[str, str]]) -> Iterable[StateKey]:
    pairs = set(required_state)
    for event_type, state_key in pairs:
        if len(event_type) > identifiers.MAX_BYTES or len(state_key) > identifiers.MAX_BYTES:
            continue  # no event has such a type or state key
        if state_key == "$LAZY":
            if event_type == state.MEMBER:
                yield _LAZY
        elif (event_type, state_key) == _ALL and _LAZY in pairs:
            yield _ALL_BUT_MEMBERS
        else:
            yield event_type, user_id if state_key == "$ME" else state_key
