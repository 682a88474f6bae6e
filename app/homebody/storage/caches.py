"""Caches, each bounded in bytes, and which of their entries a snapshot may see.

A stale cache is a security hole, and one that is ahead of its reader loses events. One rule
prevents both: a reader gets from a cache only what its own snapshot of the database contains.

- Every COMMIT moves the clock (storage/database.py), so a position identifies one state of the
  whole database. A snapshot has a position.
- Each entry has the position since which it is valid. A reader with an older snapshot does not get
  it, and reads the database. An entry made by a writer is valid from the COMMIT of its batch on:
  before that COMMIT, only the writers of the same batch see it.
- A reader may offer what it read, unless the cache was changed after its snapshot: the value may be
  outdated.
- Entries touched by a write are dropped when the write is undone. A failed COMMIT clears all
  caches, and so does a change by another process (the command line). A snapshot that contains such
  a change before this process has noticed it uses no cache.

Each module declares the caches that it alone changes with `declare()`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import orjson

from homebody.models.base import EventNumber
from homebody.spec import sticky

if TYPE_CHECKING:
    from homebody.spec.appservices import Service

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_OVERHEAD_BYTES = 200
"""The memory of a key, a slot in the table and the bookkeeping, without the value."""

NEWEST: Final = 2**63
"""The view of a writer, which sees everything; larger than every position."""
NOTHING: Final = -1
"""The view of a snapshot that uses no cache."""
NOWHERE: Final = 0
"""The position of an event that stands in no timeline: below all others."""


@dataclass(frozen=True, eq=False)
class CacheKind(Generic[K, V]):
    """The declaration of a cache."""

    name: str
    percent: int
    """Its share of the memory that the setting `cache_bytes` allows for all caches."""
    bytes_of: Callable[[V], int]
    """Return the approximate size of a value, without its key."""


_KINDS: list[CacheKind[Any, Any]] = []


def declare(name: str, percent: int, bytes_of: Callable[[V], int]) -> CacheKind[K, V]:
    """Return a new kind of cache; called by the module that alone changes it, when it is imported.

    Raises ValueError where the name is taken, or all kinds together would exceed 100 percent.
    """
    kind: CacheKind[K, V] = CacheKind(name, percent, bytes_of)
    if any(known.name == name for known in _KINDS):
        raise ValueError(f"There is already a cache called {name}")
    if sum(known.percent for known in _KINDS) + percent > 100:
        raise ValueError(f"The caches would exceed 100 percent with {name}")
    _KINDS.append(kind)
    return kind


class Cache(Generic[K, V]):
    """At most `max_bytes` of values by key; the least recently used are dropped first."""

    def __init__(self, kind: CacheKind[K, V], max_bytes: int) -> None:
        self.name = kind.name
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.changed_at = 0
        """The position of the last change by the writer."""
        self.hits = 0
        self.misses = 0
        self._bytes_of = kind.bytes_of
        self._entries: OrderedDict[K, tuple[V, int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, view: int) -> V | None:
        """Return the value that is valid in a view (the position of a snapshot), or None."""
        entry = self._entries.get(key)
        if entry is None or entry[2] > view:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[0]

    def put(self, key: K, value: V, since: int) -> None:
        """Set a value that is valid from a position on; for the writer alone."""
        self.changed_at = since
        size = self._bytes_of(value) + ENTRY_OVERHEAD_BYTES
        old = self._entries.pop(key, None)
        self.used_bytes += size - (old[1] if old else 0)
        self._entries[key] = (value, size, since)
        while self.used_bytes > self.max_bytes and self._entries:
            _, (_, dropped, _) = self._entries.popitem(last=False)
            self.used_bytes -= dropped

    def drop(self, key: K, since: int) -> None:
        """Drop a value that is invalid from a position on; for the writer alone."""
        self.changed_at = since
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[1]

    def offer(self, key: K, value: V, view: int) -> None:
        """Set a value that was read in a view, unless the writer has changed this cache after it.

        Nothing has changed since `changed_at`, so the value has been valid since then.
        """
        if self.changed_at <= view:
            self.put(key, value, self.changed_at)

    def clear(self, position: int) -> None:
        """Drop everything; `position` is the current position of the database."""
        self.changed_at = position
        self.used_bytes = 0
        self._entries.clear()

    def entries(self) -> list[tuple[K, V]]:
        """Return all entries, of whatever view; for tests and inspection."""
        return [(key, value) for key, (value, _, _) in self._entries.items()]


class Requester:
    """The account and the device of an access token."""

    __slots__ = (
        "device_id",
        "expires_ts",
        "is_admin",
        "is_guest",
        "is_shadow_banned",
        "is_suspended",
        "message_limit",
        "service",
        "token_hash",
        "user_id",
    )

    def __init__(
        self,
        user_id: str,
        device_id: str,
        token_hash: bytes,
        *,
        is_guest: bool = False,
        is_admin: bool = False,
        is_suspended: bool = False,
        is_shadow_banned: bool = False,
        message_limit: tuple[int, int] | None = None,
        expires_ts: float = math.inf,
        service: Service | None = None,
    ) -> None:
        self.user_id = user_id
        self.device_id = device_id
        self.token_hash = token_hash
        self.is_guest = is_guest
        self.is_admin = is_admin
        self.is_suspended = is_suspended
        self.is_shadow_banned = is_shadow_banned
        self.message_limit = message_limit
        """(messages_per_second, burst_count) in place of rc_message; None: none was set."""
        self.expires_ts = expires_ts
        """In ms; `math.inf` for a token that is valid until logout."""
        self.service = service
        """The application service that acts as the user, if any; `device_id` may be "" then."""


class PreviousState:
    """The previous content in a state event, for readers who may see the replaced event."""

    __slots__ = ("body", "number", "position", "sender")

    def __init__(self, number: EventNumber, position: int, sender: str, body: bytes) -> None:
        self.number = number
        self.position = position
        """As of a ClientEvent."""
        self.sender = sender
        self.body = body
        """JSON members of `unsigned`, each with a comma before it."""


class ClientEvent:
    """An event in the form for clients; see core/events/client_events.py."""

    __slots__ = (
        "body",
        "content",
        "device_id",
        "event_id",
        "number",
        "origin_server_ts",
        "position",
        "previous",
        "redacted_by",
        "rel_type",
        "relates_to",
        "room_id",
        "sender",
        "size_bytes",
        "state_key",
        "sticky_ms",
        "thread_id",
        "txn_id",
        "type",
        "unsigned",
    )

    def __init__(
        self,
        number: EventNumber,
        position: int,
        event_id: str,
        room_id: str,
        pdu: dict[str, Any],
        body: bytes,
        *,
        replaces_state: str | None = None,
        previous: PreviousState | None = None,
        redacted_by: EventNumber | None = None,
        relation: tuple[str | None, str | None, str | None] = (None, None, None),
        transaction: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """Take a relation (relates_to, rel_type, thread_id), a transaction (device_id, txn_id)."""
        self.number = number
        self.position = position
        """Its place in the timeline; NOWHERE for an event that is only state."""
        self.event_id = event_id
        self.room_id = room_id
        self.type: str = pdu["type"]
        self.state_key: str | None = pdu.get("state_key")
        self.sender: str = pdu["sender"]
        self.origin_server_ts: int = pdu["origin_server_ts"]
        self.content: dict[str, Any] = pdu["content"]
        """As in the PDU, for filters."""
        self.sticky_ms = sticky.duration_ms(pdu) if sticky.KEY in pdu else 0
        """How long it is sticky since it was sent; see core/timeline/sticky_events.py."""
        self.body = body
        """JSON that is the same for all readers, without `unsigned` and the closing brace."""
        self.unsigned = b""
        """JSON members of `unsigned` for all readers, each with a comma before it."""
        if replaces_state is not None:  # "included regardless of history visibility"
            self.unsigned = b',"replaces_state":' + orjson.dumps(replaces_state)
        self.relates_to, self.rel_type, self.thread_id = relation
        self.device_id, self.txn_id = transaction
        self.previous = previous
        self.redacted_by = redacted_by
        """The redaction, which the reader may not be allowed to see."""
        self.size_bytes = 800 + 4 * len(body) + (0 if previous is None else len(previous.body))
        """Its approximate size in memory."""


class RecentEvents:
    """What has changed recently, so that a /sync without news need not read the database.

    Kept by the writer inside its transactions. What it says of positions beyond a reader's own may
    never become true; up to there all is committed, as positions become visible in their order.
    A reader may also see positions that another process gave out: of those this knows nothing.
    """

    MAX_EVENTS: ClassVar[int] = 2000

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, position: int) -> None:
        """Forget everything; nothing is known of what happened up to this position."""
        self._since = position
        self.upto = position
        """The position of the last COMMIT of this process."""
        self._positions: list[int] = []
        self._events: list[tuple[int, str, EventNumber]] = []
        self.account_data = position
        """No account data has changed after this position; likewise the next four."""
        self.receipts = position
        self.thread_subscriptions = position
        self.profiles = position
        self.memberships = position

    def add(self, position: int, room_id: str, number: EventNumber) -> None:
        """Record an event, which stands behind all others."""
        self._positions.append(position)
        self._events.append((position, room_id, number))
        if len(self._positions) > 2 * self.MAX_EVENTS:
            self._since = self._positions[self.MAX_EVENTS - 1]
            del self._positions[: self.MAX_EVENTS], self._events[: self.MAX_EVENTS]

    def drop_after(self, position: int) -> None:
        """Forget the events of a write that was undone."""
        kept = bisect_right(self._positions, position)
        del self._positions[kept:], self._events[kept:]

    def knows(self, since: int, upto: int) -> bool:
        """Return whether everything that happened in this range is known."""
        return self._since <= since and upto <= self.upto

    def events(self, after: int, upto: int) -> list[tuple[int, str, EventNumber]]:
        """Return (position, room_id, number) of the known events in a range, the oldest first."""
        first = bisect_right(self._positions, after)
        last = bisect_right(self._positions, upto)
        return self._events[first:last]


class _CachesByKind(dict[CacheKind[Any, Any], Cache[Any, Any]]):
    """The caches of a process, each made when it is first used."""

    def __init__(self, caches: Caches) -> None:
        super().__init__()
        self._caches = caches

    def __missing__(self, kind: CacheKind[Any, Any]) -> Cache[Any, Any]:
        cache = self[kind] = self._caches.make(kind)
        return cache


class Caches:
    """All caches of a process, sharing `total_bytes`, and the COMMITs that set their views."""

    def __init__(self, total_bytes: int) -> None:
        self.recent = RecentEvents()
        self.committed = 0
        """The position of the last known COMMIT."""
        self.committing: int | None = None
        """The position of the running COMMIT, which readers may see at any moment."""
        self._total_bytes = total_bytes
        self.by_kind = _CachesByKind(self)

    def make(self, kind: CacheKind[K, V]) -> Cache[K, V]:
        """Return a new cache of a kind, with its share of the memory."""
        cache = Cache(kind, self._total_bytes * kind.percent // 100)
        cache.clear(self.committed)
        return cache

    def all(self) -> list[Cache[Hashable, object]]:
        """Return every cache, for /metrics."""
        return [self.by_kind[kind] for kind in _KINDS]

    def view_at(self, position: int) -> int:
        """Return the view of a snapshot at this position.

        It is NOTHING if another process has written something that this one has not noticed yet.
        """
        if position <= self.committed or position == self.committing:
            return position
        return NOTHING

    def clear(self, position: int) -> None:
        """Drop everything: the next look-ups read the database.

        `position` is the last one that was assigned, whether or not it was committed.
        """
        for cache in self.by_kind.values():
            cache.clear(self.committed)
        self.recent.reset(position)
