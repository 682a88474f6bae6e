"""The few things kept in memory, each bounded in bytes.

A wrong cache is a security hole, so the rules are strict:
- The writer changes a cache inside its transaction, and nobody else writes meanwhile: the next
  writer of the same batch already sees the ban. A transaction that rolls back drops what it
  touched; a COMMIT that fails, or another process that wrote to the database, empties everything.
- A reader may offer what it read, but its snapshot may be older than what the writer has done. So
  an offer counts only when every change of that cache was committed before the reader began:
  `settle` marks that moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from app.spec.appservices import Service
    from app.spec.events import Event, StateKey
    from app.spec.push_rules import Ruleset

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_OVERHEAD_BYTES = 200
"""What a key, a slot in the table and the bookkeeping cost besides the value."""


class Cache(Generic[K, V]):
    """At most `max_bytes` of values by key; the least recently used go first."""

    def __init__(self, name: str, max_bytes: int, bytes_of: Callable[[V], int]) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.settled_at = 0
        self.is_unsettled = False
        self.hits = 0
        self.misses = 0
        self._bytes_of = bytes_of
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, or None where it is not known."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[0]

    def get_many(self, keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """The values that are known, by key, and the keys of which none is."""
        found: dict[K, V] = {}
        missing: list[K] = []
        for key in keys:
            value = self.get(key)
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        return found, missing

    def put(self, key: K, value: V) -> None:
        """Set a value; only the writer may, with what its transaction has just written or read."""
        self.is_unsettled = True
        self._set(key, value)

    def drop(self, key: K) -> None:
        """Forget a value; only the writer may."""
        self.is_unsettled = True
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry[1]

    def offer(self, key: K, value: V, began: int) -> None:
        """A reader's find; `began` is the tick of the caches when the reader's snapshot began."""
        if not self.is_unsettled and self.settled_at <= began:
            self._set(key, value)

    def clear(self) -> None:
        """Forget everything."""
        self.is_unsettled = True
        self.used_bytes = 0
        self._entries.clear()

    def _set(self, key: K, value: V) -> None:
        size = self._bytes_of(value) + ENTRY_OVERHEAD_BYTES
        old = self._entries.pop(key, None)
        self.used_bytes += size - (old[1] if old else 0)
        self._entries[key] = (value, size)
        while self.used_bytes > self.max_bytes and self._entries:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.used_bytes -= dropped


class Requester:
    """Who asks: the account and session behind an access token."""

    __slots__ = (
        "device_id",
        "expires_ts",
        "is_admin",
        "is_guest",
        "is_suspended",
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
        expires_ts: int | None = None,
        service: Service | None = None,
    ) -> None:
        self.user_id = user_id
        self.device_id = device_id
        self.token_hash = token_hash
        self.is_guest = is_guest
        self.is_admin = is_admin
        self.is_suspended = is_suspended
        self.expires_ts = expires_ts
        self.service = service
        """The application service that acts as the user; `device_id` may be "" then."""


class RoomHead:
    """Where a room stands: its version, and what the next event has to name as its predecessors."""

    __slots__ = ("depth", "forward_extremities", "version")

    def __init__(self, version: str, forward_extremities: list[str], depth: int) -> None:
        self.version = version
        self.forward_extremities = forward_extremities
        self.depth = depth


class StateEntry:
    """One entry of a room's current state; `event` is None where the room has none of that kind."""

    __slots__ = ("event", "position", "since", "size_bytes")

    def __init__(self, event: Event | None, position: int, since: int, size_bytes: int) -> None:
        self.event = event
        self.position = position
        """Of the event."""
        self.since = since
        """The position from which on it is the room's state."""
        self.size_bytes = size_bytes


class MemberSummary:
    """What a room is called by, where it has no name."""

    __slots__ = ("first", "invited", "joined")

    def __init__(self, joined: int, invited: int, first: list[tuple[str, bool]]) -> None:
        self.joined = joined
        self.invited = invited
        self.first = first
        """One more than are told of, as nobody is told of themselves: (user_id, is there)."""


class PushSettings:
    """What of a user's account data decides whom an event notifies."""

    __slots__ = ("has_name_rule", "ignored", "ruleset", "size_bytes")

    def __init__(
        self, ruleset: Ruleset, ignored: frozenset[str], size_bytes: int, *, has_name_rule: bool
    ) -> None:
        self.ruleset = ruleset
        self.ignored = ignored
        """The users whose events never notify."""
        self.has_name_rule = has_name_rule
        """A rule looks for the user's display name, which is therefore wanted."""
        self.size_bytes = size_bytes


class PusherPlaces:
    """Where a user's notifications go, as destinations of the outbox; see core/push/pushers.py."""

    __slots__ = ("gateways", "mailboxes")

    def __init__(self) -> None:
        self.gateways: list[str] = []
        self.mailboxes: list[str] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.gateways) + len(self.mailboxes)


class KeyCounts:
    """What of a device's keys is left to be given out; see core/encryption/one_time_keys.py."""

    __slots__ = ("one_time_keys", "unused_fallback_types")

    def __init__(self, one_time_keys: dict[str, int], unused_fallback_types: list[str]) -> None:
        self.one_time_keys = one_time_keys
        """How many there are, by algorithm."""
        self.unused_fallback_types = unused_fallback_types


class Inbox:
    """What waits for a device; see core/sync/to_device.py."""

    __slots__ = ("count", "newest")

    def __init__(self, count: int, newest: int) -> None:
        self.count = count
        self.newest = newest
        """The position of the last message; 0 where there is none."""


class PreviousState:
    """What a state event says of the one that it replaced, for readers who may see that one."""

    __slots__ = ("body", "position", "sender")

    def __init__(self, position: int, sender: str, body: bytes) -> None:
        self.position = position
        self.sender = sender
        self.body = body
        """JSON members of `unsigned`, each with a comma before it."""


class ClientEvent:
    """An event in the form for clients; see core/rooms/client_events.py."""

    __slots__ = (
        "body",
        "content",
        "device_id",
        "event_id",
        "origin_server_ts",
        "position",
        "previous",
        "redacted_by",
        "rel_type",
        "relates_to",
        "room_id",
        "sender",
        "state_key",
        "thread_id",
        "txn_id",
        "type",
        "unsigned",
    )

    def __init__(
        self,
        *,
        position: int,
        event_id: str,
        room_id: str,
        type: str,  # noqa: A002 - the event's own word
        state_key: str | None,
        sender: str,
        origin_server_ts: int,
        content: dict[str, Any],
        body: bytes,
        unsigned: bytes,
        relation: tuple[str | None, str | None, str | None],
        transaction: tuple[str | None, str | None],
        previous: PreviousState | None,
        redacted_by: int | None,
    ) -> None:
        self.position = position
        self.event_id = event_id
        self.room_id = room_id
        self.type = type
        self.state_key = state_key
        self.sender = sender
        self.origin_server_ts = origin_server_ts
        self.content = content
        """As in the PDU; filters look into it."""
        self.body = body
        """JSON of what everybody sees, without `unsigned` and the closing brace."""
        self.unsigned = unsigned
        """JSON members of `unsigned` that everybody sees, each with a comma before it."""
        self.relates_to, self.rel_type, self.thread_id = relation
        self.device_id, self.txn_id = transaction
        self.previous = previous
        self.redacted_by = redacted_by
        """The position of the redaction; shown as far as the reader may see that event."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        previous = 0 if self.previous is None else len(self.previous.body)
        return 800 + 4 * len(self.body) + previous


class Lately:
    """What has changed lately: who asks for news need not look in the database where none can be.

    Kept by the writer inside its transactions. What it says of positions beyond a reader's own may
    never become true; up to there all is committed, as positions become visible in their order.
    A reader may also see positions that another process gave out: of those this knows nothing.
    """

    MAX_EVENTS: ClassVar[int] = 2000

    def __init__(self) -> None:
        self.begin_anew(0)

    def begin_anew(self, position: int) -> None:
        """Know nothing of what happened up to this position."""
        self._since = position
        self.upto = position
        """The last position that this process knows to be given out."""
        self._positions: list[int] = []
        self._room_ids: list[str] = []
        self.account_data = position
        """No account data has changed after this position; likewise the next two."""
        self.receipts = position
        self.memberships = position

    def add(self, position: int, room_id: str) -> None:
        """Note an event."""
        self._positions.append(position)
        self._room_ids.append(room_id)
        if len(self._positions) > 2 * self.MAX_EVENTS:
            self._since = self._positions[self.MAX_EVENTS - 1]
            del self._positions[: self.MAX_EVENTS], self._room_ids[: self.MAX_EVENTS]

    def drop_after(self, position: int) -> None:
        """Forget the events of a write that was undone."""
        kept = bisect_right(self._positions, position)
        del self._positions[kept:], self._room_ids[kept:]

    def knows(self, since: int, upto: int) -> bool:
        """Whether all that happened in this range is known."""
        return self._since <= since and upto <= self.upto

    def events(self, after: int, upto: int) -> Iterator[tuple[int, str]]:
        """(position, room_id) of the events in a range that this knows, the oldest first."""
        first = bisect_right(self._positions, after)
        last = bisect_right(self._positions, upto)
        return zip(self._positions[first:last], self._room_ids[first:last], strict=True)


class Caches:
    """All caches of a process, sharing `total_bytes`."""

    def __init__(self, total_bytes: int) -> None:
        self.tick = 0
        """Counts the moments at which the caches agreed with what is committed."""
        self.lately = Lately()

        def share(percent: int) -> int:
            return total_bytes * percent // 100

        self.tokens: Cache[bytes, Requester] = Cache("tokens", share(5), lambda _: 200)
        self.rooms: Cache[str, RoomHead] = Cache("rooms", share(5), lambda _: 200)
        self.state: Cache[tuple[str, StateKey], StateEntry] = Cache(
            "state", share(30), lambda entry: entry.size_bytes
        )
        """Entries of current state by (room_id, (type, state_key))."""
        self.joined: Cache[str, frozenset[str]] = Cache(
            "joined", share(10), lambda users: 120 * len(users)
        )
        """Who is joined, by room_id."""
        self.joined_rooms: Cache[str, frozenset[str]] = Cache(
            "joined_rooms", share(10), lambda rooms: 120 * len(rooms)
        )
        """Where a user is joined, by user_id."""
        self.members: Cache[str, MemberSummary] = Cache("members", share(2), lambda _: 1200)
        """How many are in a room and who was first, by room_id; see sync/summaries.py."""
        self.client_events: Cache[int, ClientEvent] = Cache(
            "client_events", share(22), lambda event: event.size_bytes
        )
        """Events in the form for clients, by position."""
        self.push_settings: Cache[str, PushSettings] = Cache(
            "push_settings", share(10), lambda settings: settings.size_bytes
        )
        """Compiled push rules and ignored users, by user_id; see push/rules.py."""
        self.device_lists: Cache[str, int] = Cache("device_lists", share(1), lambda _: 0)
        """When anybody's keys changed last; see encryption/device_lists.py."""
        self.key_counts: Cache[tuple[str, str], KeyCounts] = Cache(
            "key_counts", share(1), lambda _: 400
        )
        """By (user_id, device_id)."""
        self.inboxes: Cache[tuple[str, str], Inbox] = Cache("inboxes", share(1), lambda _: 100)
        """By (user_id, device_id)."""

        self.search_progress: Cache[int, int] = Cache("search_progress", 1000, lambda _: 8)
        """The one row of its table; see rooms/search_index.py."""

        self.pushers: Cache[str, dict[str, PusherPlaces]] = Cache(
            "pushers", share(2), lambda users: sum(300 * it.count for it in users.values())
        )
        """Who has pushers, as one value; see push/pushers.py."""

        self.erased: Cache[str, dict[str, int]] = Cache(
            "erased", share(1), lambda users: 200 * len(users)
        )
        """Who is erased since when, as one value; see people/accounts.py."""

    def all(self) -> list[Cache[object, object]]:
        """Every cache, for /metrics and for emptying them."""
        return [cache for cache in vars(self).values() if isinstance(cache, Cache)]

    def clear(self, position: int) -> None:
        """Forget everything up to a position: the next look-ups read the database."""
        for cache in self.all():
            cache.clear()
        self.lately.begin_anew(position)

    def settle(self) -> None:
        """Nothing is uncommitted now: readers who begin from here on may fill again."""
        self.tick += 1
        for cache in self.all():
            if cache.is_unsettled:
                cache.is_unsettled = False
                cache.settled_at = self.tick
