"""The commands `homebody reports …` and `homebody notice`."""

from __future__ import annotations

import secrets

import click

from homebody.cli import as_json, print_list, print_result, progress
from homebody.cli.accounts import find_active_account
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.administration import notices_to_all
from homebody.core.rooms import reports as user_reports
from homebody.core.rooms import server_notices
from homebody.spec.events import Json
from homebody.storage.database import Database


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
@click.argument("words", metavar="[USER] TEXT", nargs=-1, required=True)
@click.option("--all", "to_all", is_flag=True, help="Send it to all users; name none then.")
@as_json
@click.pass_context
def notice(ctx: click.Context, words: tuple[str, ...], *, to_all: bool, is_json: bool) -> None:
    """Send a server notice to a user, or to all (see server_notices_user)."""
    if len(words) != (1 if to_all else 2):
        raise click.UsageError("Either a user and a text are needed, or --all and a text")
    with open_database(ctx) as database:
        if to_all:
            _notice_to_all(database, words[0], is_json=is_json)
            return
        with database.write() as tx:
            user_id = find_active_account(tx, words[0]).user_id
            message = server_notices.text_notice(words[1])
            event_id = server_notices.send(tx, audit.COMMAND_LINE, user_id, message)
    sent = {"user_id": user_id, "event_id": event_id}
    print_result(f"Sent a notice to {user_id}", sent, is_json=is_json)


def _notice_to_all(database: Database, text: str, *, is_json: bool) -> None:
    with database.write() as tx:
        notices_to_all.note(tx, audit.COMMAND_LINE, text)
        count = len(notices_to_all.recipients(tx))
    with progress("Sending", count) as show:
        done = notices_to_all.send(
            *(database, audit.COMMAND_LINE, text, secrets.token_hex(8)),
            report=lambda so_far: show(so_far["users"]),
        )
    print_result(f"Sent a notice to {done['users']} users", done, is_json=is_json)


def _report_line(report: Json) -> str:
    about = [report[key] for key in ("user_id", "event_id", "room_id") if key in report]
    body = report.get("event", {}).get("content", {}).get("body")
    quoted = "" if body is None else f", who wrote {body!r}"
    who = f"{report['reporter']} about {' '.join(about)}{quoted}"
    return f"{report['id']}  {who}: {report['reason']}"
