"""What a connection of sliding sync was sent, and about how much memory that takes.

A `Told` stands for one answer, and never changes; most of it is shared with the answer before it.
See sliding_connections.py for how they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from homebody.core.sliding_sync.filters import Kind
from homebody.core.sliding_sync.order import NO_ROOMS, Order
from homebody.core.sliding_sync.requests import Config
from homebody.spec.events import Json

_SLOT_BYTES: Final = 110
"""Of an element of a dict or a frozenset."""
_TEXT_BYTES: Final = 80
"""Of a string, besides its characters."""


@dataclass(frozen=True, slots=True)
class ToldRoom:
    """What a connection knows of a room."""

    config: Config
    """As far as it asked."""
    membership: str
    bump: int
    """The stamp by which the client sorts it."""
    behind_since: int | None = None
    """It left the window, or was left for an invite, and has had news after this position.

    None: the connection knows all of it."""
    members: frozenset[str] = frozenset()
    """Of whom it was told lazily."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a connection knows when it shows a `pos`."""

    position: int = 0
    """Of the clock; 0: nothing."""
    ephemeral: int = 0
    asked: bytes = b""
    """The digest of the request that was answered so: all of it could be megabytes."""
    order: Order = NO_ROOMS
    """The user's rooms at the position."""
    rooms: Mapping[str, ToldRoom] = field(default_factory=dict)
    direct: frozenset[str] = frozenset()
    """The rooms that are for two."""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """What filters have asked about rooms."""
    lists: Mapping[str, Json] = field(default_factory=dict)
    """How many rooms each list had."""
    extended: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By extension, the rooms of which it has told."""
    is_resumed: bool = False
    """The client knew things before the connection began, of which the server knows nothing."""

    def parts(self) -> dict[int, int]:
        """Return {identity: bytes in memory, about} of what it shares with others."""
        room_id_bytes = _TEXT_BYTES + max(map(len, self.order.ids[:1]), default=0)
        found = {
            id(self.order): (250 + room_id_bytes) * len(self.order.rooms),
            id(self.rooms): _SLOT_BYTES * len(self.rooms),
            id(self.kinds): sum(_SLOT_BYTES + it.size_bytes for it in self.kinds.values()),
            id(self.direct): sum(_SLOT_BYTES + len(it) for it in self.direct),
            id(self.lists): sum(400 + 4 * len(name) for name in self.lists),
        }
        for room_ids in self.extended.values():
            found[id(room_ids)] = _SLOT_BYTES * len(room_ids)
        for room in self.rooms.values():
            found[id(room)] = 300
            if (members := id(room.members)) not in found:
                found[members] = sum(_SLOT_BYTES + len(it) for it in room.members)
            if (required := id(room.config.required)) not in found:
                found[required] = _pattern_bytes(room.config)
        return found


def _pattern_bytes(config: Config) -> int:
    return sum(
        _SLOT_BYTES + 2 * _TEXT_BYTES + 4 * (len(event_type) + len(state_key))
        for event_type, state_key in config.required
    )


NOTHING: Final = Told()
RESUMED: Final = Told(is_resumed=True)
