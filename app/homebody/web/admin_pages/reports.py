"""What users have reported, and resolving it."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from homebody import errors
from homebody.context import homeserver
from homebody.core.administration import report_list
from homebody.core.rooms import reports
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.layout import Action
from homebody.web.browser_sessions import signed_in

bp = Blueprint("admin_report_pages", __name__)


@bp.get("/reports")
@signed_in(admins_only=True)
def list_reports() -> Response:
    """Return the page with a part of the reports, the newest first."""
    by = layout.searched() or None
    query = report_list.Query(layout.start_of_part(), layout.PER_PAGE, reporter=by)
    with homeserver.database.read() as tx:
        found, total = report_list.of_all(tx, query)
    done = layout.done({"resolve": RESOLVE})
    return layout.page("reports.html", reports=found, part=layout.part(total), done=done)


@bp.get("/reports/<report_id>")
@signed_in(admins_only=True)
def show_report(report_id: str) -> Response:
    """Return the page of a report, with the event if it is about one."""
    with homeserver.database.read() as tx:
        report = report_list.any_of(tx, _number(report_id))
    is_local = homeserver.server.is_local
    return layout.page("report.html", report=report, is_local=is_local)


@bp.get("/reports/<report_id>/resolve")
@signed_in(admins_only=True)
def ask_about_report(report_id: str) -> Response:
    """Return the page that asks before a report is deleted."""
    with homeserver.database.read() as tx:
        report_list.any_of(tx, _number(report_id))
    return layout.ask(RESOLVE, f"report {report_id}", f"reports/{report_id}")


@bp.post("/reports/<report_id>/resolve")
@signed_in(admins_only=True)
def resolve_report(report_id: str) -> Response:
    """Delete a report."""
    return layout.perform(RESOLVE, "reports", report_id)


def _resolve(report_id: str) -> None:
    with homeserver.database.write() as tx:
        reports.remove(tx, layout.actor(), _number(report_id))


def _number(report_id: str) -> int:
    """Return the id of a report. Raises M_NOT_FOUND."""
    if not (report_id.isascii() and report_id.isdecimal() and len(report_id) < 16):
        raise errors.not_found("There is no such report")
    return int(report_id)


RESOLVE: Final = Action(
    "Resolve",
    "The report is resolved.",
    "The report is deleted. Its number and that you have resolved it stay in the audit log.",
    _resolve,
)
