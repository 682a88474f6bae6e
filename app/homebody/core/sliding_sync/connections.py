"""The connections of sliding sync: what was sent on each, by `pos`.

A `pos` identifies an immutable `ConnectionState`: a client that repeats a request, because it
cancelled it or lost the response, gets the same changes and later ones. A client that sends a `pos`
has received that response, so older positions are dropped. Newer ones are kept, as the client may
have received any of them and use it next: Element X cancels its waiting request and repeats the
same `pos` whenever a room is opened, while the first response may be on its way. A request without
`pos` does not drop any position.

Connections are kept in memory, limited by their size. A client with an unknown `pos` starts a new
connection after M_UNKNOWN_POS. Idle connections are dropped first, then those of the user whose
connections are the largest, so that users can't displace each other's connections.

From time to time an older state of each connection is written to the database, from which the
connection goes on after a restart; see kept_states.py. For that, a `pos` contains its position, so
that it is also a token for /messages, a number, and whether the client may show users who type. Its
last part is made with a secret of the connection: nobody else has one that fits, nor can a client
make one up.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from homebody import errors
from homebody.core.accounts import sync_connections
from homebody.core.accounts.sync_connections import Key
from homebody.core.sliding_sync.sizes import Sizes
from homebody.core.sliding_sync.states import NOTHING, RESUMED, ConnectionState
from homebody.core.sync.spans import SyncToken

_POS: Final = re.compile(r"s([0-9]{1,18})~([0-9]{1,18})(q?)\.[A-Za-z0-9_-]{16}")


class Place(NamedTuple):
    """What a `pos` says."""

    position: int
    number: int
    is_quiet: bool = False
    """The client shows nobody who types."""


def parse(pos: str) -> Place | None:
    """Return what a `pos` says, or None if none looks like that."""
    found = _POS.fullmatch(pos)
    return None if found is None else Place(int(found[1]), int(found[2]), bool(found[3]))


def make_pos(secret: bytes, place: Place) -> str:
    """Return the `pos` of a connection with this secret."""
    text = f"{SyncToken(place.position)}~{place.number}{'q' if place.is_quiet else ''}"
    digest = hashlib.blake2b(text.encode(), key=secret, digest_size=12).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).decode()}"


def _number_of(pos: str) -> int:
    place = parse(pos)
    return 0 if place is None else place.number


class Due(NamedTuple):
    """A state to be written to the database."""

    key: Key
    number: int
    state: ConnectionState


class _Connection:
    """The states of one connection by `pos`, oldest first, and their total size."""

    __slots__ = (
        "_sizes",
        "number",
        "received",
        "secret",
        "states",
        "touched",
        "used_at",
        "written_at",
    )

    def __init__(self, number: int = 0) -> None:
        self.states: OrderedDict[str, ConnectionState] = OrderedDict()
        self.number = number
        """Of the last `pos`."""
        self.received = ""
        """The `pos` that the client has received."""
        self.secret = b""
        """That of this `pos`."""
        self.touched: set[str] = set()
        """The rooms received since a state was written."""
        self.written_at: float | None = None
        self.used_at = 0.0
        self._sizes = Sizes()

    @property
    def size_bytes(self) -> int:
        return self._sizes.size_bytes

    def add(self, pos: str, state: ConnectionState) -> None:
        self.states[pos] = state
        self._sizes.add(state)

    def drop(self, pos: str) -> None:
        self._sizes.drop(self.states.pop(pos))

    def next_pos(self, state: ConnectionState) -> str:
        self.number += 1
        place = Place(state.position, self.number, not state.shows_typing)
        return make_pos(state.secret, place)

    def receive(self, pos: str) -> None:
        """Note that the client has this position, and drop older ones."""
        if pos != self.received:
            state = self.states[pos]
            if state.secret != self.secret:  # it has begun again: what is written is of no use
                self.written_at = None
            self.received, self.secret = pos, state.secret
            self.touched |= state.touched
        for older in list(self.states):
            if older == pos:
                return
            self.drop(older)


class Connections:
    """The connections of all users, least recently used first."""

    MAX_OF_DEVICE = sync_connections.MAX_OF_DEVICE
    MAX_BYTES = 64 * 2**20
    MAX_BYTES_OF_USER = 16 * 2**20
    IDLE_SECONDS = 7 * 86_400.0
    WAITED_ON_SECONDS = 600.0
    """Connections not used for longer are considered idle."""
    KEPT = 100
    """Positions per connection, if the client keeps repeating an old one."""
    KEPT_BEGINNINGS = 4
    """Positions per connection, if the client keeps sending requests without `pos`."""
    MAX_FORGOTTEN = 5000
    """Connections remembered to have been dropped."""
    MAX_TOUCHED = 10
    """Rooms that a client receives before a state is written again: as many may be sent in full
    after the server was killed, half of the 20 of a window."""
    WRITTEN_SECONDS = 86_400.0
    """How old a written state may become, as those of unused connections are deleted."""

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
        """The approximate size of all connections."""
        return self._size_bytes

    def begin(self, key: Key) -> ConnectionState:
        """Return the initial state, for a request without `pos`.

        It is RESUMED after an unknown `pos` with which the client may still show users who type.
        """
        state = RESUMED if key in self._forgotten else NOTHING
        return dataclasses.replace(state, secret=secrets.token_bytes(16))

    def has(self, key: Key) -> bool:
        """Return whether a connection is kept."""
        self._drop_idle()
        return key in self._kept

    def resume(self, key: Key, pos: str, state: ConnectionState) -> ConnectionState:
        """Go on with a state from the database, and return it."""
        connection = self._kept[key] = _Connection(_number_of(pos))
        connection.add(pos, state)
        connection.receive(pos)
        connection.written_at = self._seconds()
        self._use(key, connection, 0)
        self._keep_small(key)
        return state

    def get(self, key: Key, pos: str) -> ConnectionState:
        """Return the state at `pos` and drop older ones. Raises M_UNKNOWN_POS."""
        self._drop_idle()
        connection = self._kept.get(key)
        if connection is None or pos not in connection.states:
            self._forget(key, pos)
            raise errors.unknown_pos()
        self._forgotten.pop(key, None)
        before = connection.size_bytes
        connection.receive(pos)
        self._use(key, connection, before)
        return connection.states[pos]

    def add(self, key: Key, state: ConnectionState, *, after: str | None) -> str:
        """Store a state and return its new `pos`; `after` is the `pos` of the request."""
        self._drop_idle()
        connection = self._kept.get(key)
        if connection is None:
            connection = self._kept[key] = _Connection(_number_of(after or ""))
        before = connection.size_bytes
        pos = connection.next_pos(state)
        connection.add(pos, state)
        while after is None and len(connection.states) > self.KEPT_BEGINNINGS:
            connection.drop(next(iter(connection.states)))
        while len(connection.states) > 2 and (
            len(connection.states) > self.KEPT or connection.size_bytes > self.MAX_BYTES_OF_USER
        ):
            # neither the first, which the client may repeat, nor the newest
            connection.drop(list(connection.states)[1])
        self._use(key, connection, before)
        if connection.size_bytes > self.MAX_BYTES_OF_USER:
            self._drop_all([key])  # too large even alone
        else:
            self._keep_small(key)
        return pos

    def due(self, *, is_last: bool = False) -> list[Due]:
        """Return what is to be written, which counts as written from now on.

        The states that clients have received: a state that was sent later may have been lost.
        """
        now = self._seconds()
        found: list[Due] = []
        for key, connection in self._kept.items():
            pos = connection.received
            if pos not in connection.states or (place := parse(pos)) is None:
                continue
            is_new = connection.written_at is None
            is_old = not is_new and now - (connection.written_at or 0) >= self.WRITTEN_SECONDS
            many = 1 if is_last else self.MAX_TOUCHED
            if is_new or is_old or len(connection.touched) >= many:
                found.append(Due(key, place.number, connection.states[pos]))
                connection.touched.clear()
                connection.written_at = now
        return found

    def note_unwritten(self, keys: Iterable[Key]) -> None:
        """Note that states could not be written."""
        for key in keys:
            if (connection := self._kept.get(key)) is not None:
                connection.written_at = None

    def _forget(self, key: Key, pos: str) -> None:
        """Note that a client has a `pos` that is unknown, unless it shows nobody who types."""
        place = parse(pos)
        if place is None or not place.is_quiet:
            self._forgotten[key] = None
            if len(self._forgotten) > self.MAX_FORGOTTEN:
                self._forgotten.popitem(last=False)

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
        """Return the connection to drop: an idle one, or one of the user with the largest total."""
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
