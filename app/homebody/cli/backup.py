"""The commands `homebody backup` and `homebody restore`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from homebody import cli
from homebody.cli import as_json, print_result
from homebody.cli.database import open_migrated
from homebody.config import settings
from homebody.config.settings import Config
from homebody.core import outbox
from homebody.core.encryption import key_backup, one_time_keys, remote_devices
from homebody.server import backup as backups
from homebody.server import restore as restoring
from homebody.server.backup import Copied
from homebody.server.copies import BackupError, Progress
from homebody.storage import data_folder, fsync, last_backup, migrations
from homebody.storage.database import PLACES

NICENESS: Final = 10
"""So that the server has priority."""

MIN_SKIPPED: Final = 10**12
"""The minimum of skipped numbers, as the clock of a new machine may not be set yet."""
MIN_SKIPPED_POSITIONS: Final = 10**13
SINCE_MS: Final = 1_700_000_000_000
MS_PER_EVENT: Final = 10
"""No server sends more events on average."""

folder = click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))


@click.command()
@folder
@as_json
@click.pass_context
def backup(ctx: click.Context, folder: Path, *, is_json: bool) -> None:
    """Copy database, signing key and media into a folder, also while the server runs.

    Into the folder of an older backup only new media are copied. A backup contains all secrets.
    """
    config = cli.load_config(ctx)
    os.nice(NICENESS)
    with _failures(), _bar("Database") as on_pages, _bar("Media") as on_files:
        copied = backups.make(config, folder, on_pages, on_files)
        last_backup.note(config.data_dir, folder)
    _print_copied(copied, f"Backed up to {folder}", is_json=is_json)


@click.command()
@folder
@click.option(
    "--skip-damaged-media",
    "is_lossy",
    is_flag=True,
    help="Restore although files that users uploaded are missing or damaged.",
)
@as_json
@click.pass_context
def restore(ctx: click.Context, folder: Path, *, is_lossy: bool, is_json: bool) -> None:
    """Fill an empty data folder from a backup.

    The backup is checked first, and a restore that fails changes nothing. The configuration in the
    backup is used, unless there is another one.
    """
    with _failures(), contextlib.ExitStack() as stack:
        stack.enter_context(_locked_backup(folder))
        config = _config_of_restored(ctx, folder)
        if config.data_dir.exists():  # otherwise it is created after the check
            stack.enter_context(_locked(config))
        with _bar("Checking") as on_check:
            plan = restoring.check(config, folder, on_check, is_lossy=is_lossy)
        if not config.data_dir.exists():
            stack.enter_context(_locked(config))
        on_files = stack.enter_context(_bar("Media"))
        on_pages = stack.enter_context(_bar("Database"))
        with restoring.filling(plan, on_pages, on_files) as copied:
            migrations.upgrade(config)
            _skip_numbers(config)
    _print_copied(copied, f"Restored from {folder}", is_json=is_json)


def _config_of_restored(ctx: click.Context, folder: Path) -> Config:
    """Return the settings of the restored server.

    They are those of the backup's configuration if the server will read that file.
    """
    before = cli.load_config(ctx)
    read = ctx.obj or settings.file_in_force(os.environ)
    file = restoring.configuration(before.data_dir, folder)
    if file is None or (read is not None and read != before.data_dir / settings.FILE_NAME):
        return before
    config = settings.load(file, os.environ)
    if config.data_dir != before.data_dir:
        raise BackupError(
            f"The configuration in {folder} is for the data folder {config.data_dir}, not for"
            f" {before.data_dir}: set HOMEBODY_DATA_DIR to the folder to restore"
        )
    return config


@contextmanager
def _locked_backup(folder: Path) -> Iterator[None]:
    """Lock a backup against changes. Raises BackupError while `homebody backup` is writing it."""
    if not folder.is_dir():
        yield
        return
    with fsync.held(folder, is_shared=True) as is_free:
        if not is_free:
            raise BackupError(f"Another process is writing a backup into {folder}")
        yield


@contextmanager
def _locked(config: Config) -> Iterator[None]:
    lock = data_folder.lock_data_dir(config.data_dir)
    try:
        yield
    finally:
        os.close(lock)


def _skip_numbers(config: Config) -> None:
    """Skip numbers that the lost server may have used after the backup.

    Clients send sync tokens from after the backup, and know filters and versions of key backups by
    numbers from the clock; bridges know transactions by number. A one-time key must not be given
    out twice, so all of them are deleted, and clients upload new ones. Changes of the device lists
    of other servers may have come since, so these lists are deleted, and requested again.
    Other servers that were restored from the same backup may have used numbers as well, so as many
    are skipped as the time in ms: no server uses one each millisecond. The clock skips the
    positions of an event for every MS_PER_EVENT: with the time in ms, it would exceed the integers
    of JSON after a few restores.
    """
    with open_migrated(config) as database, database.write() as tx:
        count = max(tx.now_ms, MIN_SKIPPED)
        events = (tx.now_ms - SINCE_MS) // MS_PER_EVENT
        tx.skip_positions(max(events * (PLACES + 1), MIN_SKIPPED_POSITIONS))
        outbox.skip_ids(tx, count)
        one_time_keys.remove_all(tx)
        remote_devices.remove_all(tx)
        key_backup.skip_etags(tx, count)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BackupError as error:
        raise cli.Failure(str(error)) from error


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """Show a progress bar on stderr."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not os.isatty(2)) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show


def _print_copied(copied: Copied, text: str, *, is_json: bool) -> None:
    if copied.lost_files:
        click.echo(
            f"homebody: {copied.lost_files} files that users uploaded are missing or damaged",
            err=True,
        )
    text += f": a database of {copied.database_bytes / 1e6:.1f} MB, {copied.files} files"
    if copied.new_files:
        text += f", {copied.new_files} of them new ({copied.new_bytes / 1e6:.1f} MB)"
    print_result(text, dataclasses.asdict(copied), is_json=is_json)
