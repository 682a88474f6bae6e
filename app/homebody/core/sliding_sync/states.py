"""What a client has received on a connection of sliding sync. Spec: client-server-api#syncing."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from homebody.core.sliding_sync.filters import RoomProperties
from homebody.core.sliding_sync.order import NO_ROOMS, RoomOrder
from homebody.core.sliding_sync.requests import RoomConfig
from homebody.spec.events import Json


@dataclass(frozen=True, slots=True)
class SentRoom:
    """What was sent of a room."""

    config: RoomConfig
    """What of the room was sent."""
    membership: str
    bump_stamp: int
    """By which the client sorts the room."""
    stale_since: int | None = None
    """If set, the client misses changes after this position: the room was outside its windows, or
    the user left it and was invited again. After a restart 0: what it has is not known."""
    members: frozenset[str] = frozenset()
    """Members sent by lazy-loading."""


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """What a client has received when it sends a `pos`. Immutable."""

    position: int = 0
    """The position on the clock; 0 if nothing was sent."""
    ephemeral: int = 0
    request_digest: bytes = b""
    """The digest of the last request, which itself may have megabytes."""
    order: RoomOrder = NO_ROOMS
    """The user's rooms at this position."""
    rooms: Mapping[str, SentRoom] = field(default_factory=dict)
    direct: frozenset[str] = frozenset()
    """Direct chats, as in m.direct."""
    properties: Mapping[str, RoomProperties] = field(default_factory=dict)
    """Properties of rooms, if filters need them."""
    lists: Mapping[str, Json] = field(default_factory=dict)
    """The counts of the lists."""
    extension_rooms: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """{extension: the rooms sent by it}"""
    shows_typing: bool = False
    """The client may show users who type."""
    is_resumed: bool = False
    """The client has data from an older connection that the server no longer knows."""
    secret: bytes = b""
    """Of all states that have developed from the same beginning."""
    touched: Set[str] = frozenset()
    """The rooms that the client has received with this `pos`."""
    received: int = 0
    """Up to where the client has events, if this is an older state, kept over a restart."""

    @property
    def live_since(self) -> int:
        """The position after which events are news to the client."""
        return max(self.position, self.received)


NOTHING: Final = ConnectionState()
RESUMED: Final = ConnectionState(is_resumed=True)
