"""Where a server's data folder and database are, and the locks that keep them for one process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from homebody.config.settings import DATABASE_NAME, Config

LOCK_NAME: Final = "homebody.lock"
RESTORING_NAME: Final = "homebody.restoring"
"""Marks a data folder that is being filled from a backup; see server/restore.py."""
_SQLITE: Final = "sqlite:///"


class StartError(Exception):
    """The reason why the server or a command can't start, as one line for the administrator."""


def database_path(database_url: str) -> Path:
    """Return the file of an SQLite database. Raises StartError for other databases."""
    if not database_url.startswith(_SQLITE):
        scheme = re.split(r"[:+]", database_url, maxsplit=1)[0]
        raise StartError(f"database_url: {scheme} is not supported yet, only sqlite is")
    return Path(database_url.removeprefix(_SQLITE))


def check_restored(data_dir: Path) -> None:
    """Raise StartError for a data folder whose restore was interrupted."""
    if (data_dir / RESTORING_NAME).exists():
        raise StartError(
            f"The data folder {data_dir} is only partly restored from a backup: run `homebody"
            " restore` again first"
        )


@contextlib.contextmanager
def locked(config: Config) -> Iterator[None]:
    """Hold the locks of `lock` inside a with block."""
    locks = lock(config)
    try:
        yield
    finally:
        for descriptor in locks:
            os.close(descriptor)


def lock(config: Config) -> list[int]:
    """Lock the data folder, and the database where that is elsewhere; return the descriptors.

    Otherwise two servers with data folders of their own could share a database, and neither would
    know what the other writes. Raises StartError as `lock_data_dir` does.
    """
    locks = [lock_data_dir(config.data_dir)]
    database = database_path(config.database_url).resolve()
    folder = database.parent
    if folder == config.data_dir.resolve() or not folder.is_dir():
        return locks
    name = LOCK_NAME if database.name == DATABASE_NAME else f"{database.name}.lock"
    try:
        locks.append(_lock_file(folder / name))
    except OSError as error:
        reason = (
            "another homebody uses it" if isinstance(error, BlockingIOError) else error.strerror
        )
        os.close(locks[0])
        raise StartError(f"The database {database} can't be used: {reason}") from error
    return locks


def lock_data_dir(data_dir: Path) -> int:
    """Create and lock the data folder; return the descriptor that holds the lock while it is open.

    Raises StartError when another process holds the lock, or the folder can't be used.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _lock_file(data_dir / LOCK_NAME)
    except BlockingIOError:
        raise StartError(f"Another homebody is running on the data folder {data_dir}") from None
    except OSError as error:
        raise StartError(f"The data folder {data_dir} can't be used: {error.strerror}") from error


def _lock_file(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
