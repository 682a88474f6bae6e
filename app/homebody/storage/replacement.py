"""Migrating a copy of the database, so that a failure leaves the old one in place.

    homebody.db                  the database
    homebody.db.migrating-1f2e   the copy, while migrations run on it
    homebody.db.before-0024      the old one, as of migration 0024, kept for KEPT_DAYS

The copy becomes `homebody.db` by one rename, so there is a whole database of that name at any
moment. No other process may use it meanwhile: the caller holds the lock of the data folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from homebody.storage import fsync
from homebody.storage.data_folder import StartError

KEPT_DAYS: Final = 7
ROOM_FACTOR: Final = 2.2
"""How much space the copy and its write-ahead log take, in sizes of the database."""
_SIDE_FILES: Final = ("", "-wal", "-shm", "-journal")
_CLONE: Final = 0x40049409
"""FICLONE of Linux: on btrfs and XFS, a copy that shares its blocks takes no time."""
_PIECE_BYTES: Final = 2**22


def needed_bytes(path: Path) -> int:
    """Return how much free space a migration takes."""
    return int(path.stat().st_size * ROOM_FACTOR)


def kept(path: Path) -> list[Path]:
    """Return the databases from before migrations that are still there."""
    path = path.resolve()
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.before-{'[0-9]' * 4}"))


def delete_old(path: Path) -> list[Path]:
    """Delete those that are older than KEPT_DAYS, and return them."""
    limit = time.time() - KEPT_DAYS * 86_400
    deleted = [it for it in kept(path) if it.stat().st_ctime < limit]
    for old in deleted:
        old.unlink()
    return deleted


@contextlib.contextmanager
def migrated(path: Path, revision: str, *, keeps_old: bool) -> Iterator[Path]:
    """Copy a database of this revision; put the copy in its place when the with block ends.

    An exception leaves the database as it was. Raises StartError.
    """
    path = path.resolve()  # a link stays a link
    # Not the name of an interrupted migration, which might still be running
    copy = path.with_name(f"{path.name}.migrating-{secrets.token_hex(4)}")
    try:
        try:
            _sweep(path)
            _check_room(path)
            _close(path)
            _copy(path, copy)
        except (OSError, sqlite3.Error) as error:
            raise _failure(path, "copied", error) from error
        yield copy
        try:
            _close(copy)
            _put_in_place(copy, path, f"{path.name}.before-{revision}" if keeps_old else None)
        except (OSError, sqlite3.Error) as error:
            raise _failure(path, "replaced", error) from error
    finally:
        with contextlib.suppress(OSError):
            _remove(copy)


def _check_room(path: Path) -> None:
    needed, free = needed_bytes(path), shutil.disk_usage(path.parent).free
    if free < needed:
        raise StartError(
            f"The database {path} has to be brought up to date, which takes up to"
            f" {needed // 10**6} MB, and {free // 10**6} MB are free. Nothing was changed: make"
            " room and start again"
        )


def _failure(path: Path, what: str, error: Exception) -> StartError:
    return StartError(
        f"The database {path} can't be {what} to bring it up to date, and is as it was: {error}"
    )


def _close(path: Path) -> None:
    """Move everything into the file itself: a write-ahead log belongs to the file beside it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    if busy or mode != "delete":
        raise sqlite3.OperationalError("another process uses it")


def _copy(path: Path, copy: Path) -> None:
    with path.open("rb") as old, copy.open("xb") as new:
        os.fchmod(new.fileno(), path.stat().st_mode & 0o777)
        _set_owner(path, new.fileno())
        try:
            fcntl.ioctl(new, _CLONE, old.fileno())
        except OSError:
            while piece := old.read(_PIECE_BYTES):
                new.write(piece)
            new.flush()
        os.fsync(new)


def _set_owner(path: Path, descriptor: int) -> None:
    """Let the copy belong to the user of the database, also if root runs this."""
    status = path.stat()
    if status.st_uid != os.geteuid():
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _put_in_place(copy: Path, path: Path, old_name: str | None) -> None:
    with copy.open("rb") as file:
        os.fsync(file)
    if old_name is not None:
        old, fresh = path.with_name(old_name), path.with_name(f"{old_name}.new")
        old.unlink(missing_ok=True)
        try:
            old.hardlink_to(path)
        except OSError:  # a file system without hard links
            _copy(path, fresh)
            fresh.replace(old)
    copy.replace(path)
    fsync.sync_folder(path.parent)


def _sweep(path: Path) -> None:
    """Remove what interrupted migrations have left."""
    for pattern in ("migrating-*", "before-*.new"):
        for left in path.parent.glob(f"{glob.escape(path.name)}.{pattern}"):
            left.unlink(missing_ok=True)


def _remove(copy: Path) -> None:
    for suffix in _SIDE_FILES:
        copy.with_name(f"{copy.name}{suffix}").unlink(missing_ok=True)
