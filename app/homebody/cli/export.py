"""The command `homebody user export`."""

from __future__ import annotations

from pathlib import Path

import click

from homebody import cli
from homebody.cli import as_json, print_result
from homebody.cli.accounts import find_account, user
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.administration import export


@user.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@as_json
@click.pass_context
def export_user(ctx: click.Context, name: str, file: Path, *, force: bool, is_json: bool) -> None:
    """Write a ZIP archive with the data of a user: what they have sent and uploaded, and settings.

    What others have sent is not in it, and encrypted messages are encrypted.
    """
    if file.exists() and not force:
        raise cli.Failure(f"{file} exists already: --force replaces it")
    with open_database(ctx) as database:
        with database.read() as tx:
            user_id = find_account(tx, name).user_id
        with database.write() as tx:
            audit.note(tx, audit.COMMAND_LINE, "user.export", user_id)
        with cli.progress_bar("Rooms") as progress:
            found = export.write(
                database, user_id, file, lambda it: progress(it["rooms"], max(it["all_rooms"], 1))
            )
    result = {"user_id": user_id, "file": str(file), **found, "bytes": file.stat().st_size}
    text = f"Wrote {found['events']} events and {found['files']} files of {user_id} to {file}"
    print_result(text, result, is_json=is_json)
