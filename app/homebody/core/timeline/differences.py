"""What states of forks have differently from the room's state on the clock (see forks.py).

A difference is stored with the event before which the room had that state, and used by all events
of the branch that change nothing. One that adds to another refers to it as its parent.

Differences are needed for events that something may still follow. Those of events that are older
than the newest MIN_KEPT_EVENTS of their room and than MIN_KEPT_DAYS are deleted; an event that
follows one of them later has a state that is not known, as if the older event were missing.

This module alone writes the tables state_differences and differing_entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from homebody.core.events import state
from homebody.models.event_graph import DifferingEntry, StateDifference
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.spec.events import StateKey
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import listed

MAX_ANCESTORS: Final = 8
"""Of a stored difference; a longer chain is written as one."""
MIN_KEPT_EVENTS: Final = 1000
MIN_KEPT_DAYS: Final = 30
FORGOTTEN: Final = 0
"""The `state_diff` of an event whose difference is deleted."""

Overlay = Mapping[StateKey, int | None]
"""{(type, state_key): number of the event, or None where the state has none}"""

_IDS, _NUMBERS = listed("event_ids"), listed("numbers")
_DIFFERENCE = select(StateDifference.parent, StateDifference.depth).where(
    StateDifference.number == bindparam("of_number")
)
_ENTRIES = select(DifferingEntry.type, DifferingEntry.state_key, DifferingEntry.event_number).where(
    DifferingEntry.difference == bindparam("of_number")
)
_INSERT_DIFFERENCE = (
    insert(StateDifference)
    .inline()
    .values(
        number=bindparam("of_number"),
        room_number=state.ROOM_NUMBER,
        parent=bindparam("adds_to"),
        depth=bindparam("ancestors"),
    )
)
_INSERT_ENTRY = insert(DifferingEntry)
_REPLACE_ENTRY = (
    update(DifferingEntry)
    .where(
        DifferingEntry.difference.in_(
            select(StateDifference.number).where(StateDifference.room_number == state.ROOM_NUMBER)
        ),
        DifferingEntry.type == bindparam("of_type"),
        DifferingEntry.state_key == bindparam("with_key"),
        DifferingEntry.event_number == bindparam("old"),
    )
    .values(event_number=bindparam("new"))
)
_REMOVE_ENTRIES = delete(DifferingEntry).where(
    DifferingEntry.difference.in_(
        select(StateDifference.number).where(StateDifference.room_number == state.ROOM_NUMBER)
    )
)
_REMOVE_DIFFERENCES = delete(StateDifference).where(
    StateDifference.room_number == state.ROOM_NUMBER
)

_ROOMS = select(Room.room_id).where(Room.number.in_(select(StateDifference.room_number)))
_OF_ROOM = select(StateDifference.number, StateDifference.parent).where(
    StateDifference.room_number == state.ROOM_NUMBER
)
_NEWEST = (
    select(StoredEvent.position)
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.position.is_not(None))
    .order_by(StoredEvent.position.desc())
    .offset(bindparam("kept"))
    .limit(1)
)
_OLD = select(func.max(StoredEvent.position)).where(
    StoredEvent.room_id == bindparam("room_id"),
    StoredEvent.position.is_not(None),
    StoredEvent.origin_server_ts < bindparam("before_ts"),
)
_IN_USE = (
    select(StoredEvent.state_diff)
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.state_diff.is_not(None),
        or_(
            StoredEvent.position >= bindparam("since"),
            StoredEvent.event_id.in_(select(_IDS.c.value)),
        ),
    )
    .distinct()
)
_FORGET = (
    update(StoredEvent)
    .where(StoredEvent.state_diff.in_(select(_NUMBERS.c.value)))
    .values(state_diff=FORGOTTEN)
)
_DELETE = (
    delete(DifferingEntry).where(DifferingEntry.difference.in_(select(_NUMBERS.c.value))),
    delete(StateDifference).where(StateDifference.number.in_(select(_NUMBERS.c.value))),
)


def read(tx: Reader, difference: int) -> dict[StateKey, int | None]:
    """Return the entries of a difference, with those of its ancestors."""
    found: dict[StateKey, int | None] = {}
    number: int | None = difference
    while number is not None:
        for row in tx.sql.execute(_ENTRIES, {"of_number": number}):
            found.setdefault((row.type, row.state_key), row.event_number)
        number = tx.sql.execute(_DIFFERENCE, {"of_number": number}).one().parent
    return found


def keep(tx: Tx, room_id: str, overlay: Overlay, made_from: int | None, number: int) -> int:
    """Store the entries by which the state before the event `number` differs; return its number.

    `made_from` is the difference from which they were made. If that has the same entries, they are
    not stored again, and if they add to it, as an addition.
    """
    parent, ancestors, added = None, 0, overlay
    if made_from is not None:
        known = read(tx, made_from)
        if known == overlay:
            return made_from
        ancestors = tx.sql.execute(_DIFFERENCE, {"of_number": made_from}).one().depth + 1
        if known.keys() <= overlay.keys() and ancestors < MAX_ANCESTORS:
            parent = made_from
            added = {key: it for key, it in overlay.items() if key not in known or known[key] != it}
    head = {"room_id": room_id, "of_number": number, "adds_to": parent}
    tx.sql.execute(_INSERT_DIFFERENCE, {**head, "ancestors": ancestors if parent else 0})
    entries = [
        {"difference": number, "type": key[0], "state_key": key[1], "event_number": it}
        for key, it in added.items()
    ]
    tx.sql.execute(_INSERT_ENTRY, entries)
    return number


def replace(tx: Tx, room_id: str, key: StateKey, old: int, new: int | None) -> None:
    """Put another event, or None, in place of one that is rejected now."""
    asked = {"room_id": room_id, "of_type": key[0], "with_key": key[1], "old": old, "new": new}
    tx.sql.execute(_REPLACE_ENTRY, asked)


def sweep(db: Database) -> int:
    """Delete the differences of earlier events, in one write for each room; return how many."""
    with db.read() as tx:
        rooms = tx.sql.execute(_ROOMS).scalars().all()
    count = 0
    for room_id in rooms:
        with db.write() as writing:
            count += _sweep_room(writing, room_id)
    return count


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the differences of a room; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ENTRIES, {"room_id": room_id})
    tx.sql.execute(_REMOVE_DIFFERENCES, {"room_id": room_id})


def _sweep_room(tx: Tx, room_id: str) -> int:
    asked = {"room_id": room_id, "kept": MIN_KEPT_EVENTS - 1}
    newest = tx.sql.execute(_NEWEST, asked).scalar()
    before_ts = tx.now_ms - MIN_KEPT_DAYS * 86_400_000
    old = tx.sql.execute(_OLD, {"room_id": room_id, "before_ts": before_ts}).scalar()
    if newest is None or old is None:
        return 0
    ends = state.head(tx, room_id).forward_extremities
    needed = {"room_id": room_id, "since": min(newest, old), "event_ids": ends}
    parents = {row.number: row.parent for row in tx.sql.execute(_OF_ROOM, {"room_id": room_id})}
    kept: set[int] = set()
    for number in tx.sql.execute(_IN_USE, needed).scalars():
        while number in parents and number not in kept:
            kept.add(number)
            number = parents[number]  # noqa: PLW2901 - up the chain
    deleted = list(parents.keys() - kept)
    if deleted:
        tx.sql.execute(_FORGET, {"numbers": deleted})
        for statement in _DELETE:
            tx.sql.execute(statement, {"numbers": deleted})
    return len(deleted)
