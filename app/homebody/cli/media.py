"""The commands `homebody media …`."""

from __future__ import annotations

import re
import time
from typing import Final

import click

from homebody import cli, errors
from homebody.cli import (
    as_json,
    fields_of,
    format_day,
    print_lines,
    print_list,
    print_result,
    progress,
)
from homebody.cli.accounts import find_account
from homebody.cli.database import open_database
from homebody.cli.disk import human
from homebody.config import values
from homebody.core import audit
from homebody.core.administration import media_retention
from homebody.core.federation import remote_media
from homebody.core.media import deletion, in_rooms, limits, listing, quarantine, references, store
from homebody.core.media.listing import Page
from homebody.core.media.references import References
from homebody.core.rooms import aliases
from homebody.spec.events import Json
from homebody.storage.database import Database

DAY_MS: Final = 86_400_000
SIZE: Final = values.size(0)
_FILE: Final = re.compile(r"(?:mxc://)?([^/]+)/([0-9A-Za-z_.~-]+)")

file_argument = click.argument("file", metavar="MXC_URI")
yes_option = click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
days_option = click.option(
    "--days", type=click.IntRange(1), required=True, help="Not used for so many days."
)


@click.group()
def media() -> None:
    """List, delete and quarantine files."""


@media.command("list")
@click.argument("name", metavar="USER")
@click.option("--order-by", type=click.Choice(listing.ORDERS), default="created_ts")
@click.option("--limit", type=click.IntRange(1), default=100, help="How many.")
@as_json
@click.pass_context
def list_media(ctx: click.Context, name: str, *, order_by: str, limit: int, is_json: bool) -> None:
    """Print the files that a user has uploaded, the newest or largest first."""
    with open_database(ctx) as database, database.read() as tx:
        user_id = find_account(tx, name).user_id
        found, _ = listing.of_user(tx, user_id, Page(0, limit, order_by))
        for it in found:
            it["uri"] = f"mxc://{database.server.name}/{it['media_id']}"
    print_list(found, _media_line, is_json=is_json)


@media.command("in-room")
@click.argument("room", metavar="ROOM")
@as_json
@click.pass_context
def list_room_media(ctx: click.Context, room: str, *, is_json: bool) -> None:
    """Print the files of a room's unencrypted messages, and of its avatar."""
    with open_database(ctx) as database:
        with database.read() as tx:
            room_id = aliases.resolve(tx, room)
        files = [
            f"mxc://{origin}/{media_id}" for origin, media_id in in_rooms.uris(database, room_id)
        ]
    print_lines(files, {"room_id": room_id, "files": files}, is_json=is_json)


@media.command("show")
@file_argument
@as_json
@click.pass_context
def show_media(ctx: click.Context, file: str, *, is_json: bool) -> None:
    """Print all about a file."""
    with open_database(ctx) as database, database.read() as tx:
        found = listing.described(tx, *_parsed(database, file))
    print_lines(fields_of(found), found, is_json=is_json)


@media.command("delete")
@click.argument("files", metavar="MXC_URI", nargs=-1)
@click.option("--user", "name", metavar="USER", help="All files that this user has uploaded.")
@yes_option
@as_json
@click.pass_context
def delete_media(
    ctx: click.Context, files: tuple[str, ...], *, name: str | None, yes: bool, is_json: bool
) -> None:
    """Delete files of this server, from the disk as well."""
    if not files and name is None:
        raise click.UsageError("Name files, or a user with --user")
    with open_database(ctx) as database:
        chosen = [_own(database, it) for it in files]
        if name is not None:
            with database.read() as tx:
                chosen += listing.ids_of_user(tx, find_account(tx, name).user_id)
        _delete(database, chosen, yes=yes, is_json=is_json)


@media.command("delete-unused")
@days_option
@click.option("--larger-than", metavar="SIZE", default="0", help='Only files such as "10 MiB".')
@click.option("--with-encrypted", is_flag=True, help="Also files that may be encrypted.")
@yes_option
@as_json
@click.pass_context
def delete_unused(
    ctx: click.Context,
    *,
    days: int,
    larger_than: str,
    with_encrypted: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Delete files of this server that nobody has downloaded for long, and that are not in use.

    In use are files in profiles, account data and the state of rooms (avatars, emoji, stickers),
    and in pinned messages. Other messages keep their place, but their file is gone.
    """
    size = _size(larger_than)
    with open_database(ctx) as database:
        before_ts = time.time_ns() // 1_000_000 - days * DAY_MS
        used = references.collect(database)
        found = media_retention.unused_files(
            database, before_ts, used=used, larger_than=size, with_encrypted=with_encrypted
        )
        _delete(database, [it.media_id for it in found], used, yes=yes, is_json=is_json)


@media.command("purge-remote")
@days_option
@as_json
@click.pass_context
def purge_remote(ctx: click.Context, *, days: int, is_json: bool) -> None:
    """Delete files of other servers that nobody has downloaded for long.

    They are fetched again when somebody requests them.
    """
    files = freed = 0
    with open_database(ctx) as database:
        before_ts = time.time_ns() // 1_000_000 - days * DAY_MS
        with progress("Deleting", remote_media.count_unused(database, before_ts)) as show:
            for step in remote_media.purge(database, audit.COMMAND_LINE, before_ts):
                files, freed = files + step.files, freed + step.freed_bytes
                show(files)
    _print_deleted(files, freed, is_json=is_json)


@media.command("quarantine")
@click.argument("files", metavar="MXC_URI", nargs=-1)
@click.option("--user", "name", metavar="USER", help="All files that this user has uploaded.")
@click.option("--room", metavar="ROOM", help="All files of this room's unencrypted messages.")
@as_json
@click.pass_context
def quarantine_media(
    ctx: click.Context,
    files: tuple[str, ...],
    *,
    name: str | None,
    room: str | None,
    is_json: bool,
) -> None:
    """Let nobody download files any more, nor others with the same content.

    Protected files are spared.
    """
    if not files and name is None and room is None:
        raise click.UsageError("Name files, a user with --user or a room with --room")
    with open_database(ctx) as database:
        chosen = [_parsed(database, it) for it in files]
        with database.read() as tx:
            if name is not None:
                ids = listing.ids_of_user(tx, find_account(tx, name).user_id)
                chosen += [(database.server.name, it) for it in ids]
            room_id = None if room is None else aliases.resolve(tx, room)
        if room_id is not None:
            chosen += in_rooms.uris(database, room_id)
        count = quarantine.put_many(database, audit.COMMAND_LINE, chosen)
    text = f"{count} file{'s are' if count != 1 else ' is'} in quarantine"
    print_result(text, {"files": count}, is_json=is_json)


@media.command("quarantine-changes")
@click.option("--since", type=click.IntRange(0), default=0, help="Only after this number.")
@as_json
@click.pass_context
def show_quarantine_changes(ctx: click.Context, since: int, *, is_json: bool) -> None:
    """Print which files were quarantined and released, the oldest change first."""
    with open_database(ctx) as database, database.read() as tx:
        found, next_batch = quarantine.changes(tx, since)
    lines = [
        f"{'quarantined' if it['quarantined'] else 'released'}  mxc://{it['origin']}/{it['media_id']}"
        for it in found
    ]
    if len(found) >= quarantine.CHANGES_AT_ONCE:
        lines.append(f"More: --since {next_batch}")
    result = {"changes": found, "next_batch": next_batch}
    print_lines(lines, result, is_json=is_json)


@media.command("unquarantine")
@file_argument
@as_json
@click.pass_context
def unquarantine_media(ctx: click.Context, file: str, *, is_json: bool) -> None:
    """Let users download a file again, and others with the same content."""
    with open_database(ctx) as database:
        origin, media_id = _parsed(database, file)
        with database.write() as tx:
            quarantine.lift(tx, audit.COMMAND_LINE, origin, media_id)
    uri = f"mxc://{origin}/{media_id}"
    print_result(f"{uri} is not in quarantine", {"uri": uri}, is_json=is_json)


@media.command("protect")
@file_argument
@as_json
@click.pass_context
def protect_media(ctx: click.Context, file: str, *, is_json: bool) -> None:
    """Spare a file of this server from quarantine and from deletion by age."""
    _protect(ctx, file, is_protected=True, is_json=is_json)


@media.command("unprotect")
@file_argument
@as_json
@click.pass_context
def unprotect_media(ctx: click.Context, file: str, *, is_json: bool) -> None:
    """End the protection of a file."""
    _protect(ctx, file, is_protected=False, is_json=is_json)


@media.command("quota")
@click.argument("name", metavar="USER", required=False)
@click.argument("size", metavar="SIZE", required=False)
@as_json
@click.pass_context
def set_quota(ctx: click.Context, name: str | None, size: str | None, *, is_json: bool) -> None:
    """Set how much a user may upload ("5 GiB", or "default" for the setting), or print it.

    Without a user, print all users with a quota of their own.
    """
    with open_database(ctx) as database:
        if name is None:
            with database.read() as tx:
                own = limits.all_own(tx)
            users = [{"user_id": user_id, "max_bytes": it} for user_id, it in own.items()]
            print_list(users, _quota_line, is_json=is_json)
            return
        with database.read() as tx:
            user_id = find_account(tx, name).user_id
        if size is not None:
            max_bytes = None if size == "default" else _size(size)
            with database.write() as tx:
                limits.put(tx, audit.COMMAND_LINE, user_id, max_bytes)
        with database.read() as tx:
            found: Json = {"user_id": user_id, "max_bytes": limits.of(tx, user_id)}
            found |= {"used_bytes": store.used_bytes(tx, user_id)}
    used = human(found["used_bytes"])
    print_result(f"{_quota_line(found)}, and has {used}", found, is_json=is_json)


def _protect(ctx: click.Context, file: str, *, is_protected: bool, is_json: bool) -> None:
    with open_database(ctx) as database:
        media_id = _own(database, file)
        with database.write() as tx:
            store.protect(tx, audit.COMMAND_LINE, media_id, is_protected=is_protected)
        uri = f"mxc://{database.server.name}/{media_id}"
    text = f"{uri} is {'' if is_protected else 'not '}protected"
    print_result(text, {"uri": uri, "is_protected": is_protected}, is_json=is_json)


def _delete(
    database: Database,
    media_ids: list[str],
    spared: References | None = None,
    *,
    yes: bool,
    is_json: bool,
) -> None:
    if media_ids and not yes:
        click.confirm(f"Delete {len(media_ids)} files forever?", abort=True, err=True)
    done = deletion.Deleted()
    with progress("Deleting", len(media_ids)) as show:
        for step in deletion.delete_in_steps(database, media_ids, audit.COMMAND_LINE, spared):
            done.add(step)
            show(len(done.media_ids))
    _print_deleted(len(done.media_ids), done.freed_bytes, is_json=is_json)


def _print_deleted(files: int, freed_bytes: int, *, is_json: bool) -> None:
    text = f"Deleted {files} file{'s' * (files != 1)}: {human(freed_bytes)}"
    print_result(text, {"files": files, "freed_bytes": freed_bytes}, is_json=is_json)


def _parsed(database: Database, file: str) -> tuple[str, str]:
    """Return the parts of an mxc URI, which may also be the ID of a file of this server."""
    if "/" not in file:
        file = f"{database.server.name}/{file}"
    parts = _FILE.fullmatch(file)
    if parts is None:
        raise errors.invalid_param(f"{file} is not an mxc URI")
    return parts[1], parts[2]


def _own(database: Database, file: str) -> str:
    origin, media_id = _parsed(database, file)
    if origin != database.server.name:
        raise errors.invalid_param(f"{file} is a file of another server")
    return media_id


def _size(text: str) -> int:
    try:
        return SIZE.parse(SIZE.from_text(text))
    except ValueError:
        raise cli.Failure(f"{text} is not a size such as 50 MiB") from None


def _media_line(it: Json) -> str:
    name = f"  {it['upload_name']}" if it["upload_name"] else ""
    used = "" if it["last_access_ts"] is None else f", last used {format_day(it['last_access_ts'])}"
    marks = ", in quarantine" if it["quarantined_by"] else ""
    marks += ", protected" if it["safe_from_quarantine"] else ""
    size, day = human(it["media_length"]), format_day(it["created_ts"])
    return f"{it['uri']}  {size}  {it['media_type']}{name}  {day}{used}{marks}"


def _quota_line(it: Json) -> str:
    return f"{it['user_id']} may have {human(it['max_bytes'])}"
