"""Errors of the database file: locked, disk full, failing disk, damaged pages.

Clients get an error that says whether to retry; the log has the reason in one line without a
traceback, as the code is not at fault.

A damaged page may go unnoticed for months, until every backup contains it. So the server checks the
database when it starts, and does not start if it is damaged; a large one is checked while it runs.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from homebody import errors
from homebody.errors import MatrixError

LOG = logging.getLogger(__name__)

LARGE_BYTES: Final = 256 * 2**20
"""Checking a smaller database takes up to 0.15 s if it is in the page cache."""
ADVICE: Final = (
    "restore it from a backup, or save what can be read with"
    " `sqlite3 homebody.db .recover | sqlite3 saved.db` and put saved.db in its place"
)
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PASSES: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
"""Errors that may pass: another process has locked the database, the disk is full or failing."""
_STEPS_BETWEEN_LOOKS: Final = 1000


def answer_to(error: BaseException) -> MatrixError | None:
    """Return the error for clients if the database file is at fault, and log it; else None."""
    error = getattr(error, "orig", None) or error  # without the lines that SQLAlchemy adds
    code = _code(error)
    if code in _DAMAGE:
        LOG.error("the database is damaged (%s): stop the server, then %s", error, ADVICE)
        return errors.unknown("The server's database is damaged", 500)
    if code in _PASSES:
        LOG.error("the database can't be used at the moment: %s", error)
        return errors.unavailable()
    return None


def damage(database: Path, is_over: Callable[[], bool]) -> str | None:
    """Return SQLite's description of a damage to the database, or None if it finds none.

    Reads all of it: half a second for a gigabyte in memory, minutes on a slow disk. Stops when
    `is_over` returns True, which SQLite calls within the tree of a table since version 3.43.
    """
    try:
        with closing(sqlite3.connect(database, check_same_thread=False)) as connection:
            connection.set_progress_handler(is_over, _STEPS_BETWEEN_LOOKS)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:  # failing to open it is not damage
        return str(error) if _code(error) in _DAMAGE else None
    return None if found == "ok" else str(found).splitlines()[-1]


def _code(error: BaseException) -> int | None:
    """Return SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
