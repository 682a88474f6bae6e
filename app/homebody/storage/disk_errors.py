"""What can be wrong with the database's file: locked, no room, a disk that fails, damaged pages.

Clients hear that it can't be done now, or never; the log hears why, in one line without a trace, as
none of it is a fault of the code.

A damaged page may lie still for months, and by then every backup has it. So the start looks for one
and refuses to go on; a large database is looked through beside the running server.
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
"""What is smaller takes up to 0.15 s at the start, if it is in memory."""
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
"""What may be over soon: another process has the database, or the disk is full or not well."""
_STEPS_BETWEEN_LOOKS: Final = 1000


def answer_to(error: BaseException) -> MatrixError | None:
    """What clients get when the database's file is the matter; None for faults of the code.

    The log gets its line here.
    """
    error = getattr(error, "orig", None) or error  # SQLAlchemy's has lines of its own around it
    code = _code(error)
    if code in _DAMAGE:
        LOG.error("the database is damaged (%s): stop the server, then %s", error, ADVICE)
        return errors.unknown("The server's database is damaged", 500)
    if code in _PASSES:
        LOG.error("the database can't be used at the moment: %s", error)
        return errors.unavailable()
    return None


def damage(database: Path, is_over: Callable[[], bool]) -> str | None:
    """What is wrong with the database's pages, in SQLite's words; None: nothing that was found.

    Reads all of it: half a second for a gigabyte in memory, minutes for one on a slow disk. Stops
    when `is_over`, which SQLite asks within the tree of a table only from version 3.43 on.
    """
    try:
        with closing(sqlite3.connect(database, check_same_thread=False)) as connection:
            connection.set_progress_handler(is_over, _STEPS_BETWEEN_LOOKS)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:  # also where it can't be opened: not damage
        return str(error) if _code(error) in _DAMAGE else None
    return None if found == "ok" else str(found).splitlines()[-1]


def _code(error: BaseException) -> int | None:
    """SQLite's number for an error, without what makes it finer."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
