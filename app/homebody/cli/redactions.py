"""The command `homebody user redact`."""

from __future__ import annotations

import click

from homebody.cli import as_json, print_result, progress
from homebody.cli.accounts import find_active_account, user, user_id_of
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.rooms import aliases, user_redaction
from homebody.core.rooms.user_redaction import Redaction


@user.command("redact")
@click.argument("name", metavar="USER")
@click.option("--room", "rooms", multiple=True, metavar="ROOM", help="Only in this room.")
@click.option("--reason", help="Why, for the members of the rooms.")
@click.option("--limit", type=click.IntRange(0), default=user_redaction.DEFAULT_LIMIT)
@click.option("--by", metavar="USER", help="The user who redacts, if not the sender.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@as_json
@click.pass_context
def redact_user(
    ctx: click.Context,
    name: str,
    *,
    rooms: tuple[str, ...],
    reason: str | None,
    limit: int,
    by: str | None,
    yes: bool,
    is_json: bool,
) -> None:
    """Redact the newest events of a user, who may be of another server, in all rooms or in some.

    A user who is not in a room any more, or of another server, can't redact there: name another one
    who is, with the power to redact.
    """
    with open_database(ctx) as database:
        with database.read() as tx:
            user_id = user_id_of(tx, name)
            room_ids = [aliases.resolve(tx, it) for it in rooms]
            room_ids = room_ids or user_redaction.rooms_of(tx, user_id)
            by_id = None if by is None else find_active_account(tx, by).user_id
        if not yes:
            question = f"Redact the events of {user_id} in {len(room_ids)} rooms?"
            click.confirm(question, abort=True, err=True)
        wanted = Redaction(audit.COMMAND_LINE, user_id, room_ids, reason, limit, by_id)
        with database.write() as tx:
            user_redaction.note(tx, wanted)
        with progress("Redacting", len(room_ids)) as show:
            done = user_redaction.redact(database, wanted, lambda it: show(it["rooms"]))
    failed = done["failed_redactions"]
    text = f"Redacted {done['redacted']} events of {user_id}"
    if failed:
        text += f"; {len(failed)} could not be redacted: {next(iter(failed.values()))}"
    print_result(text, {"user_id": user_id, **done}, is_json=is_json)
