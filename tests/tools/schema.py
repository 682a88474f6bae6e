"""Write alembic/schema.sql, the schema after all migrations, from which new databases are created.

With `--check`: exit with 1 if the file is outdated.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
from pathlib import Path

from tests.tools.next_migration import ROOT, alembic

FILE = ROOT / "alembic" / "schema.sql"
_HEAD = """\
-- What all migrations together make: a new database begins with it, and needs no Alembic.
-- Written by `make schema`; `make migrations` compares it with the migrations.
"""
_STATEMENTS = """\
SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL
AND name NOT GLOB 'search_index_*' AND name NOT GLOB 'sqlite_*' ORDER BY rowid"""
"""FTS5 and SQLite create their internal tables themselves."""
_TABLES = """\
SELECT name FROM sqlite_schema WHERE type = 'table'
AND name NOT GLOB 'search_index*' AND name NOT GLOB 'sqlite_*'"""


def main(mode: str) -> int:
    """Write the file or compare it; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        if failed := alembic(f"sqlite:///{path}", "upgrade", "head"):
            return failed
        made = script(path)
    if mode != "--check":
        FILE.write_text(made, encoding="utf-8")
        return 0
    if FILE.read_text(encoding="utf-8") == made:
        return 0
    sys.stderr.write("alembic/schema.sql is not what the migrations make: run `make schema`\n")
    return 1


def script(path: Path) -> str:
    """Return the statements that create such a database: tables, indexes and initial rows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        made = [sql for (sql,) in connection.execute(_STATEMENTS)]
        for (table,) in connection.execute(_TABLES).fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - names of our own
                values = ", ".join(
                    connection.execute("SELECT quote(?)", (it,)).fetchone()[0] for it in row
                )
                made.append(f"INSERT INTO {table} VALUES ({values})")  # noqa: S608 - as above
    return _HEAD + "".join(f"\n{statement};\n" for statement in made)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or [""]))
