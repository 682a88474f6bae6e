"""Changes of the state of rooms, in the table and in all caches of current state.

`replace` is called for each state event that is stored, `apply` for what state resolution changes
besides. This module and past_state.py write the table state_intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update

from homebody.core.events import state
from homebody.core.events.state import MEMBER, ROOM_NUMBER, Joined, StateEntry
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Event, Json, StateKey
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Tx

Numbered = tuple[EventNumber, Event]
"""The number of a stored event, and the event."""
MAX_HEROES: Final = 5
PRESENT: Final = frozenset({"join", "invite"})
"""The memberships of the users by whom a room is called, before all others."""

_END = (
    update(StateInterval)
    .where(
        StateInterval.room_number == ROOM_NUMBER,
        StateInterval.type == bindparam("of_type"),
        StateInterval.state_key == bindparam("with_key"),
        StateInterval.from_position == bindparam("begun"),
    )
    .values(to_position=bindparam("end"))
)
_DROP = delete(StateInterval).where(
    StateInterval.room_number == ROOM_NUMBER,
    StateInterval.type == bindparam("of_type"),
    StateInterval.state_key == bindparam("with_key"),
    StateInterval.from_position == bindparam("begun"),
)
_BEGIN = (
    insert(StateInterval)
    .inline()  # else it asks for the room's number back
    .values(
        room_number=ROOM_NUMBER,
        type=bindparam("of_type"),
        state_key=bindparam("with_key"),
        from_position=bindparam("position"),
        to_position=NOW_AND_LATER,
        event_number=bindparam("number"),
        membership=bindparam("as_member"),
    )
)
_OF_ROOM = StateInterval.room_number == bindparam("number")
_KEYS_OF_OURS = select(StateInterval.type, StateInterval.state_key).where(
    StateInterval.room_number == ROOM_NUMBER,
    (StateInterval.type != MEMBER) | StateInterval.state_key.endswith(bindparam("domain")),
)
_SOME = (
    select(
        StateInterval.type.label("of_type"),
        StateInterval.state_key.label("with_key"),
        StateInterval.from_position.label("begun"),
    )
    .where(_OF_ROOM)
    .limit(bindparam("count"))
)
_REMOVE = delete(StateInterval).where(
    StateInterval.room_number == bindparam("of_number"),
    StateInterval.type == bindparam("of_type"),
    StateInterval.state_key == bindparam("with_key"),
    StateInterval.from_position == bindparam("begun"),
)
_NOTE_RESET = (
    update(Room)
    .where(Room.room_id == bindparam("in_room"), Room.state_reset_position < bindparam("position"))
    .values(state_reset_position=bindparam("position"))
)


_RENUMBER = (
    update(StateInterval)
    .where(
        StateInterval.room_number == ROOM_NUMBER,
        StateInterval.type == bindparam("of_type"),
        StateInterval.state_key == bindparam("with_key"),
        StateInterval.event_number == bindparam("old"),
    )
    .values(event_number=bindparam("new"))
)
_NUMBER_OF_ROOM = select(Room.number).where(Room.room_id == bindparam("of_room"))
_ADD_MANY = insert(StateInterval)


class MemberChange(NamedTuple):
    """A change of a membership; None: the room has no such member."""

    user_id: str
    before: str | None
    after: str | None
    content: Json
    """Of the new event."""

    @property
    def by(self) -> int:
        """The number by which the number of joined users has changed."""
        return (self.after == "join") - (self.before == "join")


class MemberSummary(NamedTuple):
    """The members by whom a room without a name is called. Never modified."""

    joined: int
    invited: int
    first: tuple[tuple[str, bool], ...]
    """(user_id, is joined or invited) of one more than a response lists, as it leaves out its
    reader; those who are there come first, each in the order of their events."""

    def moved(self, change: MemberChange) -> MemberSummary | None:
        """Return the summary after the newest change of a membership; None: read it again."""
        user_id, before, after, _ = change
        joined = self.joined + change.by
        invited = self.invited + (after == "invite") - (before == "invite")
        first = [it for it in self.first if it[0] != user_id]
        if len(self.first) > MAX_HEROES and len(first) < len(self.first):
            return None  # who moves up is not known
        if after is not None:
            is_there = after in PRESENT
            at = sum(it[1] for it in first) if is_there else len(first)
            first.insert(at, (user_id, is_there))
        return MemberSummary(joined, invited, tuple(first[: MAX_HEROES + 1]))


SUMMARIES: CacheKind[str, MemberSummary] = declare("members", 2, lambda _: 1200)
"""By room_id; filled by sync/summaries.py."""


def replace(
    tx: Tx, event: Event, number: EventNumber, position: int
) -> tuple[EventNumber | None, MemberChange | None]:
    """Make a state event that is being stored part of the room's current state.

    Return the number of the event that it replaces, and the change if it is of a membership.
    Called by timeline.store() alone, after the event was allowed.
    """
    key = (event.type, event.state_key or "")
    before = state.entries(tx, event.room_id, [key])[key]
    change = _move(tx, event.room_id, key, before, (number, event), position)
    return before.number if before.event is not None else None, change


def apply(
    tx: Tx, room_id: str, changes: Mapping[StateKey, Numbered | None], position: int
) -> list[MemberChange]:
    """Change current state without an event in the timeline; return the changed memberships.

    Called by timeline/current_state.py alone.
    """
    entries = state.entries(tx, room_id, changes)
    moved: list[MemberChange] = []
    has_moved = False
    for key, event in sorted(changes.items()):
        before = entries[key]
        if _is_held(before, event):
            continue
        has_moved = True
        change = _move(tx, room_id, key, before, event, position)
        if change is not None:
            moved.append(change)
    if has_moved:
        note_reset(tx, room_id, position)
    return moved


def note_reset(tx: Tx, room_id: str, position: int) -> None:
    """Note that the state of a room and the events of its timeline differ from here on."""
    tx.sql.execute(_NOTE_RESET, {"in_room": room_id, "position": position})
    tx.forget(state.LAST_RESET, state.ONLY_ONE)


def begin_many(
    tx: Tx, room_id: str, entries: Mapping[StateKey, tuple[int, str | None]], position: int
) -> None:
    """Begin intervals of entries that the room has never had, {key: (number, membership)}.

    For the thousands that come with a join; none may be of a local user. Called by
    timeline/current_state.py alone.
    """
    room_number = tx.sql.execute(_NUMBER_OF_ROOM, {"of_room": room_id}).scalar_one()
    rows = [
        {
            "room_number": room_number,
            "type": key[0],
            "state_key": key[1],
            "from_position": position,
            "to_position": NOW_AND_LATER,
            "event_number": number,
            "membership": membership,
        }
        for key, (number, membership) in entries.items()
    ]
    if not rows:
        return
    joined = state.joined(tx, room_id)
    tx.sql.execute(_ADD_MANY, rows)
    for key, (_, membership) in entries.items():
        tx.forget(state.STATE, (room_id, key))
        if membership == "join":
            tx.forget(state.JOINED_ROOMS, key[1])
    tx.forget(SUMMARIES, room_id)
    tx.remember(state.JOINED, room_id, _with_many(joined, entries))


def forget_members(tx: Tx, room_id: str, user_ids: Iterable[str] = ()) -> None:
    """Read the members of a room again when they are next needed, and the rooms of these users.

    Called where past_state.py has changed who they are, or a room becomes partial or full.
    """
    tx.forget(state.JOINED, room_id)
    tx.forget(SUMMARIES, room_id)
    for user_id in user_ids:
        tx.forget(state.JOINED_ROOMS, user_id)


def renumber(tx: Tx, room_id: str, key: StateKey, old: int, new: int) -> None:
    """Let intervals of an entry tell of an event by its new number; called by timeline.store."""
    of_entry = {"room_id": room_id, "of_type": key[0], "with_key": key[1]}
    tx.sql.execute(_RENUMBER, {**of_entry, "old": old, "new": new})
    tx.forget(state.STATE, (room_id, key))


def remove_room(tx: Tx, room_id: str) -> None:
    """Have caches forget what users of this server may have seen of a room's state.

    Called by rooms/purge.py alone, in the write that deletes the room; then it calls `remove_some`.
    """
    tx.forget(state.JOINED, room_id)
    tx.forget(SUMMARIES, room_id)
    asked = {"room_id": room_id, "domain": f":{tx.server.name}"}
    _forget_entries(tx, room_id, tx.sql.execute(_KEYS_OF_OURS, asked))


def remove_some(tx: Tx, room_id: str, number: int, count: int) -> int:
    """Delete at most `count` intervals of a room that is gone; return how many there were."""
    rows = tx.sql.execute(_SOME, {"number": number, "count": count})
    keys = [
        {"of_number": number, "of_type": row[0], "with_key": row[1], "begun": row[2]}
        for row in rows
    ]
    tx.sql.execute(_REMOVE, keys)
    _forget_entries(tx, room_id, [(row.of_type, row.with_key) for row in rows])
    return len(rows)


def _forget_entries(tx: Tx, room_id: str, keys: Iterable[tuple[str, str]]) -> None:
    for event_type, state_key in set(map(tuple, keys)):
        tx.forget(state.STATE, (room_id, (event_type, state_key)))
        if event_type == MEMBER:
            tx.forget(state.JOINED_ROOMS, state_key)


def _is_held(before: StateEntry, event: Numbered | None) -> bool:
    """Return whether the entry is as wanted already."""
    if event is not None:
        return before.event is not None and before.event.event_id == event[1].event_id
    return before.event is None


def _move(
    tx: Tx,
    room_id: str,
    key: StateKey,
    before: StateEntry,
    event: Numbered | None,
    position: int,
) -> MemberChange | None:
    """End the interval of an entry, and begin that of the event."""
    of_entry = {"room_id": room_id, "of_type": key[0], "with_key": key[1]}
    if before.is_there:
        # two changes at one position: nobody has seen the first
        statement = _END if before.since < position else _DROP
        tx.sql.execute(statement, {**of_entry, "begun": before.since, "end": position})
    after = _membership(tx, key, event)
    if event is not None:
        entry = StateEntry(event[1], event[0], position, state.memory_bytes(event[1]))
    else:
        entry = StateEntry(None, state.NO_EVENT, 0 if after is None else position, 0)
    if entry.is_there:
        begun = {"position": position, "number": entry.number, "as_member": after}
        tx.sql.execute(_BEGIN, {**of_entry, **begun})
    tx.remember(state.STATE, (room_id, key), entry)
    if key[0] != MEMBER:
        return None
    content = {} if event is None else event[1].content
    change = MemberChange(key[1], before.membership, after, content)
    _follow(tx, room_id, change, position)
    return change


def _membership(tx: Tx, key: StateKey, event: Numbered | None) -> str | None:
    """Return the membership of an interval; None: it is not of a member, or there is none."""
    if key[0] != MEMBER:
        return None
    if event is not None:
        return str(event[1].content["membership"])
    return "leave" if tx.server.is_local(key[1]) else None


def _follow(tx: Tx, room_id: str, change: MemberChange, position: int) -> None:
    """Update the caches of the members of a room and of the rooms of a user."""
    tx.caches.recent.memberships = position
    summary = tx.cached(SUMMARIES, room_id)
    moved = None if summary is None else summary.moved(change)
    if moved is None:
        tx.forget(SUMMARIES, room_id)
    else:
        tx.remember(SUMMARIES, room_id, moved)
    if change.by:
        _follow_joined(tx, room_id, change)


def _follow_joined(tx: Tx, room_id: str, change: MemberChange) -> None:
    user_id = change.user_id
    joined = tx.cached(state.JOINED, room_id)
    if joined is None:  # mark the cache as changed: an older reader may be about to fill it
        tx.forget(state.JOINED, room_id)
    else:
        tx.remember(state.JOINED, room_id, _changed(tx, joined, user_id, change.by))
    rooms = tx.cached(state.JOINED_ROOMS, user_id)
    if rooms is None:
        tx.forget(state.JOINED_ROOMS, user_id)
    else:
        rooms = rooms | {room_id} if change.by > 0 else rooms - {room_id}
        tx.remember(state.JOINED_ROOMS, user_id, rooms)


def _with_many(known: Joined, entries: Mapping[StateKey, tuple[int, str | None]]) -> Joined:
    """Return the room's members with the joined users of these entries, none of them local."""
    servers = dict(known.servers)
    count = 0
    for (_, user_id), (_, membership) in entries.items():
        if membership == "join":
            server = user_id.partition(":")[2]
            servers[server] = servers.get(server, 0) + 1
            count += 1
    return known._replace(servers=servers, total=known.total + count)


def _changed(tx: Tx, known: Joined, user_id: str, by: int) -> Joined:
    """Return the room's members with one joined user more (1) or less (-1)."""
    server = user_id.partition(":")[2]
    servers = {**known.servers, server: known.servers.get(server, 0) + by}
    if not servers[server] and server not in known.presumed:
        del servers[server]
    here = known.local
    if tx.server.is_local(user_id):
        here = here | {user_id} if by > 0 else here - {user_id}
    return known._replace(local=here, servers=servers, total=known.total + by)
