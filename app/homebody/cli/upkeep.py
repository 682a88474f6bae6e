"""The commands `homebody upkeep …`."""

from __future__ import annotations

import click

from homebody.background import upkeep as jobs
from homebody.cli import as_json, print_result
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.storage import upkeep_pause


@click.group()
def upkeep() -> None:
    """Pause what the server does for itself: deleting old files and messages, giving space back."""


@upkeep.command("status")
@as_json
@click.pass_context
def show_status(ctx: click.Context, *, is_json: bool) -> None:
    """Print whether upkeep is paused."""
    with open_database(ctx) as database:
        is_paused = upkeep_pause.is_there(database.server.config.data_dir)
    _print(is_paused=is_paused, is_json=is_json)


@upkeep.command("pause")
@as_json
@click.pass_context
def pause(ctx: click.Context, *, is_json: bool) -> None:
    """Pause upkeep until `homebody upkeep resume`, or until the server's next start."""
    _set_paused(ctx, is_paused=True, is_json=is_json)


@upkeep.command("resume")
@as_json
@click.pass_context
def resume(ctx: click.Context, *, is_json: bool) -> None:
    """Have upkeep go on."""
    _set_paused(ctx, is_paused=False, is_json=is_json)


def _set_paused(ctx: click.Context, *, is_paused: bool, is_json: bool) -> None:
    with open_database(ctx) as database:
        jobs.set_paused(database, audit.COMMAND_LINE, is_paused=is_paused)
    _print(is_paused=is_paused, is_json=is_json)


def _print(*, is_paused: bool, is_json: bool) -> None:
    text = "Upkeep is paused" if is_paused else "Upkeep runs"
    print_result(text, {"is_paused": is_paused}, is_json=is_json)
