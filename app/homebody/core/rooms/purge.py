"""Rooms for administrators: listing all, and purging one from the database.

Each table is written by one module, which deletes its own part; this module gives the order. First
the room itself and what there is little of are deleted in one write, so that nobody can send to or
read the room any more; then the rest in many, as there may be a million events and members.
Meanwhile the room has a row in removed_rooms, so that no other gets its number, and nobody of this
server can join it again. An interrupted purge can be repeated; the upkeep does so, too.

Kept are media, which belong to their uploaders; encrypted keys in users' key backups; and events of
other rooms that refer to this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select

from homebody import errors
from homebody.core import incoming, joining, partial_rooms
from homebody.core.appservices import networks
from homebody.core.ephemeral import receipts
from homebody.core.events import auth_chains, members, state, state_changes, stripped_state
from homebody.core.push import counts
from homebody.core.rooms import aliases, membership, reports, server_notices, summary
from homebody.core.timeline import (
    delayed_events,
    differences,
    gaps,
    redactions,
    removal,
    sending,
    sticky_events,
    store,
)
from homebody.core.user_data import account_data, thread_subscriptions
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import RemovedRoom, Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

WRITERS: Final = (
    state_changes,  # these use the room's number, which `store` deletes
    differences,
    gaps,
    redactions,
    store,
    members,
    aliases,
    membership,
    networks,
    incoming,
    joining,
    partial_rooms,
    stripped_state,
    counts,
    account_data,
    thread_subscriptions,
    reports,
    server_notices,
    delayed_events,
    sticky_events,
)
"""The modules that delete what there is little of in a room, or have caches forget it."""
EVENTS_AT_ONCE: Final = 100
ROWS_AT_ONCE: Final = 200
"""Of other tables: some milliseconds, as with the events."""
USERS_AT_ONCE: Final = 20
"""Per transaction, so that other writers get their turn in between."""
MAX_REST_S: Final = 0.05
NOTICE_SECONDS: Final = 3.0
"""Between the leaves of a room's users and its deletion."""

Remove = Callable[[Tx], int]
"""Delete some rows; return how many there were."""

_EVENTS = (
    select(func.count())
    .where(StoredEvent.room_id == Room.room_id, StoredEvent.position.is_not(None))
    .scalar_subquery()
)
_LAST = (
    select(StoredEvent.origin_server_ts)
    .where(StoredEvent.room_id == Room.room_id, StoredEvent.position == Room.last_position)
    .scalar_subquery()
)
_ALL = select(
    Room.room_id,
    Room.version,
    Room.is_published,
    _EVENTS.label("events"),
    _LAST.label("last_event_ts"),
).order_by(Room.last_position.desc())
_COUNT = select(func.count()).where(StoredEvent.room_id == bindparam("room_id"))
_NUMBER = select(Room.number).where(Room.room_id == bindparam("room_id"))
_REMOVED = select(RemovedRoom.room_id).order_by(RemovedRoom.room_id)
_NUMBER_OF_REMOVED = select(RemovedRoom.number).where(RemovedRoom.room_id == bindparam("room_id"))
_END = delete(RemovedRoom).where(RemovedRoom.room_id == bindparam("of_room"))
_USERS = select(StateInterval.state_key).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.to_position == NOW_AND_LATER,
    StateInterval.membership.in_(("join", "invite", "knock")),
)


def all_rooms(tx: Reader) -> list[Json]:
    """Return all rooms, most recently active first.

    Each has room_id, version, name and canonical_alias (or None), joined_members, events (their
    number), last_event_ts (ms) and is_published.
    """
    rows = tx.sql.execute(_ALL).all()
    summaries = summary.public_chunks(tx, [row.room_id for row in rows])
    return [
        {
            "room_id": row.room_id,
            "version": row.version,
            "name": shown.get("name"),
            "canonical_alias": shown.get("canonical_alias"),
            "joined_members": shown["num_joined_members"],
            "events": row.events,
            "last_event_ts": row.last_event_ts,
            "is_published": row.is_published,
        }
        for row, shown in zip(rows, summaries, strict=True)
    ]


def count_events(tx: Reader, room_id: str) -> int:
    """Return the number of all stored events of a room."""
    return int(tx.sql.execute(_COUNT, {"room_id": room_id}).scalar_one())


def not_shown(_count: int) -> None:
    """Report to nobody."""


def not_sealed(_tx: Tx) -> None:
    """Do nothing about being cancelled."""


def purge(
    db: Database,
    room_id: str,
    *,
    is_forced: bool = False,
    report: Callable[[int], None] = not_shown,
    seal: Callable[[Tx], None] = not_sealed,
) -> int:
    """Delete a room with everything that belongs to it, and return its number of events.

    Raises M_NOT_FOUND, and M_FORBIDDEN while users of this server are in the room; with
    `is_forced` they leave first. A device that does not sync between that and the deletion, some
    seconds later, does not notice either, and continues to show the room. `report` is called with
    the number of events that are deleted so far, `seal` in the write from which on the room is
    gone.
    """
    with db.read() as tx:
        is_gone = _is_gone(tx, room_id)
        if not is_gone:
            _check_is_there(tx, room_id)
            state.find_joined(tx, room_id)
        if not is_forced:
            _check_is_empty(tx, room_id)
    if not is_gone:
        if is_forced and _make_all_leave(db, room_id):
            wait_for_clients()
        with db.write() as writing:
            if not is_forced:  # users may have joined meanwhile
                _check_is_empty(writing, room_id)
            seal(writing)
            _remove_room(writing, room_id)
    return _remove_rest(db, room_id, report)


def finish(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Finish the purges that were interrupted; return their number."""
    with db.read() as tx:
        rooms = tx.sql.execute(_REMOVED).scalars().all()
    for room_id in rooms:
        _remove_rest(db, room_id, lambda _count: step())
    return len(rooms)


def _remove_room(tx: Tx, room_id: str) -> None:
    number = tx.sql.execute(_NUMBER, {"room_id": room_id}).scalar()
    for writer in WRITERS:
        writer.remove_room(tx, room_id)
    tx.sql.execute(insert(RemovedRoom), {"room_id": room_id, "number": number})


def _remove_rest(db: Database, room_id: str, report: Callable[[int], None]) -> int:
    """Delete what the first write has left of a room; return the number of events."""
    with db.read() as tx:
        number = tx.sql.execute(_NUMBER_OF_REMOVED, {"room_id": room_id}).scalar()
    of_number: list[Remove] = [
        lambda tx: state_changes.remove_some(tx, room_id, number, ROWS_AT_ONCE),
        lambda tx: auth_chains.remove_some(tx, number, ROWS_AT_ONCE),
    ]
    of_room: list[Remove] = [lambda tx: receipts.remove_some(tx, room_id, ROWS_AT_ONCE)]
    for remove in [*(of_number if number is not None else ()), *of_room]:
        for _ in _in_steps(db, room_id, remove):
            report(0)
    removed = 0
    for count in _in_steps(
        db, room_id, lambda tx: removal.remove_events(tx, room_id, EVENTS_AT_ONCE)
    ):
        removed += count
        report(removed)
    with db.write() as tx:
        tx.sql.execute(_END, {"of_room": room_id})
    return removed


def _in_steps(db: Database, room_id: str, remove: Remove) -> Iterator[int]:
    """Delete something of a room in many writes; yield how much each has deleted.

    In between it rests as long as a write takes: requests wait for its COMMIT, too. Another call
    may end the purge of the same room meanwhile: then another room may have its number, or users
    may be in it again, and nothing more is deleted.
    """
    count = 1
    while count:
        began = time.monotonic()
        with db.write() as tx:
            count = remove(tx) if _is_gone(tx, room_id) else 0
        yield count
        event_loop.pause()
        time.sleep(min(MAX_REST_S, time.monotonic() - began))


def wait_for_clients() -> None:
    """Give waiting /sync requests time to return the leaves.

    Mostly the command line calls this, and the server takes up to half a second to notice what
    another process has written, or more on a busy machine.
    """
    time.sleep(NOTICE_SECONDS)


def _is_gone(tx: Reader, room_id: str) -> bool:
    """Return whether a purge has been interrupted after its first write."""
    return bool(tx.sql.execute(_REMOVED.where(RemovedRoom.room_id == room_id)))


def _check_is_there(tx: Reader, room_id: str) -> None:
    for table in (Room, StoredEvent):  # only events: of a purge by an older version
        if tx.sql.execute(select(table.room_id).where(table.room_id == room_id).limit(1)):
            return
    raise errors.not_found(f"There is no room {room_id}")


def _check_is_empty(tx: Reader, room_id: str) -> None:
    here = sorted(state.joined(tx, room_id).local)
    if here:
        others = f" and {len(here) - 3} others" if len(here) > 3 else ""
        raise errors.forbidden(f"{', '.join(here[:3])}{others} would have to leave the room first")


def _make_all_leave(db: Database, room_id: str) -> bool:
    """Make all users of this server leave, and return whether there were any."""
    with db.read() as tx:
        found = tx.sql.execute(_USERS, {"room_id": room_id}).scalars().all()
        users = sorted(user for user in found if tx.server.is_local(user))
    for some in batches(users, USERS_AT_ONCE):
        with db.write() as writing:
            for user_id in some:
                sending.force_leave(writing, room_id, user_id)
    return bool(users)
