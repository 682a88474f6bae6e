"""The commands `homebody backup` and `homebody restore`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from app import backup as copies
from app import cli, serving
from app.backup import BackupError, Copied, Progress
from app.cli_accounts import as_json, open_database, print_json
from app.config import Config
from app.core import outbox
from app.core.encryption import one_time_keys

SKIPPED: Final = 10**9
"""Numbers that a restored server does not give out: the one that was lost may have."""
POLITE: Final = 10
"""How far others come first at the processor: the server, above all."""

folder = click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))


@click.command()
@folder
@as_json
@click.pass_context
def backup(ctx: click.Context, folder: Path, *, is_json: bool) -> None:
    """Copy database, signing key and media into a folder, also while the server runs.

    Into the folder of an older backup only new media are copied. It holds all secrets.
    """
    config = cli.load_config(ctx)
    os.nice(POLITE)
    with _failures(), _bar("Database") as on_pages, _bar("Media") as on_files:
        copied = copies.make(config, folder, on_pages, on_files)
    _tell(copied, f"Backed up to {folder}", is_json=is_json)


@click.command()
@folder
@as_json
@click.pass_context
def restore(ctx: click.Context, folder: Path, *, is_json: bool) -> None:
    """Fill an empty data folder from a backup."""
    config = cli.load_config(ctx)
    lock = serving.lock_data_dir(config.data_dir)
    try:
        with _failures(), _bar("Media") as on_files, _bar("Database") as on_pages:
            copied = copies.restore(config, folder, on_pages, on_files)
    finally:
        os.close(lock)
    _leave_the_past(config)
    _tell(copied, f"Restored from {folder}", is_json=is_json)


def _leave_the_past(config: Config) -> None:
    """Let nothing that the lost server gave out after the backup be taken for something new.

    Clients show sync tokens of later than the backup; bridges know the numbers of transactions;
    and a one-time key that somebody has got must not be given out again: clients make new ones.
    """
    with open_database(config) as database, database.write() as tx:
        tx.skip_positions(SKIPPED)
        outbox.skip_ids(tx, SKIPPED)
        one_time_keys.forget_all(tx)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BackupError as error:
        raise cli.Failure(str(error)) from error


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """A progress bar on stderr, for people."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not os.isatty(2)) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show


def _tell(copied: Copied, said: str, *, is_json: bool) -> None:
    if is_json:
        print_json(dataclasses.asdict(copied))
        return
    megabytes = copied.database_bytes / 1e6
    click.echo(f"{said}: a database of {megabytes:.1f} MB, {_files(copied)}")


def _files(copied: Copied) -> str:
    if not copied.new_files:
        return f"{copied.files} files"
    return f"{copied.files} files, {copied.new_files} of them new ({copied.new_bytes / 1e6:.1f} MB)"
