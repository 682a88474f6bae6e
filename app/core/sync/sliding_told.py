"""What a connection of sliding sync has been told, by the `pos` that it shows.

A `pos` stands for a `Told`, which never changes: who repeats a request, as its answer was lost or
never made, is told the same again and what has happened since. Who shows a `pos` has received the
answer that brought it, so what was known before that is dropped.

All this is in memory, and bounded in number and bytes. A client whose `pos` is not known any more
begins anew: M_UNKNOWN_POS tells it to.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app import errors
from app.core.sync.sliding_asks import Config, Windows
from app.core.sync.sliding_filters import Kind
from app.core.sync.sliding_order import NO_ROOMS, Order
from app.spec.events import Json

Key = tuple[str, str, str]
"""(user_id, device_id, conn_id)"""


@dataclass(frozen=True, slots=True)
class ToldRoom:
    """What a connection knows of a room."""

    config: Config
    """As far as it asked."""
    membership: str
    bump: int
    """The stamp by which the client sorts it."""
    behind_since: int | None = None
    """It left the window, and has had news after this position; None: it knows all."""
    members: frozenset[str] = frozenset()
    """Of whom it was told lazily."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a connection knows when it shows a `pos`."""

    position: int = 0
    """Of the clock; 0: nothing."""
    ephemeral: int = 0
    asked: Windows = field(default_factory=Windows)
    """By the request that was answered so."""
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

    def parts(self) -> dict[int, int]:
        """{identity: bytes in memory, about} of what it shares with others of the connection."""
        sizes = [
            (self.order, 250 * len(self.order.rooms)),
            (self.rooms, 400 * len(self.rooms)),
            (self.kinds, 300 * len(self.kinds)),
            (self.direct, 100 * len(self.direct)),
            (self.asked, 2000 * (1 + len(self.asked.lists) + len(self.asked.room_subscriptions))),
            *((rooms, 70 * len(rooms)) for rooms in self.extended.values()),
        ]
        return {id(part): size for part, size in sizes}


NOTHING: Final = Told()


class _Connection:
    """The positions of one connection, and what they take."""

    __slots__ = ("size_bytes", "told", "used_at")

    def __init__(self) -> None:
        self.told: OrderedDict[str, Told] = OrderedDict()
        self.size_bytes = 0
        self.used_at = 0.0

    def measure(self) -> None:
        parts: dict[int, int] = {}
        for told in self.told.values():
            parts |= told.parts()
        self.size_bytes = sum(parts.values()) + 1000 * len(self.told)


class Connections:
    """What each connection was told, the least recently used first."""

    MAX_OF_DEVICE = 10
    MAX_BYTES = 64 * 2**20
    IDLE_SECONDS = 7 * 86_400.0
    KEPT = 4
    """Positions: the one that the client showed last, and answers that may be on their way."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._kept: OrderedDict[Key, _Connection] = OrderedDict()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, pos: str) -> Told:
        """What was told up to `pos`; all other positions end. Raises M_UNKNOWN_POS."""
        self._drop_idle()
        connection = self._kept.get(key)
        if connection is None or pos not in connection.told:
            raise errors.unknown_pos()
        told = connection.told[pos]
        connection.told = OrderedDict({pos: told})
        self._use(key, connection)
        return told

    def add(self, key: Key, told: Told, *, after: str | None) -> str:
        """A new `pos`, in an answer to who showed `after`; None: the connection begins."""
        self._drop_idle()
        connection = self._kept.get(key)
        if connection is None or after is None:
            self._drop(key)
            connection = self._kept[key] = _Connection()
        pos = secrets.token_urlsafe(9)
        if (
            after is not None and after in connection.told
        ):  # it may be shown again, whatever else is forgotten
            connection.told.move_to_end(after)
        connection.told[pos] = told
        while len(connection.told) > self.KEPT:
            connection.told.popitem(last=False)
        self._use(key, connection)
        self._keep_small(key)
        return pos

    def _use(self, key: Key, connection: _Connection) -> None:
        self._size_bytes -= connection.size_bytes
        connection.measure()
        self._size_bytes += connection.size_bytes
        connection.used_at = self._seconds()
        self._kept.move_to_end(key)

    def _keep_small(self, newest: Key) -> None:
        of_device = [key for key in self._kept if key[:2] == newest[:2]]
        for key in of_device[: -self.MAX_OF_DEVICE]:
            self._drop(key)
        while self._size_bytes > self.MAX_BYTES and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop_idle(self) -> None:
        oldest = self._seconds() - self.IDLE_SECONDS
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key].used_at > oldest:
                return
            self._drop(key)

    def _drop(self, key: Key) -> None:
        connection = self._kept.pop(key, None)
        if connection is not None:
            self._size_bytes -= connection.size_bytes
