"""The commands `homebody rooms …`."""

from __future__ import annotations

from typing import Final

import click

from homebody import errors
from homebody.cli import (
    DURATION,
    as_json,
    fields_of,
    format_day,
    print_lines,
    print_list,
    print_result,
    progress,
)
from homebody.cli.accounts import find_active_account
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.events import state
from homebody.core.rooms import (
    aliases,
    blocked,
    deletion,
    extremities,
    history_purge,
    listing,
    ordered_joins,
    purge,
    room_admins,
)
from homebody.core.rooms.deletion import Deletion
from homebody.spec.events import Json
from homebody.storage.database import Reader

room_argument = click.argument("room", metavar="ROOM")
yes_option = click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
_BY: Final = audit.COMMAND_LINE


@click.group()
def rooms() -> None:
    """Manage rooms, given by ID or by alias."""


@rooms.command("list")
@as_json
@click.pass_context
def list_rooms(ctx: click.Context, *, is_json: bool) -> None:
    """Print all rooms, the one with the latest event first."""
    with open_database(ctx) as database, database.read() as tx:
        found = purge.all_rooms(tx)
    print_list(found, _room_line, is_json=is_json)


@rooms.command("show")
@room_argument
@as_json
@click.pass_context
def show_room(ctx: click.Context, room: str, *, is_json: bool) -> None:
    """Print all about a room, with its members and whether it is blocked."""
    with open_database(ctx) as database, database.read() as tx:
        room_id = aliases.resolve(tx, room)
        found = {
            **listing.details(tx, room_id),
            "members": sorted(state.joined_users(tx, room_id)),
            "blocked_by": blocked.blocked_by(tx, room_id),
            "forward_extremities": extremities.describe(tx, room_id),
        }
    shown = {**found, "members": " ".join(found["members"])}
    shown["forward_extremities"] = len(found["forward_extremities"])
    print_lines(fields_of(shown), found, is_json=is_json)


@rooms.command("purge")
@click.argument("room_id", metavar="ROOM_ID")
@click.option("--force", is_flag=True, help="Also if the room has members: they leave first.")
@yes_option
@as_json
@click.pass_context
def purge_room(ctx: click.Context, room_id: str, *, force: bool, yes: bool, is_json: bool) -> None:
    """Remove a room and all its events. Uploaded files are kept.

    After --force, devices that were offline may show the room until they log in again.
    """
    if not yes:
        click.confirm(f"Remove {room_id} forever?", abort=True, err=True)
    with open_database(ctx) as database:
        with database.read() as tx:
            count = purge.count_events(tx, room_id)
        with progress("Deleting events", count) as show:
            events = purge.purge(
                database,
                room_id,
                is_forced=force,
                report=show,
                seal=lambda tx: audit.note(tx, _BY, "room.purge", room_id, events=count),
            )
    removed = {"room_id": room_id, "events": events}
    print_result(f"Removed {room_id} and its {events} events", removed, is_json=is_json)


@rooms.command("delete")
@room_argument
@click.option("--block", is_flag=True, help="Let nobody of this server come back.")
@click.option("--keep-events", is_flag=True, help="Make the users leave, but purge nothing.")
@click.option("--force", is_flag=True, help="Purge also if some users could not leave.")
@click.option("--new-room-by", "creator", metavar="USER", help="Move the users to a new room.")
@click.option("--new-room-name", metavar="NAME", help="The name of the new room.")
@click.option("--message", metavar="TEXT", help="What the users read there.")
@yes_option
@as_json
@click.pass_context
def delete_room(
    ctx: click.Context,
    room: str,
    *,
    block: bool,
    keep_events: bool,
    force: bool,
    creator: str | None,
    new_room_name: str | None,
    message: str | None,
    yes: bool,
    is_json: bool,
) -> None:
    """Make all users of this server leave a room, and purge it.

    Aliases of the room point to the new room, if there is one.
    """
    with open_database(ctx) as database:
        with database.read() as tx:
            room_id = aliases.resolve(tx, room)
            if not block and not deletion.is_known(tx, room_id):
                raise errors.not_found(f"There is no room {room_id}")
            by = None if creator is None else find_active_account(tx, creator).user_id
            count = purge.count_events(tx, room_id)
        if not yes:
            click.confirm(f"Delete {room_id} with {count} events?", abort=True, err=True)
        wanted = Deletion(_BY, room_id, block, not keep_events, force, by, new_room_name, message)
        with database.write() as tx:
            deletion.accept(tx, wanted)
        with progress("Deleting events", count) as show:
            done = deletion.delete(database, wanted, report=show)
    text = f"Deleted {room_id}: {len(done['kicked_users'])} users have left"
    if done["new_room_id"] is not None:
        text += f", and are in {done['new_room_id']}"
    print_result(text, {"room_id": room_id, **done}, is_json=is_json)


@rooms.command("block")
@room_argument
@as_json
@click.pass_context
def block_room(ctx: click.Context, room: str, *, is_json: bool) -> None:
    """Let no user of this server join a room. Those who are in it stay."""
    with open_database(ctx) as database, database.write() as tx:
        room_id = aliases.resolve(tx, room)
        blocked.block(tx, _BY, room_id)
    print_result(f"Blocked {room_id}", {"room_id": room_id, "block": True}, is_json=is_json)


@rooms.command("unblock")
@room_argument
@as_json
@click.pass_context
def unblock_room(ctx: click.Context, room: str, *, is_json: bool) -> None:
    """Let users join a room again."""
    with open_database(ctx) as database, database.write() as tx:
        room_id = aliases.resolve(tx, room)
        blocked.unblock(tx, _BY, room_id)
    print_result(f"Unblocked {room_id}", {"room_id": room_id, "block": False}, is_json=is_json)


@rooms.command("blocked")
@as_json
@click.pass_context
def list_blocked(ctx: click.Context, *, is_json: bool) -> None:
    """Print the blocked rooms."""
    with open_database(ctx) as database, database.read() as tx:
        found = blocked.all_blocked(tx)
    print_list(
        found,
        lambda it: f"{it['room_id']}  by {it['user_id']}, {format_day(it['blocked_ts'])}",
        is_json=is_json,
    )


@rooms.command("make-admin")
@room_argument
@click.argument("name", metavar="USER")
@as_json
@click.pass_context
def make_admin(ctx: click.Context, room: str, name: str, *, is_json: bool) -> None:
    """Give a user the power of the strongest local user of a room, and invite them if needed."""
    with open_database(ctx) as database, database.write() as tx:
        room_id = aliases.resolve(tx, room)
        user_id = find_active_account(tx, name).user_id
        room_admins.make_admin(tx, _BY, room_id, user_id)
    done = {"room_id": room_id, "user_id": user_id}
    print_result(f"{user_id} is an administrator of {room_id}", done, is_json=is_json)


@rooms.command("join")
@room_argument
@click.argument("name", metavar="USER")
@as_json
@click.pass_context
def join_room(ctx: click.Context, room: str, name: str, *, is_json: bool) -> None:
    """Join a user to a room that this server is in."""
    with open_database(ctx) as database, database.write() as tx:
        room_id = aliases.resolve(tx, room)
        user_id = find_active_account(tx, name).user_id
        ordered_joins.join(tx, _BY, room_id, user_id)
    done = {"room_id": room_id, "user_id": user_id}
    print_result(f"{user_id} has joined {room_id}", done, is_json=is_json)


@rooms.command("trim-extremities")
@room_argument
@as_json
@click.pass_context
def trim_extremities(ctx: click.Context, room: str, *, is_json: bool) -> None:
    """Remove all forward extremities of a room but the newest.

    Where servers were apart for long, a room may have many, which makes each event expensive.
    """
    with open_database(ctx) as database, database.write() as tx:
        room_id = aliases.resolve(tx, room)
        count = extremities.remove_all_but_one(tx, _BY, room_id)
    done = {"room_id": room_id, "deleted": count}
    print_result(f"Removed {count} extremities of {room_id}", done, is_json=is_json)


@rooms.command("purge-history")
@room_argument
@click.option("--before-event", metavar="EVENT_ID", help="Delete what is older than this event.")
@click.option("--older-than", type=DURATION, help='Such as "90 d": delete what is older.')
@click.option(
    "--delete-local-events",
    is_flag=True,
    help="Also what users of this server have sent. It is only hidden otherwise.",
)
@yes_option
@as_json
@click.pass_context
def purge_room_history(
    ctx: click.Context,
    room: str,
    *,
    before_event: str | None,
    older_than: int | None,
    delete_local_events: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Delete the old messages of a room. Its state stays, and so do its newest messages."""
    if (before_event is None) == (older_than is None):
        raise click.UsageError("Either --before-event or --older-than is needed")
    with open_database(ctx) as database:
        with database.read() as tx:
            room_id = aliases.resolve(tx, room)
            before = _bound(tx, room_id, before_event, older_than)
            count = history_purge.count_before(tx, room_id, before)
        if not yes:
            click.confirm(f"Purge {count} events of {room_id}?", abort=True, err=True)
        with database.write() as tx:
            history_purge.note(tx, _BY, room_id, before, delete_local_events=delete_local_events)
        with progress("Purging", count) as show:
            events = history_purge.purge_history(
                database,
                room_id,
                before,
                delete_local_events=delete_local_events,
                report=lambda so_far: show(so_far["events"]),
            )
    done = {"room_id": room_id, "events": events}
    text = f"Deleted {events} of {count} old events of {room_id}"
    if events < count:
        text += ": what stays is hidden; it is state"
        if not delete_local_events:
            text += ", or was sent by users of this server (see --delete-local-events)"
    print_result(text, done, is_json=is_json)


def _bound(tx: Reader, room_id: str, event_id: str | None, older_than: int | None) -> int:
    if event_id is not None:
        return history_purge.bound_at_event(tx, room_id, event_id)
    return history_purge.bound_at_time(tx, room_id, tx.now_ms - (older_than or 0))


def _room_line(room: Json) -> str:
    name = room["name"] or room["canonical_alias"] or "(no name)"
    last = "" if room["last_event_ts"] is None else f", last {format_day(room['last_event_ts'])}"
    published = ", published" if room["is_published"] else ""
    members, events = room["joined_members"], room["events"]
    counts = f"{members} member{'s' * (members != 1)}, {events} event{'s' * (events != 1)}"
    return f"{room['room_id']}  {name}  {counts}{last}{published}"
