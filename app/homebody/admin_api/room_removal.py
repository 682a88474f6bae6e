"""Deleting rooms, and the history of rooms, with the status of either."""

from __future__ import annotations

from typing import Final

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.admin_api.rooms import check_room_id
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core import tasks
from homebody.core.rooms import deletion, history_purge
from homebody.core.rooms.deletion import Deletion
from homebody.core.tasks import Task
from homebody.spec.events import Json

bp = Blueprint("admin_room_removal", __name__)

LOCK: Final = "deletion of a room"


class DeleteRoom(msgspec.Struct):
    """The body of a request to delete a room."""

    block: bool = False
    purge: bool = True
    force_purge: bool = False
    new_room_user_id: str | None = None
    room_name: str | None = None
    message: str | None = None


class PurgeHistory(msgspec.Struct):
    """The body of a request to purge a room's history."""

    delete_local_events: bool = False
    purge_up_to_event_id: str | None = None
    purge_up_to_ts: http.Integer | None = None


@bp.delete("/v1/rooms/<room_id>")
@bp.post("/v1/rooms/<room_id>/delete")
@authenticated(admins_only=True)
def delete_room_and_wait(room_id: str) -> Json:
    """Delete a room, and return when it is done."""
    wanted = _wanted(room_id)
    with homeserver.locks.own(LOCK, room_id):
        with homeserver.database.write() as tx:
            deletion.accept(tx, wanted)
        return deletion.delete(homeserver.database, wanted)


@bp.delete("/v2/rooms/<room_id>")
@authenticated(admins_only=True)
def delete_room(room_id: str) -> Json:
    """Order that a room is deleted."""
    wanted = _wanted(room_id)
    with homeserver.database.write() as tx:
        return {"delete_id": deletion.order(tx, wanted)}


@bp.get("/v2/rooms/delete_status/<delete_id>")
@authenticated(admins_only=True)
def get_delete_status(delete_id: str) -> Json:
    """Return how far the deletion of a room has got."""
    with homeserver.database.read() as tx:
        return _delete_status(tasks.find(tx, delete_id, deletion.ACTION))


@bp.get("/v2/rooms/<room_id>/delete_status")
@authenticated(admins_only=True)
def get_delete_statuses(room_id: str) -> Json:
    """Return how far the deletions of this room of the last days have got."""
    check_room_id(room_id)
    with homeserver.database.read() as tx:
        found = tasks.select_tasks(tx, actions=[deletion.ACTION], resource_id=room_id)
    if not found:
        raise errors.not_found("No deletion of this room has been ordered in the last week")
    return {"results": [_delete_status(task) for task in found]}


@bp.post("/v1/purge_history/<room_id>")
@bp.post("/v1/purge_history/<room_id>/<event_id>")
@authenticated(admins_only=True)
def purge_history(room_id: str, event_id: str | None = None) -> Json:
    """Order that a room's history is deleted up to an event or a time."""
    body = http.body_as(PurgeHistory, may_be_empty=True)
    event_id = event_id or body.purge_up_to_event_id
    with homeserver.database.read() as tx:
        if event_id is not None:
            before = history_purge.bound_at_event(tx, room_id, event_id)
        elif body.purge_up_to_ts is not None:
            before = history_purge.bound_at_time(tx, room_id, body.purge_up_to_ts)
        else:
            raise errors.missing_param("purge_up_to_event_id or purge_up_to_ts is needed")
    with homeserver.database.write() as tx:
        purge_id = history_purge.order(
            tx, requester().user_id, room_id, before, delete_local_events=body.delete_local_events
        )
    return {"purge_id": purge_id}


@bp.get("/v1/purge_history_status/<purge_id>")
@authenticated(admins_only=True)
def get_purge_history_status(purge_id: str) -> Json:
    """Return how far the purge of a room's history has got."""
    with homeserver.database.read() as tx:
        task = tasks.find(tx, purge_id, history_purge.ACTION)
    is_waiting = task.status == tasks.SCHEDULED  # a word that this endpoint does not have
    status: Json = {"status": tasks.ACTIVE if is_waiting else task.status}
    return status | ({} if task.error is None else {"error": task.error})


def _wanted(room_id: str) -> Deletion:
    body = http.body_as(DeleteRoom)
    return Deletion(
        actor=requester().user_id,
        room_id=room_id,
        is_blocking=body.block,
        is_purging=body.purge,
        is_forced=body.force_purge,
        new_room_user_id=body.new_room_user_id,
        new_room_name=body.room_name,
        message=body.message,
    )


def _delete_status(task: Task) -> Json:
    status = {
        "delete_id": task.id,
        "room_id": task.resource_id,
        "status": task.status,
        "shutdown_room": {**deletion.NOTHING_DONE, **(task.result or {})},
    }
    return status | ({} if task.error is None else {"error": task.error})
