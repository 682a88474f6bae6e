"""The commands `homebody reports …` and `homebody notice`."""

from __future__ import annotations

import click

from homebody import cli
from homebody.cli import as_json
from homebody.cli.accounts import find_active_account, open_database, print_list, say
from homebody.core.rooms import reports as reports_of_users
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
    with open_database(cli.load_config(ctx)) as database, database.read() as tx:
        found = reports_of_users.all_reports(tx)
    print_list(found, _line, is_json=is_json)


@reports.command("remove")
@click.argument("report_id", type=click.IntRange(1))
@as_json
@click.pass_context
def remove_report(ctx: click.Context, report_id: int, *, is_json: bool) -> None:
    """Forget a report that was dealt with."""
    with open_database(cli.load_config(ctx)) as database, database.write() as tx:
        reports_of_users.remove(tx, report_id)
    say(f"Report {report_id} is gone", {"id": report_id}, is_json=is_json)


@click.command()
@click.argument("name", metavar="USER")
@click.argument("text")
@as_json
@click.pass_context
def notice(ctx: click.Context, name: str, text: str, *, is_json: bool) -> None:
    """Write to a user in the name of the server (server_notices_user)."""
    with open_database(cli.load_config(ctx)) as database, database.write() as tx:
        user_id = find_active_account(tx, name).user_id
        server_notices.send(tx, user_id, text)
    say(f"{user_id} was told", {"user_id": user_id}, is_json=is_json)


def _line(report: Json) -> str:
    about = [report[key] for key in ("user_id", "event_id", "room_id") if key in report]
    body = report.get("event", {}).get("content", {}).get("body")
    said = "" if body is None else f", who wrote {body!r}"
    return f"{report['id']}  {report['reporter']} about {' '.join(about)}{said}: {report['reason']}"
