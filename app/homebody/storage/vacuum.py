"""Giving the pages that deletions have left empty back to the disk, some at a time.

SQLite keeps empty pages for later rows. A database with `auto_vacuum = INCREMENTAL` can move its
last pages into empty ones and become shorter, in as small steps as one likes; rewriting.py says how
an older database becomes one of these. Some empty pages stay, as new rows soon need them: growing
the file costs more than reusing them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import column, select, table
from sqlalchemy.exc import DBAPIError

from homebody.runtime import event_loop
from homebody.storage.database import Database, Reader
from homebody.storage.rewriting import INCREMENTAL

PAGES_AT_ONCE: Final = 100
"""For each write: some 5 ms."""
KEPT_PART: Final = 0.02
KEPT_PAGES: Final = 256
"""How many empty pages stay, whichever is more."""
WORTH_PART: Final = 0.05
WORTH_PAGES: Final = 2048
"""How many more it takes to begin by itself, whichever is more: 8 MiB."""

_DBSTAT = table("dbstat", column("name"), column("pgsize"), column("aggregate"))
_SIZES = select(_DBSTAT.c.name, _DBSTAT.c.pgsize).where(_DBSTAT.c.aggregate == 1)
_SCHEMA = table("sqlite_master", column("name"), column("tbl_name"))
_TABLES = select(_SCHEMA.c.name, _SCHEMA.c.tbl_name)


class Pages(NamedTuple):
    """The pages of the database."""

    total: int
    free: int
    size_bytes: int
    """Of one page."""
    is_incremental: bool

    @property
    def kept(self) -> int:
        """How many empty pages stay."""
        return max(KEPT_PAGES, int(self.total * KEPT_PART))

    @property
    def is_worth_it(self) -> bool:
        """Return whether so many pages are empty that they should be given back."""
        return self.free > self.kept + max(WORTH_PAGES, int(self.total * WORTH_PART))


def pages(tx: Reader) -> Pages:
    """Return how many pages the database has, and how many of them are empty."""

    def pragma(name: str) -> int:
        return int(tx.sql.raw.execute(f"PRAGMA {name}").fetchone()[0])

    is_incremental = pragma("auto_vacuum") == INCREMENTAL
    return Pages(
        pragma("page_count"), pragma("freelist_count"), pragma("page_size"), is_incremental
    )


def table_bytes(tx: Reader) -> dict[str, int]:
    """Return {table: bytes of its pages, with those of its indexes}.

    Reads the head of every page. Returns nothing where SQLite was built without dbstat.
    """
    try:
        sizes = tx.sql.execute(_SIZES).all()
    except (DBAPIError, sqlite3.Error):
        return {}
    table_of = {row.name: row.tbl_name for row in tx.sql.execute(_TABLES)}
    found: Counter[str] = Counter()
    for row in sizes:
        found[table_of.get(row.name, row.name)] += row.pgsize
    return found


def give_back(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Give empty pages back to the disk; return the number of bytes.

    `step` is called after each write. The file becomes shorter at the next checkpoint of the log.
    """
    with db.read() as reader:
        before = pages(reader)
    left = before.free
    while before.is_incremental and left > before.kept:
        with db.write() as tx:
            # one call for each page: the statement ends after a page when it is not stepped
            for _ in range(min(PAGES_AT_ONCE, left - before.kept)):
                tx.sql.raw.execute("PRAGMA incremental_vacuum(1)")
            now = pages(tx).free
        if now >= left:
            break
        left = now
        step()
    return (before.free - left) * before.size_bytes
