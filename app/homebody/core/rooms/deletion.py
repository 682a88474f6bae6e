"""Deleting a room on an administrator's order: its local users leave, and it is purged.

If wanted it is blocked, so that nobody of this server comes back, and its users find themselves in
a new room that tells them why, to which the aliases point from then on.

The work takes long, and goes on after a restart: what was done is stored with each step. It can be
cancelled until the purge begins: then those who have left stay out, and all else is as before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core import audit, tasks
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.core.rooms import aliases, blocked, creation, membership, purge
from homebody.core.tasks import Task
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import RemovedRoom, Room
from homebody.models.state import StateInterval
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

ACTION: Final = "shutdown_and_purge_room"
"""The name of the task."""
USERS_AT_ONCE: Final = 20
DEFAULT_NAME: Final = "Content Violation Notification"
DEFAULT_MESSAGE: Final = (
    "The room that you were in has been removed by this server's administrators."
)
NOTHING_DONE: Final[Json] = {
    "kicked_users": [],
    "failed_to_kick_users": [],
    "local_aliases": [],
    "new_room_id": None,
}

_INSIDE = select(StateInterval.state_key).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.to_position == NOW_AND_LATER,
    StateInterval.membership.in_(("join", "invite", "knock")),
    StateInterval.state_key.endswith(bindparam("domain")),
)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is wanted."""

    actor: str
    room_id: str
    is_blocking: bool = False
    is_purging: bool = True
    is_forced: bool = False
    """Purge also if some users could not leave."""
    new_room_user_id: str | None = None
    """The creator of the new room; None: there is to be none."""
    new_room_name: str | None = None
    message: str | None = None


Save = Callable[[Tx, Json], None]
"""Store what was done, in the transaction of a step."""


def not_saved(_tx: Tx, _done: Json) -> None:
    """Store nothing."""


def check(tx: Reader, wanted: Deletion) -> None:
    """Raise M_INVALID_PARAM or M_UNKNOWN (400) for what can't be done, or is under way."""
    if not identifiers.is_room_id(wanted.room_id):
        raise errors.invalid_param(f"{wanted.room_id} is not a room ID")
    creator = wanted.new_room_user_id
    if creator is not None:
        account = accounts.find(tx, creator) if tx.server.is_local(creator) else None
        if account is None or account.deactivated_ts is not None:
            raise errors.unknown(f"{creator} is not a user of this server")
    under_way = tasks.select_tasks(
        tx,
        actions=[ACTION],
        statuses=[tasks.SCHEDULED, tasks.ACTIVE],
        resource_id=wanted.room_id,
    )
    if under_way:
        raise errors.unknown("This room is being deleted already")


def accept(tx: Tx, wanted: Deletion) -> None:
    """Add the audit log's entry of a deletion. Raises as `check` does."""
    check(tx, wanted)
    details = {"block": wanted.is_blocking, "purge": wanted.is_purging}
    audit.note(tx, wanted.actor, "room.delete", wanted.room_id, **details)


def order(tx: Tx, wanted: Deletion) -> str:
    """Order the task that deletes a room, and return its ID. Raises as `check` does."""
    accept(tx, wanted)
    return tasks.add(tx, ACTION, asdict(wanted), wanted.room_id)


def run(db: Database, task: Task, report: Callable[[Json], None]) -> Json:
    """Do what `order` has ordered."""
    saved: Json = {}

    def save(tx: Tx, done: Json) -> None:
        tasks.record(tx, task.id, tasks.ACTIVE, result=done)
        saved.update(done)

    return delete(
        db,
        Deletion(**task.params),
        task.result,
        save,
        lambda _count: report(saved),
        lambda tx: tasks.seal(tx, task.id),
    )


def delete(
    db: Database,
    wanted: Deletion,
    done: Json | None = None,
    save: Save = not_saved,
    report: Callable[[int], None] = purge.not_shown,
    seal: Callable[[Tx], None] = purge.not_sealed,
) -> Json:
    """Delete a room; return kicked_users, failed_to_kick_users, local_aliases and new_room_id.

    `done` is what an interrupted call has saved, `report` is called with the number of deleted
    events, `seal` in the write with which the purge begins. Of an unknown room nothing but a block
    is done.
    Raises M_FORBIDDEN if users could not leave and the purge is not forced.
    """
    result: Json = {**NOTHING_DONE, **(done or {})}
    creator = wanted.new_room_user_id
    with db.write() as tx:
        if wanted.is_blocking:
            blocked.block(tx, wanted.actor, wanted.room_id)
        is_there = is_known(tx, wanted.room_id)
        save(tx, result)
    if not is_there:
        return result
    if creator is not None and result["new_room_id"] is None:
        with db.write() as tx:
            result["new_room_id"] = _create_room(tx, wanted, creator)
            save(tx, result)
    users = _users_in(db, wanted.room_id)
    for some in batches(users, USERS_AT_ONCE):
        with db.write() as tx:
            _move_all(tx, wanted, some, result)
            save(tx, result)
    if creator is not None and not result["local_aliases"]:
        with db.write() as tx:
            result["local_aliases"] = aliases.move(
                tx, wanted.room_id, result["new_room_id"], creator
            )
            save(tx, result)
    if wanted.is_purging:
        _purge(db, wanted, report, seal, has_moved=bool(users))
    return result


def is_known(tx: Reader, room_id: str) -> bool:
    """Return whether there is anything to delete of a room."""
    return any(
        tx.sql.execute(select(table.room_id).where(table.room_id == room_id).limit(1)).first()
        for table in (Room, StoredEvent, RemovedRoom)  # the last: a crash has interrupted the purge
    )


def _users_in(db: Database, room_id: str) -> list[str]:
    """Return the users of this server who have to leave."""
    with db.read() as tx:
        state.find_joined(tx, room_id)  # each user who leaves is taken out of them
        asked = {"room_id": room_id, "domain": f":{tx.server.name}"}
        return sorted(tx.sql.execute(_INSIDE, asked).scalars())


def _create_room(tx: Tx, wanted: Deletion, creator: str) -> str:
    """Create the room to which the users are moved, in which only its creator may write."""
    options = creation.RoomOptions(
        preset="public_chat",
        version=creation.version_named(tx.server.config.default_room_version),
        name=wanted.new_room_name or DEFAULT_NAME,
        power_levels={"users_default": -10},
    )
    room_id, _ = creation.create_room(tx, creator, options)
    content = {"msgtype": "m.text", "body": wanted.message or DEFAULT_MESSAGE}
    sending.send(tx, sending.Draft(room_id, creator, "m.room.message", content))
    return room_id


def _move_all(tx: Tx, wanted: Deletion, user_ids: Collection[str], result: Json) -> None:
    """Move users, and note in the result who has left, and who could not."""
    left, failed = set(result["kicked_users"]), set(result["failed_to_kick_users"])
    for user_id in user_ids:
        has_left = _move(tx, wanted, user_id, result["new_room_id"])
        (left if has_left else failed).add(user_id)
        (failed if has_left else left).discard(user_id)
    result |= {"kicked_users": sorted(left), "failed_to_kick_users": sorted(failed)}


def _move(tx: Tx, wanted: Deletion, user_id: str, new_room_id: str | None) -> bool:
    """Make a user leave, and join the new room; return whether they have left."""
    sending.force_leave(tx, wanted.room_id, user_id)
    if state.membership_of(tx, wanted.room_id, user_id) in {"join", "invite", "knock"}:
        return False
    if new_room_id is not None:
        try:
            membership.join(tx, new_room_id, user_id)
        except MatrixError as refusal:
            LOG.warning("%s can't be moved to %s: %s", user_id, new_room_id, refusal)
    return True


def _purge(
    db: Database,
    wanted: Deletion,
    report: Callable[[int], None],
    seal: Callable[[Tx], None],
    *,
    has_moved: bool,
) -> None:
    if has_moved:
        purge.wait_for_clients()
    try:
        purge.purge(db, wanted.room_id, is_forced=wanted.is_forced, report=report, seal=seal)
    except MatrixError as problem:
        if problem.errcode != "M_NOT_FOUND":  # a call that was interrupted has purged it
            raise
