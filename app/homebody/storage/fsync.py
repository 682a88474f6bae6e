"""Folders and permissions of files that must survive a loss of power."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LOG = logging.getLogger(__name__)

OTHERS: Final = 0o007
NOT_OWNER: Final = 0o077


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk; otherwise a new or renamed file may be lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and missing parents, private to their owner; return those to be synced.

    These are the new ones and the one above. Sync them when the files are in them.
    """
    missing = [folder]
    while not missing[-1].exists():
        missing.append(missing[-1].parent)
    for it in reversed(missing):
        it.mkdir(exist_ok=True, mode=0o700)
    return missing


def make_private(path: Path, taken: int = NOT_OWNER) -> None:
    """Remove these permissions from a file or folder, if it exists, and log a warning."""
    try:
        mode = path.stat().st_mode & 0o777
        if not mode & taken:
            return
        path.chmod(mode & ~taken)
    except FileNotFoundError:
        return
    except OSError as error:
        LOG.warning("other users of this machine may read %s: %s", path, error.strerror)
        return
    if path.stat().st_mode & taken:  # a file system without permissions
        LOG.warning("other users of this machine may read %s (mode %o)", path, mode)
    else:
        LOG.warning(
            "other users of this machine could read %s: changed its mode %o to %o",
            path,
            mode,
            mode & ~taken,
        )


@contextlib.contextmanager
def held(folder: Path, *, is_shared: bool = False) -> Iterator[bool]:
    """Lock a folder for this process; yield whether that succeeded. A lock may be shared."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            LOG.debug("%s can't be locked", folder)
        yield True
    finally:
        os.close(descriptor)
