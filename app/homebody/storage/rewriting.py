"""Rewriting a database: as small as it can be, and so that vacuum.py can shorten it later.

The setting auto_vacuum is part of the file. New databases have it from the beginning, older ones
get it by being rewritten once, while no server runs.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Final

INCREMENTAL: Final = 2
"""The value of auto_vacuum with which pages can be given back."""
ROOM_FACTOR: Final = 2.2
"""How much free space a rewrite takes: the new database, and its write-ahead log."""


def is_incremental(path: Path) -> bool:
    """Return whether a database can be shortened in steps."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA auto_vacuum").fetchone()[0] == INCREMENTAL)


def has_room(path: Path) -> bool:
    """Return whether the disk has the space that `rewrite` takes."""
    return shutil.disk_usage(path.parent).free > path.stat().st_size * ROOM_FACTOR


def rewrite(path: Path) -> None:
    """Rewrite the database, as small as it can be, and able to be shortened in steps later.

    Takes up to half a minute for a gigabyte, in which nobody can use the database. An interruption
    leaves it as it was. Raises sqlite3.Error.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
