"""The required state of rooms in a sliding sync response: entries that the client lacks.

Timelines are loaded before. If there is no gap, the timeline has all changed state; only for other
rooms the state is queried, for all of them at once.
Spec: client-server-api#syncing, client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import aliased

from homebody.core.events import client_events, state
from homebody.core.sliding_sync.requests import RoomConfig
from homebody.core.sliding_sync.states import SentRoom
from homebody.core.sync.spans import ROOMS_BETWEEN_PAUSES, Span
from homebody.core.timeline import store
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import StateKey
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, item, listed

MAX_MEMBERS: Final = 200
"""Lazily loaded members kept per room; beyond that, the set starts over."""

BEFORE_ALL: Final = -1
"""A position before that of all state: of other servers' rooms, state begins at position 0."""

_ROOMS = listed("rooms")  # [room_id, position]
_HELD = (
    select(
        Room.room_id,
        StateInterval.type,
        StateInterval.state_key,
        StateInterval.event_number,
        StateInterval.from_position,
    )
    .select_from(_ROOMS)
    .join(Room, Room.room_id == item(_ROOMS, 0))
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.from_position > item(_ROOMS, 1),
    )
)
_HELD_BUT_MEMBERS: Final = _HELD.where(StateInterval.membership.is_(None))
# The memberships are listed, as the index has them before the position.
_HELD_MEMBERS: Final = _HELD.where(
    StateInterval.membership.in_(("join", "leave", "ban", "invite", "knock"))
)
_ENDED: Final = select(StateInterval.type, StateInterval.state_key).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.to_position > bindparam("since"),
    StateInterval.to_position < NOW_AND_LATER,
)
_Redaction = aliased(StoredEvent)
_REDACTED: Final = (
    select(StoredEvent.number, _Redaction.position)
    .join(_Redaction, _Redaction.number == StoredEvent.redacted_by)
    .where(StoredEvent.number.in_(bindparam("numbers", expanding=True)))
)
NAME: Final[StateKey] = ("m.room.name", "")
AVATAR: Final[StateKey] = ("m.room.avatar", "")


class _Entry(NamedTuple):
    """An entry of a room's state."""

    number: EventNumber
    since: int
    """The position at which it became the room's state."""


@dataclass(slots=True)
class RoomUpdate:
    """The changes of a joined room."""

    span: Span
    """Its timeline; since the beginning of the room, if the client has none or too little of it."""
    config: RoomConfig
    since: int
    """The position up to which the client has everything. 0: it has nothing."""
    before: SentRoom | None
    """What was sent before. None if `since` is 0."""
    is_expanded: bool = False
    """The client now wants a longer timeline than before."""
    changed: Set[StateKey] = frozenset()
    """State that the client lacks or has in an old version."""
    removed: Set[StateKey] = frozenset()
    """State wanted by the client that has ended, with no other in its place."""
    members: frozenset[str] = frozenset()
    """Members sent lazily, now or before."""

    @property
    def is_initial(self) -> bool:
        """Whether nothing was sent of the room."""
        return self.since == 0

    @property
    def wants_more_state(self) -> bool:
        """Whether the client wants more state than before."""
        return self.before is not None and not self.before.config.requires_all_of(self.config)

    @property
    def has_gap(self) -> bool:
        """Whether the timeline lacks events since the last response."""
        return self.span.is_limited or self.is_expanded

    @property
    def has_hidden_changes(self) -> bool:
        """Whether state may have changed without an event in the timeline."""
        return self.has_gap or self.has_reset

    @property
    def has_reset(self) -> bool:
        """Whether state resolution has changed state since the last response."""
        return self.span.reset_at > self.since

    @property
    def may_have_redactions(self) -> bool:
        """Whether state that the client has may have been redacted."""
        if self.is_initial:
            return False
        return self.has_hidden_changes or any(
            it.type == store.REDACTION for it in self.span.timeline
        )


def load(tx: Reader, user_id: str, updates: Collection[RoomUpdate]) -> dict[str, list[ClientEvent]]:
    """Return {room_id: state events to send}, and set `changed` and `members` of each room."""
    held = _held(tx, updates)
    redacted = _redacted(tx, updates)
    found: dict[str, list[ClientEvent]] = {}
    for update in tx.pausing(updates, ROOMS_BETWEEN_PAUSES):
        room_id = update.span.room_id
        entries = held[room_id]
        entries |= _entries(tx, room_id, _named(update))
        since = BEFORE_ALL if update.is_initial else update.since
        update.changed = {key for key, it in entries.items() if it.since > since}
        if update.has_reset and not update.is_initial:
            ended = _ended(tx, update)
            update.changed |= ended
            kept = {key for key, it in entries.items() if it.number != state.NO_EVENT}
            update.removed = {key for key in ended - kept if _wants(update.config, key)}
        due = {it.number for key, it in entries.items() if _is_due(update, key, it.since)}
        due |= _lazy(tx, update)
        redactions = redacted.get(room_id, {})
        update.changed |= redactions.keys()
        due |= {number for key, number in redactions.items() if update.config.wants(key)}
        events = client_events.load(tx, sorted(due))
        found[room_id] = client_events.hide(tx, user_id, events)
    return found


def _held(tx: Reader, updates: Collection[RoomUpdate]) -> dict[str, dict[StateKey, _Entry]]:
    """Return {room_id: {key: entry}}: all state if more is wanted than before, else changes."""
    others: dict[str, int] = {}
    members: dict[str, int] = {}
    held: dict[str, dict[StateKey, _Entry]] = {}
    for update in updates:
        room_id = update.span.room_id
        held[room_id] = {}
        is_whole = update.is_initial or update.wants_more_state
        if is_whole:
            others[room_id] = BEFORE_ALL
        elif update.has_hidden_changes:
            others[room_id] = update.since
        if is_whole and update.config.wants_all_members:
            members[room_id] = BEFORE_ALL
        elif update.has_hidden_changes and not update.is_initial:
            members[room_id] = update.since
        if not (update.has_hidden_changes or update.is_initial):
            events = update.span.timeline
            keys = [(it.type, it.state_key) for it in events if it.state_key is not None]
            held[room_id] |= _entries(tx, room_id, keys)
    _collect(tx, _HELD_BUT_MEMBERS, others, held)
    _collect(tx, _HELD_MEMBERS, members, held)
    return held


def _ended(tx: Reader, update: RoomUpdate) -> set[StateKey]:
    """Return the keys of state that has ended; there may be no other in its place."""
    asked = {"room_id": update.span.room_id, "since": update.since}
    return {(row.type, row.state_key) for row in tx.sql.execute(_ENDED, asked)}


def _redacted(
    tx: Reader, updates: Collection[RoomUpdate]
) -> dict[str, dict[StateKey, EventNumber]]:
    """Return {room_id: {key: number}} of room names and avatars that have been redacted.

    Redaction doesn't replace a state event, so the interval does not end.
    """
    places: dict[EventNumber, tuple[RoomUpdate, StateKey]] = {}
    for update in updates:
        if update.may_have_redactions:
            entries = _entries(tx, update.span.room_id, [NAME, AVATAR])
            places |= {entry.number: (update, key) for key, entry in entries.items()}
    found: dict[str, dict[StateKey, EventNumber]] = {}
    if places:
        for number, redacted_at in tx.sql.execute(_REDACTED, {"numbers": list(places)}):
            update, key = places[number]
            if redacted_at is not None and redacted_at > update.since:
                found.setdefault(update.span.room_id, {})[key] = number
    return found


def _collect(
    tx: Reader,
    query: Select[*tuple[Any, ...]],
    rooms: Mapping[str, int],
    held: dict[str, dict[StateKey, _Entry]],
) -> None:
    for some in tx.pausing(batches(rooms.items(), ROOMS_BETWEEN_PAUSES), every=1):
        found = tx.sql.execute(query, {"rooms": some})
        for room_id, event_type, state_key, number, since in found:
            held[room_id][event_type, state_key] = _Entry(number, since)


def _entries(tx: Reader, room_id: str, keys: Iterable[StateKey]) -> dict[StateKey, _Entry]:
    """Return the existing entries by key."""
    entries = state.entries(tx, room_id, set(keys))
    return {
        key: _Entry(entry.number, entry.since)
        for key, entry in entries.items()
        if entry.event is not None
    }


def _named(update: RoomUpdate) -> list[StateKey]:
    """Return the members required by user ID that have not been sent."""
    if not (update.is_initial or update.wants_more_state) or update.config.wants_all_members:
        return []
    return [(state.MEMBER, user) for user in update.config.named_members()]


def _wants(config: RoomConfig, key: StateKey) -> bool:
    return config.wants(key) or (config.is_lazy and key[0] == state.MEMBER)


def _is_due(update: RoomUpdate, key: StateKey, since: int) -> bool:
    if not update.config.wants(key):
        return False
    if update.before is None or since > update.since:
        return True
    return not update.before.config.wants(key)


def _lazy(tx: Reader, update: RoomUpdate) -> set[EventNumber]:
    """Return the numbers of member events to send lazily, and update `members`.

    Members are sent once ("excluding membership events that were previously returned"), again after
    a gap, and whenever their membership event changes.
    """
    known = frozenset[str]()
    if update.before is not None and not update.has_hidden_changes:
        known = update.before.members
    if not update.config.is_lazy:
        update.members = known
        return set()
    events = update.span.timeline
    moved = {it.state_key for it in events if it.type == state.MEMBER and it.state_key is not None}
    if update.has_reset and not (update.has_gap or update.is_initial):
        # "Note that clients can't rely on seeing membership changes in the `timeline`"
        moved |= {key for kind, key in update.changed if kind == state.MEMBER}
    new = ({event.sender for event in events} - known) | moved
    update.members = known | new if len(known | new) <= MAX_MEMBERS else frozenset(new)
    held = _entries(tx, update.span.room_id, [(state.MEMBER, user) for user in new])
    update.changed |= {key for key, it in held.items() if it.since > update.since > 0}
    return {it.number for it in held.values()}
