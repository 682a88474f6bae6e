"""The connections of sliding sync, and the positions that each may show.

A `pos` stands for a `Told`, which never changes: a client that repeats a request, as it cancelled
it or lost the answer, is sent the same again and what has happened since. A client that shows a
`pos` has received the answer that brought it, so positions handed out before that one go. Those
handed out after it stay: the client may have received any of them, and use it next. Element X, for
one, cancels its waiting request and repeats the same `pos` whenever a room is opened, while the
answer of the first may be on its way. Likewise a request without `pos` ends nothing by itself.

All this is in memory, and bounded by what it takes there. A client whose `pos` is not known any
more begins anew: M_UNKNOWN_POS asks it to. Connections that nobody waits on go first, and then
those of the user whose connections take most, so that nobody can push out those of others.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from homebody import errors
from homebody.core.sliding_sync.sent import NOTHING, RESUMED, Told

Key = tuple[str, str, str]
"""(user_id, device_id, conn_id)"""

_OVERHEAD_BYTES: Final = 1000
"""Of a position, besides its parts."""


class _Connection:
    """The positions of one connection, the oldest first, and what they take."""

    __slots__ = ("_parts", "_refs", "size_bytes", "told", "used_at")

    def __init__(self) -> None:
        self.told: OrderedDict[str, Told] = OrderedDict()
        self.size_bytes = 0
        self.used_at = 0.0
        self._parts: dict[str, tuple[tuple[int, int], ...]] = {}
        self._refs: dict[int, int] = {}
        """How many positions share a part."""

    def add(self, pos: str, told: Told) -> None:
        parts = tuple((part, size) for part, size in told.parts().items() if size)
        for part, size in parts:
            if part not in self._refs:
                self.size_bytes += size
            self._refs[part] = self._refs.get(part, 0) + 1
        self.told[pos], self._parts[pos] = told, parts
        self.size_bytes += _OVERHEAD_BYTES

    def drop(self, pos: str) -> None:
        del self.told[pos]
        self.size_bytes -= _OVERHEAD_BYTES
        for part, size in self._parts.pop(pos):
            self._refs[part] -= 1
            if not self._refs[part]:
                del self._refs[part]
                self.size_bytes -= size

    def drop_before(self, pos: str) -> None:
        """Drop the positions that were handed out before this one."""
        for older in list(self.told):
            if older == pos:
                return
            self.drop(older)


class Connections:
    """The connections of all users, the least recently used first."""

    MAX_OF_DEVICE = 10
    MAX_BYTES = 64 * 2**20
    MAX_BYTES_OF_USER = 16 * 2**20
    IDLE_SECONDS = 7 * 86_400.0
    WAITED_ON_SECONDS = 600.0
    """A client that is there asks more often."""
    KEPT = 100
    """Positions of a connection, where its client repeats one and shows none that came after."""
    KEPT_BEGINNINGS = 4
    """Where a client begins again and again: it has given up all but the last few."""
    MAX_FORGOTTEN = 5000
    """Connections of which it is known that their clients have to begin anew."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._kept: OrderedDict[Key, _Connection] = OrderedDict()
        self._of_user: dict[str, OrderedDict[Key, None]] = {}
        self._bytes_of_user: dict[str, int] = {}
        self._size_bytes = 0
        self._forgotten: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """What all of them take, about."""
        return self._size_bytes

    def begin(self, key: Key) -> Told:
        """Return what a client knows that shows no `pos`: nothing of what comes with positions.

        One that has shown a `pos` which is not known any more may still show what it was sent.
        """
        return RESUMED if key in self._forgotten else NOTHING

    def get(self, key: Key, pos: str) -> Told:
        """Return what was sent up to `pos`; older positions go. Raises M_UNKNOWN_POS."""
        self._drop_idle()
        connection = self._kept.get(key)
        if connection is None or pos not in connection.told:
            self._forgotten[key] = None
            if len(self._forgotten) > self.MAX_FORGOTTEN:
                self._forgotten.popitem(last=False)
            raise errors.unknown_pos()
        self._forgotten.pop(key, None)
        before = connection.size_bytes
        connection.drop_before(pos)
        self._use(key, connection, before)
        return connection.told[pos]

    def add(self, key: Key, told: Told, *, after: str | None) -> str:
        """Return a new `pos` for what is sent to a client that has shown `after`; None: nothing."""
        self._drop_idle()
        connection = self._kept.get(key)
        if connection is None:
            connection = self._kept[key] = _Connection()
        before = connection.size_bytes
        pos = secrets.token_urlsafe(9)
        connection.add(pos, told)
        while after is None and len(connection.told) > self.KEPT_BEGINNINGS:
            connection.drop(next(iter(connection.told)))
        while len(connection.told) > 2 and (
            len(connection.told) > self.KEPT or connection.size_bytes > self.MAX_BYTES_OF_USER
        ):
            # not the first, which the client has shown and may show again, nor the newest
            connection.drop(list(connection.told)[1])
        self._use(key, connection, before)
        if connection.size_bytes > self.MAX_BYTES_OF_USER:
            self._drop_all([key])  # more than anybody's rooms take: it has to begin anew
        else:
            self._keep_small(key)
        return pos

    def _use(self, key: Key, connection: _Connection, bytes_before: int) -> None:
        grown = connection.size_bytes - bytes_before
        self._size_bytes += grown
        self._bytes_of_user[key[0]] = self._bytes_of_user.get(key[0], 0) + grown
        connection.used_at = self._seconds()
        self._kept.move_to_end(key)
        of_user = self._of_user.setdefault(key[0], OrderedDict())
        of_user[key] = None
        of_user.move_to_end(key)

    def _keep_small(self, newest: Key) -> None:
        user_id = newest[0]
        of_device = [key for key in self._of_user[user_id] if key[1] == newest[1]]
        self._drop_all(of_device[: -self.MAX_OF_DEVICE])
        while (
            self._bytes_of_user[user_id] > self.MAX_BYTES_OF_USER
            and len(self._of_user[user_id]) > 1
        ):
            self._drop_all([next(iter(self._of_user[user_id]))])
        while self._size_bytes > self.MAX_BYTES and len(self._kept) > 1:
            self._drop_all([self._most_dispensable(newest)])

    def _most_dispensable(self, newest: Key) -> Key:
        """The connection that goes next: one that is idle, else of the user who has most."""
        oldest = next(iter(self._kept))
        if self._kept[oldest].used_at <= self._seconds() - self.WAITED_ON_SECONDS:
            return oldest
        largest = max(self._bytes_of_user, key=lambda user_id: self._bytes_of_user[user_id])
        found = next(iter(self._of_user[largest]))
        return found if found != newest else oldest

    def _drop_idle(self) -> None:
        oldest = self._seconds() - self.IDLE_SECONDS
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key].used_at > oldest:
                return
            self._drop_all([key])

    def _drop_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            connection = self._kept.pop(key)
            self._size_bytes -= connection.size_bytes
            self._bytes_of_user[key[0]] -= connection.size_bytes
            del self._of_user[key[0]][key]
            if not self._of_user[key[0]]:
                del self._of_user[key[0]], self._bytes_of_user[key[0]]
