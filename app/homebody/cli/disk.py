"""The command `homebody disk`."""

from __future__ import annotations

import sqlite3
import sys
import time
from typing import Final

import click

from homebody import cli
from homebody.background import upkeep
from homebody.cli import as_json, print_lines, print_result
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.administration import (
    abandoned_rooms,
    disk_usage,
    media_retention,
    message_retention,
)
from homebody.spec.events import Json
from homebody.storage import data_folder, rewriting
from homebody.storage.data_folder import StartError

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


@click.command()
@click.option("--vacuum", "is_vacuum", is_flag=True, help="Give empty pages back to the disk.")
@click.option("--clean", is_flag=True, help="Do now what the settings make the server do later.")
@click.option(
    "--top", type=click.IntRange(1), default=disk_usage.TOP, help="How many rooms and users."
)
@click.option("--days", type=click.IntRange(1), help="Count as deletable what is older.")
@as_json
@click.pass_context
def disk(
    ctx: click.Context,
    *,
    is_vacuum: bool,
    clean: bool,
    top: int,
    days: int | None,
    is_json: bool,
) -> None:
    """Print what takes the space on the disk, and how much each way of freeing some would give.

    How much a room takes is an estimate by its number of events.
    """
    if clean and is_vacuum:
        raise click.UsageError("Either --clean or --vacuum can be done at a time")
    if clean:
        _clean(ctx, is_json=is_json)
        return
    if is_vacuum:
        _shorten(ctx, is_json=is_json)
        return
    ages = None if days is None else disk_usage.Ages(days, days, days)
    with open_database(ctx) as database:
        found = disk_usage.measure(database, top=top, ages=ages)
    print_lines(_lines(found), found, is_json=is_json)


def _clean(ctx: click.Context, *, is_json: bool) -> None:
    """Do what the server does from time to time by the settings media_retention and retention."""
    with open_database(ctx) as database:
        with database.write() as tx:
            audit.note(tx, audit.COMMAND_LINE, "server.clean")
        files = media_retention.sweep(database, time.time_ns() // 1_000_000)
        done = {
            "files": files.files,
            "remote_files": files.remote_files,
            "freed_bytes": files.freed_bytes,
            "events": message_retention.sweep(database),
            "rooms": abandoned_rooms.sweep(database),
        }
    text = (
        f"Deleted {done['files']} files and {done['remote_files']} of other servers"
        f" ({human(done['freed_bytes'])}), {done['events']} events and {done['rooms']} rooms"
    )
    print_result(text, done, is_json=is_json)


def _shorten(ctx: click.Context, *, is_json: bool) -> None:
    """Rewrite the database of a stopped server, or let the running one shorten it in steps."""
    config = cli.load_config(ctx)
    path = data_folder.database_path(config.database_url)
    with open_database(ctx):
        before = path.stat().st_size
    try:
        with data_folder.locked(config):
            if not rewriting.has_room(path):
                raise cli.Failure(f"The disk has too little space for a copy of {path}")
            sys.stderr.write("Rewriting the database: the server can't start meanwhile\n")
            try:
                rewriting.rewrite(path)
            except sqlite3.Error as error:  # such as a backup that reads it
                raise cli.Failure(f"{path} was not rewritten: {error}") from error
    except StartError:  # it is in use
        _order(ctx, is_json=is_json)
        return
    with open_database(ctx) as database, database.write() as tx:
        audit.note(tx, audit.COMMAND_LINE, "server.vacuum")
    freed = before - path.stat().st_size
    text = f"Gave {human(max(0, freed))} back to the disk"
    print_result(text, {"freed_bytes": freed, "is_ordered": False}, is_json=is_json)


def _order(ctx: click.Context, *, is_json: bool) -> None:
    with open_database(ctx) as database:
        task_id = upkeep.order_vacuum(database, audit.COMMAND_LINE)
    text = "The server gives the empty pages back to the disk now, some at a time"
    print_result(text, {"task_id": task_id, "is_ordered": True}, is_json=is_json)


def human(size: float) -> str:
    """Return a number of bytes with its unit: "1.5 GiB"."""
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return ""


def _lines(found: Json) -> list[str]:
    database, place = found["database"], found["disk"]
    free, total = human(place["free_bytes"]), human(place["total_bytes"])
    lines = [f"Disk: {free} of {total} free", ""]
    lines.append(f"Database: {human(database['bytes'])}")
    lines += [_line(size, name) for name, size in database["by_purpose"].items()]
    how = (
        "" if database["shrinks_by_itself"] else ", given back only by --vacuum of a stopped server"
    )
    lines += [_line(database["free_bytes"], f"empty pages{how}"), "", "Files:"]
    for kind, it in found["media"].items():
        previews = it.get("preview_bytes")
        more = f", of which {human(previews)} are images of link previews" if previews else ""
        lines.append(_line(it["bytes"], f"{kind} ({it['files']}){more}"))
    lines += ["", "Rooms with the most events:"]
    for it in found["rooms"]:
        lines.append(_line(it["bytes"], f"{it['room_id']} ({it['events']} events)"))
    lines += ["", "Users with the most data:"]
    for it in found["users"]:
        size = it["media_bytes"] + it["account_data_bytes"] + it["key_backup_bytes"]
        lines.append(_line(size, f"{it['user_id']} ({it['files']} files)"))
    lines += ["", "What could be freed:"]
    for it in found["could_free"]:
        lines.append(f"{_line(it['bytes'], it['what'])}: {it['command']}")
    return lines


def _line(size: int, text: str) -> str:
    return f"{human(size):>12}  {text}"
