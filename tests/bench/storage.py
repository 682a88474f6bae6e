"""Measure the size of the parts of a database, by its pages."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import click

NAME = "homebody.db"
"""Of the database in a data folder."""
STATE_TABLES = ("state_intervals",)
"""The tables with the history of room state."""

_PAGES = "SELECT (SELECT * FROM pragma_page_count) - (SELECT * FROM pragma_freelist_count)"
_PAGE_BYTES = "SELECT page_size FROM pragma_page_size"
_TREES = "SELECT name FROM sqlite_schema WHERE tbl_name = ? AND rootpage"
_TREE_BYTES = "SELECT pgsize FROM dbstat WHERE name = ? AND aggregate = 1"


@dataclass(frozen=True, slots=True)
class Used:
    """The size of a database at one moment."""

    events: int
    bytes: int
    """Of all pages in use."""
    state_rows: int
    state_bytes: int
    """Of the pages of the tables of state and of their indexes."""


def look(database: Path) -> Used:
    """Return the current sizes. Raises ClickException if SQLite was built without dbstat."""
    with contextlib.closing(sqlite3.connect(database)) as sql:
        try:
            state_bytes = sum(_bytes_of_table(sql, table) for table in STATE_TABLES)
        except sqlite3.OperationalError as error:
            raise click.ClickException(
                f"this build of SQLite has no dbstat, which tells the size of a table: {error}"
            ) from error
        return Used(
            events=_number(sql, "SELECT count(*) FROM events"),
            bytes=_number(sql, _PAGES) * _number(sql, _PAGE_BYTES),
            state_rows=sum(_number(sql, f"SELECT count(*) FROM {it}") for it in STATE_TABLES),  # noqa: S608 - names of ours
            state_bytes=state_bytes,
        )


def _bytes_of_table(sql: sqlite3.Connection, table: str) -> int:
    names = [name for (name,) in sql.execute(_TREES, (table,))]
    return sum(_number(sql, _TREE_BYTES, name) for name in names)


def _number(sql: sqlite3.Connection, statement: str, *values: str) -> int:
    (found,) = sql.execute(statement, values).fetchone()
    return int(found)
