"""What runs in the background: tasks that administrators have ordered, and upkeep."""

from __future__ import annotations

from typing import Final

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.background import upkeep
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core import tasks
from homebody.core.tasks import Task
from homebody.spec.events import Json

bp = Blueprint("admin_tasks", __name__)

JOBS: Final = ("populate_stats_process_rooms", "regenerate_directory")
"""Names of Synapse's jobs. What they compute is always up to date here: there is nothing to do."""


class Enabled(msgspec.Struct):
    """The body of a request that pauses upkeep, or ends that."""

    enabled: bool


class StartJob(msgspec.Struct):
    """The body of a request to start a job."""

    job_name: str


@bp.get("/v1/scheduled_tasks")
@authenticated(admins_only=True)
def list_scheduled_tasks() -> Json:
    """Return the tasks of the last week that match all conditions in the query."""
    statuses = [*request.args.getlist("status"), *request.args.getlist("job_status")]
    for status in statuses:
        if status not in tasks.STATUSES:
            raise errors.invalid_param(f"status must be one of {', '.join(tasks.STATUSES)}")
    before_ts = None
    if "max_timestamp" in request.args:
        before_ts = http.query_integer("max_timestamp", 0, most=http.MAX_INTEGER - 1) + 1
    with homeserver.database.read() as tx:
        found = tasks.select_tasks(
            tx,
            actions=request.args.getlist("action_name"),
            statuses=statuses,
            resource_id=request.args.get("resource_id"),
            created_before_ts=before_ts,
        )
    return {"scheduled_tasks": [_described(it) for it in found]}


@bp.post("/v1/scheduled_tasks/<task_id>/cancel")
@authenticated(admins_only=True)
def cancel_scheduled_task(task_id: str) -> Json:
    """Cancel a task, which ends within a second; what it has done so far stays done."""
    with homeserver.database.write() as tx:
        return _described(tasks.cancel(tx, requester().user_id, task_id))


@bp.get("/v1/background_updates/status")
@authenticated(admins_only=True)
def get_background_updates() -> Json:
    """Return that no updates of the database are running: they are done before the start."""
    return {"enabled": not homeserver.upkeep.is_paused, "current_updates": {}}


@bp.get("/v1/background_updates/enabled")
@authenticated(admins_only=True)
def get_background_updates_enabled() -> Json:
    """Return whether upkeep goes on."""
    return {"enabled": not homeserver.upkeep.is_paused}


@bp.post("/v1/background_updates/enabled")
@authenticated(admins_only=True)
def set_background_updates_enabled() -> Json:
    """Pause upkeep until the next start of the server, or have it go on."""
    body = http.body_as(Enabled)
    upkeep.set_paused(homeserver.database, requester().user_id, is_paused=not body.enabled)
    return {"enabled": body.enabled}


@bp.post("/v1/background_updates/start_job")
@authenticated(admins_only=True)
def start_background_job() -> Json:
    """Accept Synapse's jobs, which are not needed here."""
    name = http.body_as(StartJob).job_name
    if name not in JOBS:
        raise errors.unknown(f"job_name must be one of {', '.join(JOBS)}")
    return {}


def _described(task: Task) -> Json:
    return {
        "id": task.id,
        "action": task.action,
        "status": task.status,
        "timestamp_ms": task.updated_ts,
        "resource_id": task.resource_id,
        "result": task.result,
        "error": task.error,
    }
