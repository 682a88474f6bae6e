"""Which events of a room a user may see: the history visibility, checked wherever events are read.

Two entries of the room's state decide, m.room.history_visibility and the user's own membership, as
they were at each event (history_visibility.py). Both are kept as intervals, so all changes of the
two are read once for a whole page and looked up in memory. Mostly not even that is needed: for
users who have been joined since before the first event, the cache of current state is enough.

Ignored users are not a matter of permission: user_data/account_data.py has those.

Events of erased users (deactivated with `erase`) are shown redacted to users who joined later.
"Users which had visibility on those events prior to the erasure are still able to see unredacted
copies": these were in the room at some time between the event and the erasure. Nothing in the
database changes, and no redaction is sent. The erased users are kept in memory; mostly there are
none, and nothing more is read.
Spec: client-server-api#room-history-visibility,
client-server-api#post_matrixclientv3accountdeactivate (`erase`)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
from homebody.core.events.history_visibility import VISIBILITY, History, Placed, ValueIntervals
from homebody.models.accounts import Account
from homebody.models.base import EventNumber
from homebody.models.events import StoredEvent
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json, StateKey
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, item, listed

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
_ERASED = select(Account.user_id, Account.erased_position).where(
    Account.erased_position.is_not(None)
)
_FORGOTTEN = select(ForgottenRoom.room_id).where(
    ForgottenRoom.user_id == bindparam("user_id"), ForgottenRoom.room_id == bindparam("room_id")
)


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


def erased(tx: Reader) -> Mapping[str, int]:
    """Return {user_id: position since which the user is erased} of all erased users."""
    known = tx.cached(accounts.ERASED, accounts.ALL)
    if known is None:
        known = {row.user_id: row.erased_position for row in tx.sql.execute(_ERASED)}
        tx.fill(accounts.ERASED, accounts.ALL, known)
    return known


def hidden_by_erasure(tx: Reader, user_id: str, events: Collection[Sent]) -> set[EventNumber]:
    """Return the numbers of the events that this user sees redacted, of erased users."""
    gone = erased(tx)
    if not gone:
        return set()
    by_room: dict[str, list[Sent]] = {}
    for event in events:
        if event.sender in gone and _is_personal(event):
            by_room.setdefault(event.room_id, []).append(event)
    return {
        number
        for room_id, some in by_room.items()
        for number in _hidden_in(tx, user_id, room_id, some, gone)
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
