"""The commands `homebody backup …`."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from homebody import cli
from homebody.cli import as_json, print_list, print_result
from homebody.config.settings import Config
from homebody.config.sources import CONFIG_VARIABLE
from homebody.server import archiving
from homebody.server import backup as backups
from homebody.server.archive import SUFFIX
from homebody.server.backup import Copied
from homebody.server.copies import BackupError, Progress
from homebody.storage import backup_folder, last_backup

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

NICENESS: Final = 10
"""So that the server has priority."""
MAX_REST_S: Final = 0.5
"""On a disk that is this slow, longer rests would only make the backup slower."""
DEFAULT: Final = "create"


class Backup(click.Group):
    """A group whose command DEFAULT needs no name: `homebody backup FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the name of the command where it is missing."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=Backup)
def backup() -> None:
    """Back up the server, check backups and list them.

    `homebody backup FILE.tar` makes a backup; `homebody backup create --help` has the options.
    """


@backup.command(DEFAULT)
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--remote-media", is_flag=True, help="Include files of other servers.")
@click.option("--verify", is_flag=True, help="Check an existing backup: start it, and log in once.")
@as_json
@click.pass_context
def create(
    ctx: click.Context, target: Path, *, remote_media: bool, verify: bool, is_json: bool
) -> None:
    """Copy database, keys, configuration and media into a file, also while the server runs.

    FILE ends with .tar. Otherwise it is a folder, into which later backups copy only new media. A
    backup contains all secrets.
    """
    if verify:
        _verify(target, is_json=is_json)
        return
    config = cli.load_config(ctx)
    if target.is_dir() or target.suffix != SUFFIX:
        if remote_media:
            raise click.UsageError("--remote-media is for a backup into a file, FILE.tar")
        copied = _into_folder(config, target)
    else:
        copied = _into_archive(ctx, config, target, with_remote_media=remote_media)
    print_copied(copied, f"Backed up to {target}", is_json=is_json)


@backup.command("run")
@as_json
@click.pass_context
def run(ctx: click.Context, *, is_json: bool) -> None:
    """Make a backup as the schedule does: in backup.folder, deleting those beyond backup.keep."""
    config = cli.load_config(ctx)
    folder = _folder(config)
    if not folder.is_dir():  # not to be created: its disk may not be mounted
        raise cli.Failure(f"backup.folder: there is no folder {folder}")
    now_ms = time.time_ns() // 1_000_000
    target = folder / backup_folder.name_of(now_ms)
    copied = _into_archive(
        ctx, config, target, with_remote_media=config.backup.remote_media, is_paced=True
    )
    deleted = backup_folder.delete_old(folder, config.backup.keep)
    value = {"file": str(target), **_described(copied), "deleted": [it.name for it in deleted]}
    text = f"Backed up to {target}"
    if deleted:
        text += f", and deleted {', '.join(it.name for it in deleted)}"
    _warn_of_lost(copied)
    print_result(text, value, is_json=is_json)


@backup.command("list")
@as_json
@click.pass_context
def list_backups(ctx: click.Context, *, is_json: bool) -> None:
    """List the backups in backup.folder, the latest first."""
    found = backup_folder.archives(_folder(cli.load_config(ctx)))
    items = [
        {"file": str(it.path), "created_ts": it.created_ts, "size_bytes": it.size_bytes}
        for it in found
    ]
    print_list(items, _line, is_json=is_json)


def _line(item: dict[str, Any]) -> str:
    made = cli.format_minute(item["created_ts"])
    return f"{made}  {item['size_bytes'] / 1e6:10.1f} MB  {item['file']}"


def _folder(config: Config) -> Path:
    if config.backup.folder is None:
        raise cli.Failure("backup.folder is not set, so there are no scheduled backups")
    return config.backup.folder


def paced(progress: Progress) -> Progress:
    """Return a progress that waits after each piece for as long as that has taken.

    A piece is a mebibyte that goes to the disk at once, and a COMMIT of the server waits for the
    one that is under way. A scheduled backup has time, so it leaves the disk to the server
    for half of the time.
    """
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        progress(done, total)
        time.sleep(min(MAX_REST_S, time.monotonic() - last))
        last = time.monotonic()

    return show


def _into_folder(config: Config, target: Path) -> Copied:
    os.nice(NICENESS)
    with failures(), bar("Database") as on_pages, bar("Media") as on_files:
        copied = backups.make(config, target, on_pages, on_files)
    last_backup.note(config.data_dir, target)
    return copied


def _into_archive(
    ctx: click.Context,
    config: Config,
    target: Path,
    *,
    with_remote_media: bool,
    is_paced: bool = False,
) -> Copied:
    os.nice(NICENESS)
    environ = dict(os.environ)
    if ctx.obj is not None:
        environ[CONFIG_VARIABLE] = str(ctx.obj)
    with failures(), _exit_on_sigterm(), byte_bar("Backup") as progress:
        copied = archiving.make(
            config,
            environ,
            target,
            paced(progress) if is_paced else progress,
            with_remote_media=with_remote_media,
        )
    last_backup.note(config.data_dir, target)
    return copied


def _verify(target: Path, *, is_json: bool) -> None:
    """Check all of a backup, restore it to a temporary folder, start it and log in once."""
    from homebody.cli import verification  # noqa: PLC0415 - it imports this module

    began = time.monotonic()
    with failures(), tempfile.TemporaryDirectory(prefix="homebody-verify-") as scratch:
        checked = verification.verify(target, Path(scratch))
    value = {**checked, "seconds": round(time.monotonic() - began, 1)}
    text = (
        f"{target} is complete: {checked['files']} files, a database of"
        f" {checked['database_bytes'] / 1e6:.1f} MB. A server of {checked['server_name']} started"
        " on it, and a login succeeded"
    )
    print_result(text, value, is_json=is_json)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that what is half done is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def failures() -> Iterator[None]:
    """Turn errors of backups into those of commands."""
    try:
        yield
    except BackupError as error:
        raise cli.Failure(str(error)) from error


bar = cli.progress_bar


@contextmanager
def byte_bar(label: str) -> Iterator[Progress]:
    """Show a progress bar with sizes on stderr, if that is a terminal."""
    shown = [0, 0]
    shown_bar: ProgressBar[int] = click.progressbar(
        length=1,
        label=label,
        file=sys.stderr,
        hidden=not os.isatty(2),
        item_show_func=lambda _: f"{shown[0] / 1e6:.1f} of {shown[1] / 1e6:.1f} MB",
    )
    with shown_bar:

        def show(done: int, total: int) -> None:
            shown[:] = done, total
            shown_bar.length = max(total, 1)
            shown_bar.update(done - shown_bar.pos, done)

        yield show


def print_copied(copied: Copied, text: str, *, is_json: bool) -> None:
    """Print what was copied, and warn of media that are lost."""
    _warn_of_lost(copied)
    text += f": a database of {copied.database_bytes / 1e6:.1f} MB"
    text += f", {copied.files} file{'s' * (copied.files != 1)}"
    if copied.new_files < copied.files:  # in a folder, which has had others
        text += f", {copied.new_files} of them new"
    if copied.new_files:
        text += f" ({copied.new_bytes / 1e6:.1f} MB)"
    print_result(text, _described(copied), is_json=is_json)


def _described(copied: Copied) -> dict[str, Any]:
    return dataclasses.asdict(copied)


def _warn_of_lost(copied: Copied) -> None:
    if copied.lost_files:
        click.echo(
            f"homebody: {copied.lost_files} files that users uploaded are missing or damaged",
            err=True,
        )
