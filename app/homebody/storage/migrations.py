"""Creating the database and bringing it up to date.

The migrations are the folder alembic/ of the source, which the package contains as `migrations`.
Alembic takes half a second and 40 MB to import, so it runs in a process of its own, and only for a
database that is behind; a new database is created from schema.sql.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from homebody.config.settings import Config
from homebody.storage import replacement, rewriting
from homebody.storage.data_folder import StartError, database_path

LOG = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parents[1] / "migrations"
_MOST_REWRITTEN_BYTES: Final = 2 * 2**30
_LARGE_BYTES: Final = 64 * 2**20
"""Rewriting a smaller one takes a second or two."""
_ERROR: Final = re.compile(r"(?m)^[\w.]+Error: (.+)$")


def upgrade(config: Config, *, keeps_old: bool = True) -> None:
    """Create the database, or run the migrations that it lacks. Raises StartError.

    Migrations run on a copy, which takes the place of the database when all of them have succeeded:
    a failure or an interruption leaves the database as it was. The old one is kept for some days.
    """
    path = database_path(config.database_url)
    if not path.parent.is_dir():
        raise StartError(f"The database can't be made: there is no folder {path.parent}")
    revision = current(config.database_url)
    if revision is None:
        create(path)
    elif is_behind(revision):
        _migrate(path, revision, keeps_old=keeps_old)


def pending(revision: str) -> list[str]:
    """Return the numbers of the migrations after this one. Raises as `is_behind` does."""
    return [it for it in known() if it > revision] if is_behind(revision) else []


def title(revision: str) -> str:
    """Return what a migration does, in one line."""
    (path,) = (FOLDER / "versions").glob(f"{revision}_*.py")
    first = path.read_text(encoding="utf-8").split('"""')[1].strip().splitlines()[0]
    return first.rstrip(".")


def _migrate(path: Path, revision: str, *, keeps_old: bool) -> None:
    with replacement.migrated(path, revision, keeps_old=keeps_old) as copy:
        migrate_file(copy)
    if keeps_old:
        LOG.info(
            "The database was brought up to date from migration %s to %s; the old one is kept for"
            " %d days, as %s",
            revision,
            known()[-1],
            replacement.KEPT_DAYS,
            replacement.kept(path)[-1],
        )


def migrate_file(path: Path) -> None:
    """Run the migrations that a database lacks on this very file. Raises StartError."""
    _run_alembic(f"sqlite:///{path}")
    _let_it_shrink(path)


def create(path: Path) -> None:
    """Create a new database with all tables, or none at all. Raises StartError."""
    statements = (FOLDER / "schema.sql").read_text(encoding="utf-8")
    try:
        path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA auto_vacuum = {rewriting.INCREMENTAL}")
            connection.executescript(f"BEGIN;{statements}COMMIT;")
    except (OSError, sqlite3.Error) as error:
        raise StartError(f"The database {path} can't be made: {error}") from error


def _run_alembic(database_url: str) -> None:
    # -P: modules in the working folder must not hide ours
    command = [sys.executable, "-P", "-m", "alembic", "-c", str(FOLDER / "alembic.ini")]
    command += ["-x", f"url={database_url}", "upgrade", "head"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as problems:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=problems, text=True)  # noqa: S603 - our own words
        with running:
            for line in running.stdout or ():  # a migration that takes long says how far it is
                sys.stderr.write(line)
        if running.returncode:
            problems.seek(0)
            said = problems.read()
            # SQLAlchemy prints more after the line with the error: the statement, and a link
            found = _ERROR.findall(said) or said.splitlines() or ["no reason given"]
            raise StartError(
                f"The database could not be brought up to date: {found[-1]}. It is as it was:"
                " start the previous version of homebody again, and report this error"
            )


def _let_it_shrink(path: Path) -> None:
    """Rewrite a database from before it could be shortened, if that takes less than a minute.

    Without it the database works as well, but keeps the size that it once had, until it is
    rewritten by `homebody disk --vacuum`.
    """
    is_small = path.stat().st_size <= _MOST_REWRITTEN_BYTES
    if rewriting.is_incremental(path) or not is_small or not rewriting.has_room(path):
        return
    if path.stat().st_size > _LARGE_BYTES:
        sys.stderr.write("Rewriting the database once, so that it can become smaller later\n")
    try:
        rewriting.rewrite(path)
    except sqlite3.Error as error:
        sys.stderr.write(f"The database was not rewritten, and stays as it was: {error}\n")


def check_existence(config: Config) -> None:
    """Raise StartError when there is no database.

    A command that created one would make a new server, with an administrator of its own, when it is
    run in another folder than the server's.
    """
    if current(config.database_url) is None:
        raise StartError(
            f"There is no database {database_path(config.database_url)}: set data_dir if the server"
            " is elsewhere; `homebody init` makes a new one here"
        )


def known() -> list[str]:
    """Return the numbers of all migrations, in order."""
    return sorted(path.name[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))


def is_behind(revision: str) -> bool:
    """Return whether there are migrations after this one. Raises StartError for an unknown one."""
    numbers = known()
    if revision not in numbers:
        raise StartError(
            f"The database is of a newer homebody (migration {revision}; this one knows"
            f" {numbers[-1]})"
        )
    return revision != numbers[-1]


def current(database_url: str) -> str | None:
    """Return the number of the database's last migration; None for a new or missing one.

    Raises StartError when it can't be read.
    """
    path = database_path(database_url)
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return current_of(path, connection)
    except sqlite3.Error as error:
        raise StartError(f"The database {path} can't be read: {error}") from error


def current_of(path: Path, connection: sqlite3.Connection) -> str | None:
    """Return the same for an open database. Raises StartError and sqlite3.Error."""
    # Raw SQL: before the schema is known
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise StartError(f"The database {path} is not one of homebody")
    # Raw SQL: as above
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])
