"""The command `homebody restore`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from homebody import cli
from homebody.cli import as_json
from homebody.cli.backup import bar, failures, print_copied
from homebody.cli.database import open_migrated
from homebody.config import settings
from homebody.config.settings import Config, ConfigError
from homebody.core import outbox
from homebody.core.accounts import sync_connections
from homebody.core.encryption import key_backup, one_time_keys, remote_devices
from homebody.core.timeline import delayed_events
from homebody.server import restore as restoring
from homebody.server.archive import ELSEWHERE, Source
from homebody.server.backup import Copied
from homebody.server.copies import BackupError
from homebody.server.restore import Plan
from homebody.storage import data_folder, fsync, migrations
from homebody.storage.database import PLACES

MIN_SKIPPED: Final = 10**12
"""The minimum of skipped numbers, as the clock of a new machine may not be set yet."""
MIN_SKIPPED_POSITIONS: Final = 10**13
SINCE_MS: Final = 1_700_000_000_000
MS_PER_EVENT: Final = 10
"""No server sends more events on average."""


@click.command()
@click.argument("backup", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--skip-damaged-media",
    "is_lossy",
    is_flag=True,
    help="Restore although files that users uploaded are missing or damaged.",
)
@as_json
@click.pass_context
def restore(ctx: click.Context, backup: Path, *, is_lossy: bool, is_json: bool) -> None:
    """Fill an empty data folder from a backup: an archive, or a folder.

    The backup is checked first, and a restore that fails changes nothing. The configuration in the
    backup is used, unless there is another one.
    """
    with failures(), contextlib.ExitStack() as stack:
        stack.enter_context(_locked_backup(backup))
        source = restoring.opened(backup)
        config = _config_of_restored(ctx, source)
        if config.data_dir.exists():  # otherwise it is created after the check
            stack.enter_context(_locked(config))
        with bar("Checking") as on_check:
            plan = restoring.check(config, source, on_check, is_lossy=is_lossy)
        if not config.data_dir.exists():
            stack.enter_context(_locked(config))
        copied = fill(plan)
    _print_elsewhere(plan)
    print_copied(copied, f"Restored from {backup}", is_json=is_json)


def fill(plan: Plan) -> Copied:
    """Restore a backup that was checked. Raises BackupError, StartError and OSError."""
    with bar("Media") as on_files, bar("Database") as on_pages:
        with restoring.filling(plan, on_pages, on_files) as copied:
            migrations.upgrade(plan.config, keeps_old=False)
            _skip_numbers(plan.config)
        return copied


def check_configuration(source: Source) -> None:
    """Raise ConfigError if the backup's configuration is not valid in this version."""
    if source.has(settings.FILE_NAME):
        _load(source, {})


def _config_of_restored(ctx: click.Context, source: Source) -> Config:
    """Return the settings of the restored server.

    They are those of the backup's configuration if the server will read that file.
    """
    before = cli.load_config(ctx)
    read = ctx.obj or settings.file_in_force(os.environ)
    file = restoring.configuration(before.data_dir, source)
    if file is None or (read is not None and read != before.data_dir / settings.FILE_NAME):
        return before
    config = _load(source, os.environ)
    if config.data_dir != before.data_dir:
        raise BackupError(
            f"The configuration in {source.path} is for the data folder {config.data_dir}, not for"
            f" {before.data_dir}: set HOMEBODY_DATA_DIR to the folder to restore"
        )
    return config


def _load(source: Source, environ: Mapping[str, str]) -> Config:
    """Load the backup's configuration; its files of secrets are not at their places yet."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / settings.FILE_NAME
        file.write_bytes(source.file(settings.FILE_NAME).read_bytes())
        try:
            return settings.load(file, environ, with_secret_files=False)
        except ConfigError as error:
            message = str(error).replace(str(file), source.place(settings.FILE_NAME))
            raise ConfigError(message) from None


def _print_elsewhere(plan: Plan) -> None:
    """Say which files have to be moved to the places where the settings expect them."""
    for name in plan.others:
        if name.startswith(f"{ELSEWHERE}/"):
            place = f"/{name.removeprefix(f'{ELSEWHERE}/')}"
            restored = plan.config.data_dir / name
            click.echo(f"homebody: {restored} was {place}: move it there", err=True)


@contextmanager
def _locked_backup(folder: Path) -> Iterator[None]:
    """Lock a backup in a folder against changes.

    Raises BackupError while `homebody backup` is writing it.
    """
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
    out twice, so all of them are deleted, and clients upload new ones. Delayed events may have been
    sent, so those that are scheduled are cancelled. Changes of the device lists
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
        delayed_events.cancel_all(tx)
        sync_connections.remove_all(tx)
        remote_devices.remove_all(tx)
        key_backup.skip_etags(tx, count)
