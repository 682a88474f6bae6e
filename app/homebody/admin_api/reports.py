"""What users have reported: events and other users."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, request

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.administration import report_list
from homebody.core.rooms import reports
from homebody.spec.events import Json

bp = Blueprint("admin_reports", __name__)

MAX_ID: Final = 2**53 - 1


@bp.get("/v1/event_reports")
@authenticated(admins_only=True)
def list_event_reports() -> Json:
    """Return a page of the reports of events, the newest first unless `dir` is f."""
    query = _query()
    with homeserver.database.read() as tx:
        found, total = report_list.of_events(tx, query)
    return {"event_reports": found, "total": total, **_next_token(query, found, total)}


@bp.get("/v1/event_reports/<report_id>")
@authenticated(admins_only=True)
def get_event_report(report_id: str) -> Json:
    """Return a report with the event that it is about."""
    number = _number(report_id)
    with homeserver.database.read() as tx:
        return report_list.of_event(tx, number)


@bp.delete("/v1/event_reports/<report_id>")
@authenticated(admins_only=True)
def delete_event_report(report_id: str) -> Json:
    """Delete a report of an event."""
    number = _number(report_id)
    with homeserver.database.write() as tx:
        report_list.of_event(tx, number)
        reports.remove(tx, requester().user_id, number)
    return {}


@bp.get("/v1/user_reports")
@authenticated(admins_only=True)
def list_user_reports() -> Json:
    """Return a page of the reports of users, the newest first unless `dir` is f."""
    query = _query()
    with homeserver.database.read() as tx:
        found, total = report_list.of_users(tx, query)
    return {"user_reports": found, "total": total, **_next_token(query, found, total)}


@bp.get("/v1/user_reports/<report_id>")
@authenticated(admins_only=True)
def get_user_report(report_id: str) -> Json:
    """Return a report of a user."""
    number = _number(report_id)
    with homeserver.database.read() as tx:
        return report_list.of_user(tx, number)


@bp.delete("/v1/user_reports/<report_id>")
@authenticated(admins_only=True)
def delete_user_report(report_id: str) -> Json:
    """Delete a report of a user."""
    number = _number(report_id)
    with homeserver.database.write() as tx:
        report_list.of_user(tx, number)
        reports.remove(tx, requester().user_id, number)
    return {}


def _query() -> report_list.Query:
    """Return the page and the filters in the query. Raises M_INVALID_PARAM."""
    return report_list.Query(
        start=http.query_integer("from", 0),
        limit=http.query_integer("limit", 100),
        is_backwards=http.query_choice("dir", ("b", "f"), "b") == "b",
        reporter=request.args.get("user_id"),
        room_id=request.args.get("room_id"),
        sender=request.args.get("event_sender_user_id"),
        target=request.args.get("target_user_id"),
    )


def _next_token(query: report_list.Query, found: list[Json], total: int) -> Json:
    """Return the number from which the next page begins, if there is one."""
    return {"next_token": query.start + len(found)} if query.start + query.limit < total else {}


def _number(report_id: str) -> int:
    """Return the id of a report. Raises M_INVALID_PARAM."""
    is_number = report_id.isascii() and report_id.isdecimal() and len(report_id) < 20
    if not is_number or int(report_id) > MAX_ID:
        raise errors.invalid_param("The id of a report must be a positive integer")
    return int(report_id)
