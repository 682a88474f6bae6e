"""What a client asks of simplified sliding sync: windows onto its sorted rooms, and single rooms.

How much is wanted of one room is its `Config`: the sum of what all windows and subscriptions that
show the room ask for.
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
"""As the proposal has it."""
MAX_RANGES: Final = 20
"""Of one list."""
MAX_SUBSCRIPTIONS: Final = 1000
MAX_PATTERNS: Final = 200
"""Of required state, in one list or subscription."""
MAX_DIFFERENT_PATTERNS: Final = 500
"""In a whole request; what a connection knows of a room is kept, and adds up to no more."""

_LAZY: Final[StateKey] = (state.MEMBER, "$LAZY")
_ALL: Final[StateKey] = ("*", "*")
_ALL_BUT_MEMBERS: Final[StateKey] = ("*", "$LAZY")
"""What `["*", "*"]` means beside `["m.room.member", "$LAZY"]`; no client says it in one."""

Natural = Annotated[int, msgspec.Meta(ge=0)]


class Filters(msgspec.Struct):
    """Which rooms a list is about."""

    is_dm: bool | None = None
    spaces: list[str] | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] = []
    room_name_like: str | None = None
    """Of the older proposal, which matrix-js-sdk still knows."""
    tags: list[str] | None = None
    not_tags: list[str] = []


class Subscription(msgspec.Struct):
    """How much of a room the client wants to know."""

    timeline_limit: Natural = 0
    required_state: list[tuple[str, str]] = []


class RoomList(Subscription):
    """A window onto the sorted rooms; without ranges it shows all of them."""

    ranges: list[tuple[Natural, Natural]] | None = None
    filters: Filters | None = None


class Extension(msgspec.Struct):
    """Whether the client wants something besides rooms, and about which; `since` is of messages."""

    enabled: bool = False
    since: str | None = None
    lists: list[str] | None = None
    """Those in whose windows the rooms are; None or "*": all."""
    rooms: list[str] | None = None
    """Those that are subscribed to; None or "*": all."""

    @property
    def is_about_all(self) -> bool:
        """Whether it is about all rooms of which the connection was told."""
        return self.lists is None and self.rooms is None


class Extensions(msgspec.Struct):
    """What there is to ask for."""

    to_device: Extension = msgspec.field(default_factory=Extension)
    e2ee: Extension = msgspec.field(default_factory=Extension)
    account_data: Extension = msgspec.field(default_factory=Extension)
    receipts: Extension = msgspec.field(default_factory=Extension)
    typing: Extension = msgspec.field(default_factory=Extension)


class Windows(msgspec.Struct):
    """Which rooms a request is about."""

    lists: dict[str, RoomList] = {}
    room_subscriptions: dict[str, Subscription] = {}
    scopes: tuple[Extension, ...] = ()
    """The extensions that tell of rooms."""

    def digest(self) -> bytes:
        """Return what stands for the request where it is compared with the one before."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Config:
    """What is wanted of one room."""

    limit: int
    """How many of its newest events."""
    required: frozenset[StateKey]
    """Which of its state: (type, state key), either of which may be "*"."""

    def __or__(self, other: Config) -> Config:
        if self.covers(other):
            return self
        return Config(max(self.limit, other.limit), self.required | other.required)

    @property
    def is_lazy(self) -> bool:
        """Whether members are told of where they are needed to show the timeline."""
        return _LAZY in self.required

    @property
    def wants_all_members(self) -> bool:
        """Whether every member is told of."""
        return bool(self.required & {_ALL, (state.MEMBER, "*")})

    def covers(self, other: Config) -> bool:
        """Whether who asked for this has got all of the other."""
        return self.limit >= other.limit and self.required >= other.required

    def wants(self, key: StateKey) -> bool:
        """Whether this entry of the state is wanted."""
        event_type, state_key = key
        if event_type != state.MEMBER and _ALL_BUT_MEMBERS in self.required:
            return True
        return not self.required.isdisjoint(
            (key, (event_type, "*"), ("*", state_key), _ALL),
        )

    def named_members(self) -> set[str]:
        """The users whose membership is wanted by their name."""
        kinds = {state.MEMBER, "*"}
        return {key for kind, key in self.required if kind in kinds} - {"*", "$LAZY", ""}


class Configs:
    """One object for equal configs: each of a user's rooms has one, which is kept."""

    def __init__(self) -> None:
        self._known: dict[Config, Config] = {}

    def shared(self, one: Config) -> Config:
        """Return the first config that equals this one."""
        return self._known.setdefault(one, one)


def check(asked: Windows) -> None:
    """Raises M_INVALID_PARAM for more than a client can want."""
    if len(asked.lists) > MAX_LISTS:
        raise errors.invalid_param(f"A request has at most {MAX_LISTS} lists")
    if len(asked.room_subscriptions) > MAX_SUBSCRIPTIONS:
        raise errors.invalid_param(f"A request has at most {MAX_SUBSCRIPTIONS} subscriptions")
    if any(len(one.ranges or ()) > MAX_RANGES for one in asked.lists.values()):
        raise errors.invalid_param(f"A list has at most {MAX_RANGES} ranges")
    for one in (*asked.lists.values(), *asked.room_subscriptions.values()):
        if len(one.required_state) > MAX_PATTERNS:
            raise errors.invalid_param(f"required_state has at most {MAX_PATTERNS} entries")
    asked_for = (*asked.lists.values(), *asked.room_subscriptions.values())
    different = {pattern for one in asked_for for pattern in one.required_state}
    if len(different) > MAX_DIFFERENT_PATTERNS:
        raise errors.invalid_param(
            f"All required_state together has at most {MAX_DIFFERENT_PATTERNS} different entries"
        )


def config(user_id: str, asked: Subscription) -> Config:
    """What one list or subscription asks of each of its rooms."""
    required = frozenset(_patterns(user_id, asked.required_state))
    return Config(min(asked.timeline_limit, MAX_TIMELINE), required)


def _patterns(user_id: str, asked: Iterable[tuple[str, str]]) -> Iterable[StateKey]:
    pairs = set(asked)
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
