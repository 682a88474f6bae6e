"""The command `homebody upgrade`."""

from __future__ import annotations

import dataclasses
import os
from importlib.metadata import version
from typing import Any

import click

from homebody import cli
from homebody.cli import as_json, print_result, progress_bar
from homebody.config import review
from homebody.config.settings import Config
from homebody.server import upgrades
from homebody.server.upgrades import Forecast
from homebody.storage import data_folder, migrations


@click.command()
@click.option("--check", is_flag=True, help="Only say what would happen; the server may run.")
@click.option(
    "--try", "is_tried", is_flag=True, help="With --check: migrate a copy of the database."
)
@as_json
@click.pass_context
def upgrade(ctx: click.Context, *, check: bool, is_tried: bool, is_json: bool) -> None:
    """Bring the database up to date, as the start of this version does.

    With --check, nothing is changed; the exit code is 1 if something is in the way.
    """
    if not check:
        if is_tried:
            raise click.UsageError("--try is for --check")
        _upgrade(cli.load_config(ctx), is_json=is_json)
        return
    problems = review.problems(ctx.obj, os.environ)
    found = Forecast(problems=problems)
    if not problems:
        config = cli.load_config(ctx)
        found = upgrades.forecast(config)
        if is_tried and found.pending and not found.problems:
            with progress_bar("Copying") as progress:
                upgrades.try_out(config, found, progress)
    print_result(_text(found), _described(found), is_json=is_json)
    if found.problems:
        ctx.exit(1)


def _upgrade(config: Config, *, is_json: bool) -> None:
    with data_folder.locked(config):
        data_folder.check_restored(config.data_dir)
        migrations.check_existence(config)
        before = migrations.current(config.database_url)
        migrations.upgrade(config)
    now = migrations.known()[-1]
    text = f"The database is up to date (migration {now})"
    if before != now:
        text = f"Brought the database from migration {before} to {now}"
    print_result(text, {"before": before, "migration": now}, is_json=is_json)


def _described(found: Forecast) -> dict[str, Any]:
    pending = [{"migration": it, "title": migrations.title(it)} for it in found.pending]
    return {"homebody": version("homebody"), **dataclasses.asdict(found), "pending": pending}


def _text(found: Forecast) -> str:
    lines = [f"homebody {version('homebody')}"]
    if not found.migration and not found.problems:
        lines.append("There is no database yet: the first start creates it")
    elif found.migration and not found.pending and not found.problems:
        lines.append(f"The database is up to date (migration {found.migration})")
    if found.pending:
        lines.append(f"The database is of migration {found.migration}; these would run:")
        lines += [f"  {it}  {migrations.title(it)}" for it in found.pending]
        how = "took" if found.was_tried else "takes about"
        sizes = (found.database_bytes, found.needed_bytes, found.free_bytes)
        has, needed, free = (f"{size / 1e6:.1f} MB" for size in sizes)
        lines.append(f"It has {has}; migrating it {how} {found.seconds:.0f} s")
        lines.append(f"It needs up to {needed} of the {free} that are free")
    lines += [f"In the way: {it}" for it in found.problems]
    if not found.problems:
        lines.append("Nothing is in the way")
    return "\n".join(lines)
