"""Deleting rooms that all users of this server have left.

Nobody here can read a room that all of them have forgotten; it is deleted some time after the last
one has forgotten it (the setting `retention.forgotten_rooms`). One that they have only left they
may read up to there; it is deleted only if `retention.left_rooms` says when. Rooms to which
somebody is invited, or wants to be, stay. Accounts that are deactivated have forgotten all rooms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, select

from homebody.core import joining, partial_rooms
from homebody.core.rooms import purge
from homebody.errors import MatrixError
from homebody.models.accounts import Account
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

INSIDE: Final = ("join", "invite", "knock")

_ROOMS = select(Room.number, Room.room_id).order_by(Room.number)
_INHABITED = (
    select(StateInterval.room_number)
    .join(Account, Account.user_id == StateInterval.state_key)
    .where(StateInterval.to_position == NOW_AND_LATER, StateInterval.membership.in_(INSIDE))
    .distinct()
)
_MEMBERS = (
    select(
        StateInterval.state_key.label("user_id"),
        StateInterval.membership,
        func.coalesce(StoredEvent.origin_server_ts, 0).label("left_ts"),
        (ForgottenRoom.user_id.is_not(None)).label("has_forgotten"),
        ForgottenRoom.forgotten_ts,
        Account.deactivated_ts,
    )
    .outerjoin(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .outerjoin(
        ForgottenRoom,
        (ForgottenRoom.user_id == StateInterval.state_key)
        & (ForgottenRoom.room_id == bindparam("room_id")),
    )
    .outerjoin(Account, Account.user_id == StateInterval.state_key)
    .where(
        StateInterval.room_number == bindparam("room"),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.is_not(None),
        StateInterval.state_key.endswith(bindparam("domain")),
    )
)


class Abandoned(NamedTuple):
    """A room that nobody of this server is in."""

    room_id: str
    left_ts: int
    """When the last user left (ms)."""
    forgotten_ts: int | None
    """When the last user has forgotten it (ms); None if somebody has not."""


def find(db: Database) -> list[Abandoned]:
    """Return all rooms that users of this server were in, and are not any more."""
    with db.read() as tx:
        inhabited = {row.room_number for row in tx.sql.execute_long(_INHABITED, {})}
        rooms = [row for row in tx.sql.execute(_ROOMS) if row.number not in inhabited]
    found = []
    for row in rooms:
        with db.read() as tx:
            room = _look_at(tx, row.number, row.room_id)
        if room is not None:
            found.append(room)
        event_loop.pause()
    return found


def sweep(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Delete the rooms for which the settings say so; return their number.

    It can be interrupted at any moment, and repeated. `step` is called after each room.
    """
    policy = db.server.config.retention
    if policy.forgotten_rooms_ms is None and policy.left_rooms_ms is None:
        return 0
    count = 0
    for room in find(db):
        with db.read() as tx:
            is_due = _is_due(tx, room)
        if is_due and _purge(db, room.room_id):
            count += 1
            step()
    return count


def _look_at(tx: Reader, number: int, room_id: str) -> Abandoned | None:
    """Return a room, or None if somebody is in it, may come, or nobody ever was."""
    if joining.is_under_way(tx, room_id) or partial_rooms.is_partial(tx, room_id):
        return None
    asked = {"room": number, "room_id": room_id, "domain": f":{tx.server.name}"}
    members = tx.sql.execute(_MEMBERS, asked).all()
    if not members or any(it.membership in INSIDE for it in members):
        return None
    forgotten: list[int | None] = [
        (it.forgotten_ts or it.left_ts) if it.has_forgotten else it.deactivated_ts for it in members
    ]
    known = [it for it in forgotten if it is not None]
    left_ts = max(it.left_ts for it in members)
    return Abandoned(room_id, left_ts, max(known) if len(known) == len(members) else None)


def _is_due(tx: Reader, room: Abandoned) -> bool:
    policy = tx.server.config.retention
    pairs = (
        (room.forgotten_ts, policy.forgotten_rooms_ms),
        (room.left_ts, policy.left_rooms_ms),
    )
    return any(
        since is not None and kept is not None and since + kept <= tx.now_ms
        for since, kept in pairs
    )


def _purge(db: Database, room_id: str) -> bool:
    try:
        events = purge.purge(db, room_id)
    except MatrixError as error:
        if error.status >= 500:
            raise
        LOG.info("%s is not deleted: %s", room_id, error)  # somebody has joined meanwhile
        return False
    LOG.info("deleted %s with %d events: its users have left it", room_id, events)
    return True
