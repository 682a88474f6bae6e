"""Changes of the state of rooms, in the table and in all caches of current state.

This module alone writes the table state_intervals.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, insert, update

from homebody.core.events import state
from homebody.core.events.state import MEMBER, ROOM_NUMBER, Joined, StateEntry
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.models.state import StateInterval
from homebody.spec.events import Event
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Tx

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
_REMOVE_ROOM = (
    delete(StateInterval)
    .where(StateInterval.room_number == ROOM_NUMBER)
    .returning(StateInterval.type, StateInterval.state_key)
)


class MemberSummary(NamedTuple):
    """The members by whom a room without a name is called. Never modified."""

    joined: int
    invited: int
    first: tuple[tuple[str, bool], ...]
    """(user_id, is joined or invited) of one more than a response lists, as it leaves out its
    reader; those who are there come first, each in the order of their events."""

    def moved(self, user_id: str, before: str | None, after: str | None) -> MemberSummary | None:
        """Return the summary after the newest change of a membership; None: read it again."""
        joined = self.joined + (after == "join") - (before == "join")
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


def replace(tx: Tx, event: Event, number: EventNumber, position: int) -> EventNumber | None:
    """Make a state event part of the room's current state; return the event that it replaces.

    Called by timeline.store() alone, after the event was allowed.
    """
    key = (event.type, event.state_key or "")
    before = state.entries(tx, event.room_id, [key])[key]
    of_entry = {"room_id": event.room_id, "of_type": key[0], "with_key": key[1]}
    if before.event is not None:
        tx.sql.execute(_END, {**of_entry, "begun": before.since, "end": position})
    membership = str(event.content["membership"]) if event.type == MEMBER else None
    begun = {"position": position, "number": number, "as_member": membership}
    tx.sql.execute(_BEGIN, {**of_entry, **begun})
    entry = StateEntry(event, number, position, state.memory_bytes(event))
    tx.remember(state.STATE, (event.room_id, key), entry)
    if event.type == MEMBER:
        _keep_joined(tx, event, position, before.event)
    return before.number if before.event is not None else None


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the room's state; called by rooms/purge.py alone."""
    tx.forget(state.JOINED, room_id)
    tx.forget(SUMMARIES, room_id)
    removed = tx.sql.execute(_REMOVE_ROOM, {"room_id": room_id})
    for event_type, state_key in {(row.type, row.state_key) for row in removed}:
        tx.forget(state.STATE, (room_id, (event_type, state_key)))
        if event_type == MEMBER:
            tx.forget(state.JOINED_ROOMS, state_key)


def _keep_joined(tx: Tx, event: Event, position: int, before: Event | None) -> None:
    """Update the caches of the members of a room and of the rooms of a user."""
    tx.caches.recent.memberships = position
    user_id, room_id = event.state_key or "", event.room_id
    was = None if before is None else str(before.content.get("membership"))
    now = str(event.content["membership"])
    _follow(tx, room_id, user_id, was, now)
    if (was == "join") == (now == "join"):
        return
    known = tx.cached(state.JOINED_ROOMS, user_id)
    if known is not None:
        rooms = known | {room_id} if now == "join" else known - {room_id}
        tx.remember(state.JOINED_ROOMS, user_id, rooms)
    else:  # mark the cache as changed: a reader with an older view may be about to fill it
        tx.forget(state.JOINED_ROOMS, user_id)


def _follow(tx: Tx, room_id: str, user_id: str, before: str | None, after: str | None) -> None:
    """Update the caches after a change of membership, the newest of the room.

    None: the room has no such member.
    """
    summary = tx.cached(SUMMARIES, room_id)
    moved = None if summary is None else summary.moved(user_id, before, after)
    if moved is None:
        tx.forget(SUMMARIES, room_id)
    else:
        tx.remember(SUMMARIES, room_id, moved)
    if (before == "join") == (after == "join"):
        return
    known = tx.cached(state.JOINED, room_id)
    if known is None:  # mark the cache as changed: an older reader may be about to fill it
        tx.forget(state.JOINED, room_id)
    else:
        by = 1 if after == "join" else -1
        tx.remember(state.JOINED, room_id, _changed(tx, known, user_id, by))


def _changed(tx: Tx, known: Joined, user_id: str, by: int) -> Joined:
    """Return the room's members with one joined user more (1) or less (-1)."""
    server = user_id.partition(":")[2]
    servers = {**known.servers, server: known.servers.get(server, 0) + by}
    if not servers[server]:
        del servers[server]
    here = known.local
    if tx.server.is_local(user_id):
        here = here | {user_id} if by > 0 else here - {user_id}
    return Joined(here, servers, known.total + by)
