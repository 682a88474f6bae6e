"""The commands `homebody reports …`, `homebody rooms …` and `homebody notice`."""

from __future__ import annotations

import click

from homebody.cli import as_json, format_day, print_list, print_result
from homebody.cli.accounts import find_active_account
from homebody.cli.database import open_database
from homebody.core.rooms import purge, server_notices
from homebody.core.rooms import reports as user_reports
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
        user_reports.remove(tx, report_id)
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
        server_notices.send(tx, user_id, text)
    print_result(f"Sent a notice to {user_id}", {"user_id": user_id}, is_json=is_json)


@click.group()
def rooms() -> None:
    """List rooms, and remove them."""


@rooms.command("list")
@as_json
@click.pass_context
def list_rooms(ctx: click.Context, *, is_json: bool) -> None:
    """Print all rooms, the one with the latest event first."""
    with open_database(ctx) as database, database.read() as tx:
        found = purge.all_rooms(tx)
    print_list(found, _room_line, is_json=is_json)


@rooms.command("purge")
@click.argument("room_id", metavar="ROOM_ID")
@click.option("--force", is_flag=True, help="Also if the room has members: they leave first.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@as_json
@click.pass_context
def purge_room(ctx: click.Context, room_id: str, *, force: bool, yes: bool, is_json: bool) -> None:
    """Remove a room and all its events. Uploaded files are kept.

    After --force, devices that were offline may show the room until they log in again.
    """
    if not yes:
        click.confirm(f"Remove {room_id} forever?", abort=True, err=True)
    with open_database(ctx) as database:
        events = purge.purge(database, room_id, is_forced=force)
    removed = {"room_id": room_id, "events": events}
    print_result(f"Removed {room_id} and its {events} events", removed, is_json=is_json)


def _report_line(report: Json) -> str:
    about = [report[key] for key in ("user_id", "event_id", "room_id") if key in report]
    body = report.get("event", {}).get("content", {}).get("body")
    quoted = "" if body is None else f", who wrote {body!r}"
    who = f"{report['reporter']} about {' '.join(about)}{quoted}"
    return f"{report['id']}  {who}: {report['reason']}"


def _room_line(room: Json) -> str:
    name = room["name"] or room["canonical_alias"] or "(no name)"
    last = "" if room["last_event_ts"] is None else f", last {format_day(room['last_event_ts'])}"
    published = ", published" if room["is_published"] else ""
    members, events = room["joined_members"], room["events"]
    counts = f"{members} member{'s' * (members != 1)}, {events} event{'s' * (events != 1)}"
    return f"{room['room_id']}  {name}  {counts}{last}{published}"
