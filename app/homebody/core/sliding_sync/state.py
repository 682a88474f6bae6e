"""The required state of rooms in an answer of sliding sync: as it is now, and what is not known.

The timelines have been read. A room that is known and has no gap tells by its timeline which state
has changed; only for the others the database is asked, for all of them at once.
Spec: client-server-api#syncing, client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
from sqlalchemy import TextClause, text

from homebody.core.events import client_events, state
from homebody.core.sliding_sync.requests import Config
from homebody.core.sliding_sync.sent import ToldRoom
from homebody.core.sync.spans import ROOMS_BETWEEN_BREATHS, Span
from homebody.core.timeline import store
from homebody.models.base import NOW_AND_LATER
from homebody.spec.events import StateKey
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

MAX_MEMBERS: Final = 200
"""Of a room, whom a connection remembers to have told of lazily; then it starts anew."""

# all memberships by name, as the index has the position behind them
_HELD = (
    "SELECT rooms.room_id, held.type, held.state_key, held.event_position"
    " FROM json_each(:rooms) AS one JOIN rooms ON rooms.room_id = one.key"
    " JOIN state_intervals AS held ON held.room_number = rooms.number"
    " AND held.to_position = :now AND held.event_position > one.value AND held.membership "
)
_HELD_BUT_MEMBERS: Final = text(_HELD + "IS NULL")
_HELD_MEMBERS: Final = text(_HELD + "IN ('join', 'leave', 'ban', 'invite', 'knock')")
_REDACTED: Final = text(
    "SELECT position, redacted_by FROM events"
    " WHERE position IN (SELECT value FROM json_each(:positions)) AND redacted_by IS NOT NULL"
)
NAME: Final[StateKey] = ("m.room.name", "")
AVATAR: Final[StateKey] = ("m.room.avatar", "")


@dataclass(slots=True)
class News:
    """A joined room of an answer."""

    span: Span
    """Its events; of all its time, where the client knows none or too few of them."""
    config: Config
    since: int
    """The client knows all up to here; 0: nothing."""
    before: ToldRoom | None
    """What it was told before; None where `since` is 0."""
    is_expanded: bool = False
    """It now wants more of the events that it could have had before."""
    changed: dict[StateKey, int] = field(default_factory=dict)
    """Entries of state that the client does not know as they are, with the events' positions."""
    members: frozenset[str] = frozenset()
    """Of whom it is told lazily, now or before."""

    @property
    def is_initial(self) -> bool:
        """The client knows nothing of the room."""
        return self.since == 0

    @property
    def wants_more_state(self) -> bool:
        """It wants state that it did not want before."""
        return self.before is not None and not self.config.required <= self.before.config.required

    @property
    def has_gap(self) -> bool:
        """There may be state that changed, and no event in the timeline that says so."""
        return self.span.is_limited or self.is_expanded

    @property
    def may_have_redactions(self) -> bool:
        """State that the client knows may have been redacted since."""
        if self.is_initial:
            return False
        return self.has_gap or any(it.type == store.REDACTION for it in self.span.timeline)


def load(tx: Reader, user_id: str, news: Collection[News]) -> dict[str, list[ClientEvent]]:
    """{room_id: the state to tell}; fills `changed` and `members` of each room."""
    held = _held(tx, news)
    redacted = _redacted(tx, news)
    found: dict[str, list[ClientEvent]] = {}
    for one in tx.breathing(news, ROOMS_BETWEEN_BREATHS):
        room_id = one.span.room_id
        entries = held[room_id]
        entries |= _positions(tx, room_id, _named(one))
        one.changed = {key: at for key, at in entries.items() if at > one.since}
        due = {at for key, at in entries.items() if _is_due(one, key, at)}
        due |= _lazy(tx, one)
        taken_back = redacted.get(room_id, {})
        one.changed |= taken_back
        due |= {at for key, at in taken_back.items() if one.config.wants(key)}
        events = client_events.load(tx, sorted(due))
        found[room_id] = client_events.hide(tx, user_id, events)
    return found


def _held(tx: Reader, news: Collection[News]) -> dict[str, dict[StateKey, int]]:
    """{room_id: {key: position}}: all state where more is wanted than before, else what changed."""
    others: dict[str, int] = {}
    members: dict[str, int] = {}
    held: dict[str, dict[StateKey, int]] = {}
    for one in news:
        room_id = one.span.room_id
        held[room_id] = {}
        is_whole = one.is_initial or one.wants_more_state
        if is_whole:
            others[room_id] = 0
        elif one.has_gap:
            others[room_id] = one.since
        if is_whole and one.config.wants_all_members:
            members[room_id] = 0
        elif one.has_gap and not one.is_initial:
            members[room_id] = one.since
        if not (one.has_gap or one.is_initial):
            events = one.span.timeline
            keys = [(it.type, it.state_key) for it in events if it.state_key is not None]
            held[room_id] |= _positions(tx, room_id, keys)
    _collect(tx, _HELD_BUT_MEMBERS, others, held)
    _collect(tx, _HELD_MEMBERS, members, held)
    return held


def _redacted(tx: Reader, news: Collection[News]) -> dict[str, dict[StateKey, int]]:
    """Return {room_id: {key: position}} of names and avatars that have been redacted since.

    Their events are the same as before, so that no position tells that they changed.
    """
    places: dict[int, tuple[News, StateKey]] = {}
    for one in news:
        if one.may_have_redactions:
            entries = _positions(tx, one.span.room_id, [NAME, AVATAR])
            places |= {position: (one, key) for key, position in entries.items()}
    found: dict[str, dict[StateKey, int]] = {}
    if places:
        asked = {"positions": orjson.dumps(list(places)).decode()}
        for position, redacted_by in tx.sql.execute(_REDACTED, asked):
            one, key = places[position]
            if redacted_by > one.since:
                found.setdefault(one.span.room_id, {})[key] = position
    return found


def _collect(
    tx: Reader,
    query: TextClause,
    rooms: Mapping[str, int],
    held: dict[str, dict[StateKey, int]],
) -> None:
    every = list(rooms.items())
    for at in tx.breathing(range(0, len(every), ROOMS_BETWEEN_BREATHS), every=1):
        some = dict(every[at : at + ROOMS_BETWEEN_BREATHS])
        asked = {"rooms": orjson.dumps(some).decode(), "now": NOW_AND_LATER}
        for room_id, event_type, state_key, position in tx.sql.execute(query, asked):
            held[room_id][event_type, state_key] = position


def _positions(tx: Reader, room_id: str, keys: Iterable[StateKey]) -> dict[StateKey, int]:
    """{key: where its event stands} of entries that the room has."""
    entries = state.entries(tx, room_id, set(keys))
    return {key: entry.position for key, entry in entries.items() if entry.event is not None}


def _named(one: News) -> list[StateKey]:
    """The members that the client names and was not told of."""
    if not (one.is_initial or one.wants_more_state) or one.config.wants_all_members:
        return []
    return [(state.MEMBER, user) for user in one.config.named_members()]


def _is_due(one: News, key: StateKey, position: int) -> bool:
    if not one.config.wants(key):
        return False
    if one.before is None or position > one.since:
        return True
    return not one.before.config.wants(key)


def _lazy(tx: Reader, one: News) -> set[int]:
    """Where the members stand whom the client needs to show the timeline; notes who they are.

    "excluding membership events that were previously returned"; after a gap the client knows
    nobody any more. Who changed is told again, as is who comes, goes or is invited.
    """
    known = frozenset[str]() if one.before is None or one.has_gap else one.before.members
    if not one.config.is_lazy:
        one.members = known
        return set()
    events = one.span.timeline
    moved = {it.state_key for it in events if it.type == state.MEMBER and it.state_key is not None}
    new = ({event.sender for event in events} - known) | moved
    one.members = known | new if len(known | new) <= MAX_MEMBERS else frozenset(new)
    held = _positions(tx, one.span.room_id, [(state.MEMBER, user) for user in new])
    one_changed = {key: at for key, at in held.items() if at > one.since > 0}
    one.changed |= one_changed
    return set(held.values())
