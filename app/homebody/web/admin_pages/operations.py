"""Other servers, tasks that run in the background, and the audit log."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from homebody.background import upkeep
from homebody.client_server import http
from homebody.context import homeserver
from homebody.core import audit, outgoing, tasks
from homebody.core.administration import destinations
from homebody.web.admin_pages import PREFIX, layout
from homebody.web.admin_pages.layout import Action
from homebody.web.browser_sessions import signed_in

bp = Blueprint("admin_operation_pages", __name__)


@bp.get("/federation")
@signed_in(admins_only=True)
def list_destinations() -> Response:
    """Return the page with a part of the servers that something was sent to, failing ones first."""
    query = destinations.Query(
        layout.start_of_part(), layout.PER_PAGE, layout.searched(), "failure_ts", is_descending=True
    )
    with homeserver.database.read() as tx:
        found, total = destinations.page(tx, query)
        progress = {it.server: it for it in outgoing.all_progress(tx)}
    return layout.page(
        "destinations.html",
        destinations=found,
        progress=progress,
        part=layout.part(total),
        is_federating=homeserver.server.config.federation,
        done=layout.done({"retry": _RETRY}),
    )


@bp.get("/federation/<server>")
@signed_in(admins_only=True)
def show_destination(server: str) -> Response:
    """Return the page of a server that something was sent to."""
    with homeserver.database.read() as tx:
        rooms = destinations.shared_rooms(tx, server)
        part = layout.part(len(rooms))
        rooms = rooms[::-1][part.start : part.start + layout.PER_PAGE]
        names = layout.names_of(tx, [it["room_id"] for it in rooms])
        entries = audit.latest(tx, 10, subject=server)
    (waiting,) = destinations.waiting(homeserver.database, server)
    return layout.page(
        "destination.html",
        it=waiting,
        rooms=rooms,
        names=names,
        part=part,
        entries=entries,
        done=layout.done({"retry": _RETRY}),
    )


@bp.post("/federation/<server>/retry")
@signed_in(admins_only=True)
def retry_destination(server: str) -> Response:
    """Have a server that failed tried again at once."""
    return layout.perform(_RETRY, f"federation/{layout.segment(server)}", server)


@bp.get("/tasks")
@signed_in(admins_only=True)
def list_tasks() -> Response:
    """Return the page with a part of the tasks of the last week, the newest first."""
    with homeserver.database.read() as tx:
        found = tasks.select_tasks(tx)[::-1]
    part = layout.part(len(found))
    shown = found[part.start : part.start + layout.PER_PAGE]
    return layout.page(
        "tasks.html",
        tasks=shown,
        part=part,
        is_paused=homeserver.upkeep.is_paused,
        actions=[(name, UPKEEP[name]) for name in _offered()],
        done=layout.done({**UPKEEP, "cancel": _CANCEL}),
    )


@bp.get("/tasks/<task_id>/cancel")
@signed_in(admins_only=True)
def ask_about_task(task_id: str) -> Response:
    """Return the page that asks before a task is cancelled."""
    with homeserver.database.read() as tx:
        task = tasks.find(tx, task_id)
    subject = f"{task.action.replace('_', ' ')} {task.resource_id or ''}".rstrip()
    return layout.ask(_CANCEL, subject, "tasks")


@bp.post("/tasks/<task_id>/cancel")
@signed_in(admins_only=True)
def cancel_task(task_id: str) -> Response:
    """Cancel a task."""
    return layout.perform(_CANCEL, "tasks", task_id)


@bp.get("/upkeep/<action>")
@signed_in(admins_only=True)
def ask_about_upkeep(action: str) -> Response:
    """Return the page that asks before upkeep is changed."""
    return layout.ask(layout.choose(UPKEEP, action), "upkeep", "tasks")


@bp.post("/upkeep/<action>")
@signed_in(admins_only=True)
def act_on_upkeep(action: str) -> Response:
    """Pause upkeep, have it go on, or order that the database is shortened."""
    return layout.perform(layout.choose(UPKEEP, action), "tasks")


@bp.get("/audit")
@signed_in(admins_only=True)
def list_audit() -> Response:
    """Return the page with a part of the audit log, the newest entries first."""
    before = http.query_integer("before", 0) or None
    subject, by = layout.searched() or None, request.args.get("by", "").strip() or None
    with homeserver.database.read() as tx:
        found = audit.latest(tx, layout.PER_PAGE + 1, before=before, subject=subject, actor=by)
    entries, more = found[: layout.PER_PAGE], len(found) > layout.PER_PAGE
    query = {"before": entries[-1]["id"] if more else None, "q": subject, "by": by}
    query = {name: value for name, value in query.items() if value}
    earlier = f"{PREFIX}/audit?{urlencode(query)}" if more else None
    return layout.page("audit.html", entries=entries, earlier=earlier, by=by or "")


def _retry(server: str) -> None:
    with homeserver.database.write() as tx:
        destinations.retry(tx, layout.actor(), server)
    homeserver.sender.heard_from(server)


def _offered() -> list[str]:
    """Return the actions that make sense now."""
    return ["resume" if homeserver.upkeep.is_paused else "pause", "vacuum"]


def _pause() -> None:
    upkeep.set_paused(homeserver.database, layout.actor(), is_paused=True)


def _resume() -> None:
    upkeep.set_paused(homeserver.database, layout.actor(), is_paused=False)


def _vacuum() -> None:
    upkeep.order_vacuum(homeserver.database, layout.actor())


_RETRY: Final = Action("Try again", "The server is tried again.", "", _retry, is_asking=False)
_CANCEL: Final = Action(
    "Cancel",
    "The task is cancelled.",
    "The task ends within a second. What it has done so far stays done.",
    layout.in_one_write(tasks.cancel),
)
UPKEEP: Final[dict[str, Action]] = {
    "pause": Action(
        "Pause",
        "Upkeep is paused.",
        "The server deletes no old files and messages until you resume upkeep, or until its next"
        " start. The disk may fill up meanwhile.",
        _pause,
    ),
    "resume": Action("Resume", "Upkeep goes on.", "", _resume, is_asking=False),
    "vacuum": Action(
        "Give space back",
        "The task is ordered.",
        "",
        _vacuum,
        is_asking=False,
    ),
}
"""By their names in the path."""
