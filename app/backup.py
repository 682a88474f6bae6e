"""A copy of all that a server has, made while it runs; and the way back.

    the backup/
      homebody.db      as it was at one moment, checked
      signing.key      without it the server's name is worth nothing
      homebody.toml    if there is one in the data folder
      media/files/     what users uploaded; a second backup into the same folder takes the new ones

The database comes first and the files after it: a row is written when its file is on the disk, so
every row of the copy has its file. Thumbnails are made again when somebody wants them.

This runs in a process of its own. SQLite copies one snapshot, page by page: writers go on
meanwhile, and what they write waits in the WAL. What is copied goes to the disk in small pieces, as
otherwise the fsync of a COMMIT would wait behind gigabytes of ours.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from app import config as settings
from app import disk, serving
from app.config import Config

DATABASE: Final = "homebody.db"
SIGNING_KEY: Final = "signing.key"
FILES: Final = Path("media") / "files"
PIECE_BYTES: Final = 2**20
_NEW: Final = ".new"

Progress = Callable[[int, int], None]
"""Is told how much is done, and of how much."""


class BackupError(Exception):
    """Why there is no backup, or nothing was restored, as one line."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup or a restored server has."""

    database_bytes: int
    files: int
    new_files: int
    new_bytes: int
    """Of files that were not there yet."""


def make(config: Config, target: Path, on_pages: Progress, on_files: Progress) -> Copied:
    """Copy the server of this configuration into a folder, which may have an older backup.

    Raises BackupError, StartError and OSError; an older backup is then still whole.
    """
    database = serving.database_path(config.database_url)
    if not database.exists() or not database.stat().st_size:
        raise BackupError(f"There is no database {database}")
    if target.resolve() == config.data_dir.resolve():
        raise BackupError(f"{target} is the data folder itself")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    size = _copy_database(database, target / DATABASE, on_pages)
    _copy_small(config.signing_key_path, target / SIGNING_KEY)
    if (file := config.data_dir / settings.FILE_NAME).exists():
        _copy_small(file, target / settings.FILE_NAME)
    return _copy_files(config.data_dir / FILES, target / FILES, size, on_files)


def restore(config: Config, source: Path, on_pages: Progress, on_files: Progress) -> Copied:
    """Fill an empty data folder from a backup. What has to follow is in cli_backup.py.

    Raises BackupError, StartError and OSError.
    """
    database = serving.database_path(config.database_url)
    if not (source / DATABASE).exists():
        raise BackupError(f"There is no backup in {source}: {DATABASE} is missing")
    for path in (database, config.signing_key_path):
        if path.exists():
            raise BackupError(f"{path} is there already: move it away first")
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The database comes last: with it the server is complete
    copied = _copy_files(source / FILES, config.data_dir / FILES, 0, on_files)
    _copy_small(source / SIGNING_KEY, config.signing_key_path)
    kept = config.data_dir / settings.FILE_NAME
    if (source / settings.FILE_NAME).exists() and not kept.exists():
        _copy_small(source / settings.FILE_NAME, kept)
    size = _copy_database(source / DATABASE, database, on_pages)
    return Copied(size, copied.files, copied.new_files, copied.new_bytes)


def _copy_database(source: Path, target: Path, progress: Progress) -> int:
    """Bytes of the copy, which has replaced what was there under its name."""
    fresh = target.with_name(f"{target.name}{_NEW}")
    fresh.unlink(missing_ok=True)
    try:
        with _private(fresh) as file:
            _copy_pages(source, fresh, file, progress)
            os.fsync(file)
        _check(fresh)
        fresh.replace(target)
    except sqlite3.Error as error:
        raise BackupError(f"The database {source} can't be copied: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    disk.sync_folder(target.parent)
    return target.stat().st_size


def _copy_pages(source: Path, fresh: Path, file: IO[bytes], progress: Progress) -> None:
    with (
        contextlib.closing(_open(source)) as old,
        contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as new,
    ):
        new.execute("PRAGMA synchronous = OFF")  # it is brought to the disk here
        (page_bytes,) = old.execute("PRAGMA page_size").fetchone()
        # One snapshot from here on: without this, each write of the server begins the copy anew
        old.execute("BEGIN")
        old.execute("SELECT 1 FROM sqlite_schema").fetchone()

        def note(_status: int, left: int, total: int) -> None:
            os.fsync(file)
            progress(total - left, total)

        old.backup(new, pages=PIECE_BYTES // page_bytes, progress=note)
        old.execute("ROLLBACK")


def _check(path: Path) -> None:
    """Raises sqlite3.DatabaseError for a copy that is no whole database."""
    with contextlib.closing(_open(path)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {verdict}")


def _open(path: Path) -> sqlite3.Connection:
    """A database that has to be there."""
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=30)


def _copy_files(source: Path, target: Path, database_bytes: int, progress: Progress) -> Copied:
    """Copy the media that the target lacks. A file is named by its content, and never changes."""
    found = sorted(path for path in source.glob("*/*") if path.is_file())
    new_files = new_bytes = 0
    for number, path in enumerate(found, start=1):
        copy = target / path.parent.name / path.name
        size = path.stat().st_size
        if not copy.exists() or copy.stat().st_size != size:
            made = disk.make_folders(copy.parent)
            _copy_whole(path, copy)
            for folder in made:
                disk.sync_folder(folder)
            new_files += 1
            new_bytes += size
        progress(number, len(found))
    return Copied(database_bytes, len(found), new_files, new_bytes)


def _copy_small(source: Path, target: Path) -> None:
    try:
        _copy_whole(source, target)
    except FileNotFoundError as error:
        raise BackupError(f"{source} is missing") from error


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that under its name there is all of it or what was there before."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_NEW}")
    try:
        with source.open("rb") as old, _private(fresh) as new:
            while piece := old.read(PIECE_BYTES):
                new.write(piece)
                new.flush()
                os.fsync(new)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    disk.sync_folder(target.parent)


def _private(path: Path) -> IO[bytes]:
    """A new file that only its owner reads."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
