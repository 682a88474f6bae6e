"""Other servers, tasks that run in the background, and the audit log."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from homebody.client_server import http
from homebody.context import homeserver
from homebody.core import audit, tasks
from homebody.core.administration import destinations
from homebody.web.admin_pages import layout
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
    return layout.page(
        "destinations.html",
        destinations=found,
        part=layout.part(total),
        is_federating=homeserver.server.config.federation,
        done=layout.done({"retry": _RETRY}),
    )


@bp.post("/federation/<server>/retry")
@signed_in(admins_only=True)
def retry_destination(server: str) -> Response:
    """Have a server that failed tried again at once."""
    return layout.perform(_RETRY, "federation", server)


@bp.get("/tasks")
@signed_in(admins_only=True)
def list_tasks() -> Response:
    """Return the page with a part of the tasks of the last week, the newest first."""
    with homeserver.database.read() as tx:
        found = tasks.select_tasks(tx)[::-1]
    part = layout.part(len(found))
    shown = found[part.start : part.start + layout.PER_PAGE]
    return layout.page("tasks.html", tasks=shown, part=part)


@bp.get("/audit")
@signed_in(admins_only=True)
def list_audit() -> Response:
    """Return the page with a part of the audit log, the newest entries first."""
    before = http.query_integer("before", 0) or None
    subject = request.args.get("q", "").strip() or None
    with homeserver.database.read() as tx:
        found = audit.latest(tx, layout.PER_PAGE + 1, before=before, subject=subject)
    entries, more = found[: layout.PER_PAGE], len(found) > layout.PER_PAGE
    oldest = entries[-1]["id"] if more else None
    return layout.page("audit.html", entries=entries, oldest=oldest, subject=subject or "")


def _retry(server: str) -> None:
    with homeserver.database.write() as tx:
        destinations.retry(tx, layout.actor(), server)
    homeserver.sender.heard_from(server)


_RETRY: Final = Action("Try again", "The server is tried again.", "", _retry, is_asking=False)
