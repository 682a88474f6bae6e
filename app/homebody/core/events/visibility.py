"""Which events of a room a user may see: the history visibility, checked wherever events are read.

Two entries of the room's state decide, m.room.history_visibility and the user's own membership, as
they were at each event. Both are kept as intervals, so all changes of the two are read once for a
whole page and looked up in memory. Mostly not even that is needed: for users who have been joined
since before the first event, the cache of current state is enough.

Ignored users are not a matter of permission: user_data/account_data.py has those.

Events of erased users (deactivated with `erase`) are shown redacted to users who joined later.
"Users which had visibility on those events prior to the erasure are still able to see unredacted
copies": these were in the room at some time between the event and the erasure. Nothing in the
database changes, and no redaction is sent. The erased users are kept in memory by
accounts/accounts.py; mostly there are none, and nothing more is read.
Spec: client-server-api#room-history-visibility,
client-server-api#post_matrixclientv3accountdeactivate (`erase`)
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import orjson
from sqlalchemy import (
    ColumnExpressionArgument,
    Exists,
    between,
    bindparam,
    case,
    exists,
    select,
    union_all,
)

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.events import StoredEvent
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json, StateKey
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, item, listed

VISIBILITY: StateKey = ("m.room.history_visibility", "")
SETTINGS = frozenset({"invited", "joined", "shared", "world_readable"})
DEFAULT = "shared"
"""For rooms without the event, or with an unknown value."""

_COLUMNS = (
    StateInterval.type,
    StateInterval.from_position,
    StateInterval.to_position,
    StateInterval.membership,
    # member events are not even read
    case((StateInterval.type == VISIBILITY[0], StoredEvent.pdu)).label("pdu"),
)
_EVENT = StoredEvent.number == StateInterval.event_number
_SETTINGS = (StateInterval.type == VISIBILITY[0], StateInterval.state_key == VISIBILITY[1])
_OWN = (StateInterval.type == state.MEMBER, StateInterval.state_key == bindparam("user_id"))
_CHANGES = (
    select(*_COLUMNS)
    .join(StoredEvent, _EVENT)
    .where(StateInterval.room_number == state.ROOM_NUMBER)
)
_ROOMS_BETWEEN_PAUSES = 100

_HISTORY = union_all(_CHANGES.where(*_SETTINGS), _CHANGES.where(*_OWN)).order_by("from_position")
_ROOM_IDS = listed("room_ids")
_CHANGES_OF_ROOMS = (
    select(Room.room_id, *_COLUMNS)
    .select_from(_ROOM_IDS)
    .join(Room, Room.room_id == _ROOM_IDS.c.value)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .join(StoredEvent, _EVENT)
)
_HISTORIES = union_all(
    _CHANGES_OF_ROOMS.where(*_SETTINGS), _CHANGES_OF_ROOMS.where(*_OWN)
).order_by("from_position")
_FORGOTTEN = select(ForgottenRoom.room_id).where(
    ForgottenRoom.user_id == bindparam("user_id"), ForgottenRoom.room_id == bindparam("room_id")
)


class Placed(Protocol):
    """A ClientEvent, or a row with these columns."""

    @property
    def position(self) -> int:
        """Its position on the clock."""

    @property
    def type(self) -> str:
        """Its type."""

    @property
    def state_key(self) -> str | None:
        """Its state key; None for an event that is not state."""


E = TypeVar("E", bound=Placed)


class Sent(Placed, Protocol):
    """What has to be known of an event to hide it after an erasure."""

    @property
    def number(self) -> EventNumber:
        """Its number."""

    @property
    def room_id(self) -> str:
        """Its room."""

    @property
    def sender(self) -> str:
        """Its sender."""


class ValueIntervals:
    """The history of one value: it changes at some positions, and is None before the first."""

    def __init__(self, intervals: Iterable[tuple[int, int, str]]) -> None:
        self._starts: list[int] = []
        self._values: list[str | None] = []
        end = 0
        for start, until, value in intervals:
            if start > end:  # a gap
                self._change(end, None)
            self._change(start, value)
            end = until
        if end != NOW_AND_LATER:
            self._change(end, None)

    def at(self, position: int) -> str | None:
        """Return the value after this position."""
        index = bisect_right(self._starts, position) - 1
        return self._values[index] if index >= 0 else None

    @property
    def now(self) -> str | None:
        """The value at the end."""
        return self._values[-1] if self._values else None

    def starts_after(self, position: int) -> list[int]:
        """Return the later positions at which it changes."""
        return self._starts[bisect_right(self._starts, position) :]

    def _change(self, start: int, value: str | None) -> None:
        self._starts.append(start)
        self._values.append(value)


@dataclass(frozen=True, slots=True)
class History:
    """What one user may see of one room."""

    user_id: str
    setting: ValueIntervals
    """m.room.history_visibility."""
    membership: ValueIntervals
    joined_until: int
    """Position of the user's last leave; NOW_AND_LATER: is joined, 0: never was."""

    @property
    def is_open(self) -> bool:
        """Whether anybody may read the room as it is now."""
        return self.setting.now == "world_readable"

    def shows(self, event: Placed) -> bool:
        """Return whether the user may see an event of the room.

        What changes the setting, or the user's own membership, is judged by the state before it
        as well as by the state after it.
        """
        at = event.position
        setting, membership = self.setting.at(at), self.membership.at(at)
        if self._allows(at, setting, membership):
            return True
        if (event.type, event.state_key) == VISIBILITY:
            return self._allows(at, self.setting.at(at - 1), membership)
        if (event.type, event.state_key) == (state.MEMBER, self.user_id):
            return self._allows(at, setting, self.membership.at(at - 1))
        return False

    def first_seen(self, position: int) -> int | None:
        """Return the first position from this one on at which the user may know the room's state.

        A token from /sync may stand just before the user's own join.
        """
        changes = self.setting.starts_after(position) + self.membership.starts_after(position)
        for at in (position, *sorted(changes)):
            if self._allows(at, self.setting.at(at), self.membership.at(at)):
                return at
        return None

    def spans(self) -> list[tuple[int, int]]:
        """Return the (first, last position) of each part of the room that the user may see.

        For searches in SQL; in accordance with `shows`. No two overlap.
        """
        starts = {0, *self.setting.starts_after(0), *self.membership.starts_after(0)}
        starts |= {self.joined_until} - {NOW_AND_LATER}
        edges = [*sorted(starts), NOW_AND_LATER + 1]
        found = [
            (first, after - 1)
            for first, after in itertools.pairwise(edges)
            if self._allows(first, self.setting.at(first), self.membership.at(first))
        ]
        settings, memberships = self.setting.starts_after(0), self.membership.starts_after(0)
        changes = [(at, self.setting.at(at - 1), self.membership.at(at)) for at in settings]
        changes += [(at, self.setting.at(at), self.membership.at(at - 1)) for at in memberships]
        return _merged(found + [(it[0], it[0]) for it in changes if self._allows(*it)])

    def ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the parts of a range of positions whose messages the user may see."""
        changes = {*self.setting.starts_after(first), *self.membership.starts_after(first)}
        starts = [first, *sorted(at for at in changes if at <= last)]
        ends = [*(start - 1 for start in starts[1:]), last]
        found: list[tuple[int, int]] = []
        for start, end in zip(starts, ends, strict=True):
            # "shared" lets former members see what was said before they left
            cut = self.joined_until if start < self.joined_until <= end else end + 1
            parts = ((start, cut - 1), (cut, end))
            found += [part for part in parts if part[0] <= part[1] and self._sees(part[0])]
        return found

    def _sees(self, position: int) -> bool:
        return self._allows(position, self.setting.at(position), self.membership.at(position))

    def _allows(self, position: int, setting: str | None, membership: str | None) -> bool:
        """Apply the specification's five rules, in its order."""
        if setting == "world_readable" or membership == "join":
            return True
        if setting not in SETTINGS:
            setting = DEFAULT
        if setting == "shared" and position < self.joined_until:
            return True
        return setting == "invited" and membership == "invite"


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans that cover the same positions, in their order, with a gap between any two."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def visible(tx: Reader, user_id: str | None, room_id: str, events: Sequence[E]) -> list[E]:
    """Return the room's events that the user may see, in their order; None: without an account."""
    if not events:
        return []
    since = _sees_all_since(tx, user_id or "", room_id)
    if since is not None and since <= min(event.position for event in events):
        return list(events)
    known = history(tx, user_id or "", room_id)
    return [event for event in events if known.shows(event)]


def sees_all_since(tx: Reader, user_id: str, room_id: str, position: int) -> bool:
    """Return whether, by current state alone, the user may see all events since a position."""
    since = _sees_all_since(tx, user_id, room_id)
    return since is not None and since <= position


def ranges(tx: Reader, user_id: str, room_id: str, first: int) -> list[tuple[int, int]]:
    """Return the parts of the room from a position on whose messages the user may see."""
    if sees_all_since(tx, user_id, room_id, first):
        return [(first, tx.position)]
    return history(tx, user_id, room_id).ranges(first, tx.position)


def within(position: ColumnExpressionArgument[int | None]) -> Exists:
    """Return the condition that a position lies in one of the list parameter `ranges`."""
    some = listed("ranges")
    return exists().where(between(position, item(some, 0), item(some, 1)))


def hidden_by_erasure(tx: Reader, user_id: str, events: Collection[Sent]) -> set[EventNumber]:
    """Return the numbers of the events that this user sees redacted, of erased users."""
    erased = accounts.erased(tx)
    if not erased:
        return set()
    by_room: dict[str, list[Sent]] = {}
    for event in events:
        if event.sender in erased and _is_personal(event):
            by_room.setdefault(event.room_id, []).append(event)
    return {
        number
        for room_id, some in by_room.items()
        for number in _hidden_in(tx, user_id, room_id, some, erased)
    }


def memberships(tx: Reader, user_id: str, events: Iterable[ClientEvent]) -> dict[EventNumber, str]:
    """Return {number: the user's membership just after the event}.

    The events may be of several rooms; what is not cached is read for many of them at a time.
    Spec: client-server-api#room-event-format (unsigned.membership)
    """
    by_room: dict[str, list[ClientEvent]] = {}
    for event in events:
        by_room.setdefault(event.room_id, []).append(event)
    found: dict[EventNumber, str] = {}
    earlier: dict[str, list[ClientEvent]] = {}
    own: StateKey = (state.MEMBER, user_id)
    for room_id, some in tx.pausing(by_room.items(), _ROOMS_BETWEEN_PAUSES):
        entry = state.entries(tx, room_id, [own])[own]
        now = "leave" if entry.event is None else str(entry.event.content["membership"])
        since = entry.since
        found |= {event.number: now for event in some if event.position >= since}
        if before := [event for event in some if event.position < since]:
            earlier[room_id] = before
    known = histories(tx, user_id, earlier) if earlier else {}
    for room_id, some in earlier.items():
        intervals = known[room_id].membership
        found |= {event.number: intervals.at(event.position) or "leave" for event in some}
    return found


def history(tx: Reader, user_id: str, room_id: str) -> History:
    """Return what decides which events of the room this user may see."""
    found = tx.sql.execute(_HISTORY, {"room_id": room_id, "user_id": user_id})
    return _history_of(user_id, found)


def histories(tx: Reader, user_id: str, room_ids: Collection[str]) -> dict[str, History]:
    """Return `history` for each of many rooms, with a statement for some of them at a time."""
    changes: dict[str, list[state.AnyRow]] = {room_id: [] for room_id in room_ids}
    for some in tx.pausing(batches(room_ids, _ROOMS_BETWEEN_PAUSES), every=1):
        for row in tx.sql.execute(_HISTORIES, {"room_ids": some, "user_id": user_id}):
            changes[row.room_id].append(row)
    return {room_id: _history_of(user_id, some) for room_id, some in changes.items()}


def _history_of(user_id: str, changes: Iterable[state.AnyRow]) -> History:
    settings: list[tuple[int, int, str]] = []
    memberships: list[tuple[int, int, str]] = []
    for row in changes:
        if row.type == VISIBILITY[0]:
            setting = orjson.loads(row.pdu)["content"].get("history_visibility")
            settings.append((row.from_position, row.to_position, str(setting)))
        else:
            memberships.append((row.from_position, row.to_position, row.membership))
    joined = [until for _, until, membership in memberships if membership == "join"]
    return History(
        user_id, ValueIntervals(settings), ValueIntervals(memberships), joined[-1] if joined else 0
    )


def may_read(tx: Reader, user_id: str, room_id: str) -> None:
    """Check that the user is or was in the room, or that it is world-readable now.

    Raises M_FORBIDDEN for others, among them users who were only invited, or who have left and
    forgotten the room; also for a room that does not exist.
    """
    upto(tx, user_id, room_id)


def upto(tx: Reader, user_id: str, room_id: str) -> int:
    """Return the last position at which the user may see the room's state: now, or their leave.

    Raises M_FORBIDDEN as `may_read` does.
    """
    if state.is_joined(tx, room_id, user_id):
        return tx.position
    known = history(tx, user_id, room_id)
    if known.is_open:
        return tx.position
    if known.joined_until == 0:
        raise errors.forbidden("You are not in this room, and never were")
    if has_forgotten(tx, user_id, room_id):
        raise errors.forbidden("You have left this room and forgotten it")
    return known.joined_until


def has_forgotten(tx: Reader, user_id: str, room_id: str) -> bool:
    """Return whether the user has left and forgotten the room."""
    key = {"user_id": user_id, "room_id": room_id}
    return tx.sql.execute(_FORGOTTEN, key).first() is not None


def is_closed_by_forgetting(tx: Reader, user_id: str, room_id: str) -> bool:
    """Return whether the user may not read the room as they have left and forgotten it.

    A world-readable room stays readable.
    """
    if state.is_joined(tx, room_id, user_id) or not has_forgotten(tx, user_id, room_id):
        return False
    return not history(tx, user_id, room_id).is_open


def _sees_all_since(tx: Reader, user_id: str, room_id: str) -> int | None:
    """Return the position since which the user may see everything, by current state alone."""
    own: StateKey = (state.MEMBER, user_id)
    entries = state.entries(tx, room_id, [VISIBILITY, own])
    member, setting = entries[own], entries[VISIBILITY]
    if member.event is None or member.event.content["membership"] != "join":
        return None
    if setting.event is not None and _seen_by_all_members(setting.event.content):
        return min(member.since, setting.since)
    return member.since


def _seen_by_all_members(content: Json) -> bool:
    return str(content.get("history_visibility")) in {"shared", "world_readable"}


def _is_personal(event: Sent) -> bool:
    """Return whether it is a message or the user's own member event.

    Deviates: "the events sent by this account" are others as well. But a room keeps its name and
    topic for newcomers: they belong to the room.
    """
    return event.state_key is None or (event.type, event.state_key) == (state.MEMBER, event.sender)


def _hidden_in(
    tx: Reader,
    user_id: str,
    room_id: str,
    events: Sequence[Sent],
    erased: Mapping[str, int],
) -> list[EventNumber]:
    own = (state.MEMBER, user_id)
    entry = state.entries(tx, room_id, [own])[own]
    is_joined = entry.event is not None and entry.event.content["membership"] == "join"
    if is_joined and entry.since <= min(event.position for event in events):
        return []
    intervals = history(tx, user_id, room_id).membership

    def was_there(event: Sent) -> bool:
        until = erased[event.sender]
        changes = intervals.starts_after(event.position)
        times = [event.position, *(at for at in changes if at < until)]
        return any(intervals.at(at) == "join" for at in times)

    return [event.number for event in events if not was_there(event)]
