"""The commands `homebody reports …` and `homebody notice`."""

from __future__ import annotations

import click

from homebody.cli import as_json, print_list, print_result
from homebody.cli.accounts import find_active_account
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.rooms import reports as user_reports
from homebody.core.rooms import server_notices
from homebody.spec.events import Json


@click.group()
def reports() -> None:
    """Read what users have reported."""


@reports.command("list")
@as_json
@click.pass_context
def list_reports(ctx: click.Context, *, is_json: bool) -> None:
    """Print all reports, the oldest first."""
    with open_database(ctx) as database, database.read() as tx:
        found = user_reports.all_reports(tx)
    print_list(found, _report_line, is_json=is_json)


@reports.command("remove")
@click.argument("report_id", type=click.IntRange(1))
@as_json
@click.pass_context
def remove_report(ctx: click.Context, report_id: int, *, is_json: bool) -> None:
    """Delete a report."""
    with open_database(ctx) as database, database.write() as tx:
        user_reports.remove(tx, audit.COMMAND_LINE, report_id)
    print_result(f"Deleted report {report_id}", {"id": report_id}, is_json=is_json)


@click.command()
@click.argument("name", metavar="USER")
@click.argument("text")
@as_json
@click.pass_context
def notice(ctx: click.Context, name: str, text: str, *, is_json: bool) -> None:
    """Send a server notice to a user (see server_notices_user)."""
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_active_account(tx, name).user_id
        message = server_notices.text_notice(text)
        event_id = server_notices.send(tx, audit.COMMAND_LINE, user_id, message)
    sent = {"user_id": user_id, "event_id": event_id}
    print_result(f"Sent a notice to {user_id}", sent, is_json=is_json)


def _report_line(report: Json) -> str:
    about = [report[key] for key in ("user_id", "event_id", "room_id") if key in report]
    body = report.get("event", {}).get("content", {}).get("body")
    quoted = "" if body is None else f", who wrote {body!r}"
    who = f"{report['reporter']} about {' '.join(about)}{quoted}"
    return f"{report['id']}  {who}: {report['reason']}"
