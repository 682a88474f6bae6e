"""The command `homebody rooms …`."""

from __future__ import annotations

import click

from homebody import cli
from homebody.cli import as_json, print_json
from homebody.cli.accounts import day, open_database, print_list
from homebody.core.rooms import purge
from homebody.spec.events import Json


@click.group()
def rooms() -> None:
    """See which rooms there are, and remove one for good."""


@rooms.command("list")
@as_json
@click.pass_context
def list_rooms(ctx: click.Context, *, is_json: bool) -> None:
    """Print all rooms, the one in which something happened last first."""
    with open_database(cli.load_config(ctx)) as database, database.read() as tx:
        found = purge.all_rooms(tx)
    print_list(found, _line, is_json=is_json)


@rooms.command("purge")
@click.argument("room_id", metavar="ROOM_ID")
@click.option("--force", is_flag=True, help="Also while people are in it: they leave first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def purge_room(ctx: click.Context, room_id: str, *, force: bool, yes: bool, is_json: bool) -> None:
    """Remove a room with all that was said in it. Files stay with who uploaded them.

    After --force, devices that were off may go on showing the room until they log in anew.
    """
    if not yes:
        click.confirm(f"Remove {room_id} for ever?", abort=True, err=True)
    with open_database(cli.load_config(ctx)) as database:
        events = purge.purge(database, room_id, is_forced=force)
    if is_json:
        print_json({"room_id": room_id, "events": events})
    else:
        click.echo(f"{room_id} is gone, with {events} events")


def _line(room: Json) -> str:
    name = room["name"] or room["canonical_alias"] or "(no name)"
    last = "" if room["last_event_ts"] is None else f", last {day(room['last_event_ts'])}"
    published = ", published" if room["is_published"] else ""
    counted = f"{room['joined_members']} people, {room['events']} events"
    return f"{room['room_id']}  {name}  {counted}{last}{published}"
