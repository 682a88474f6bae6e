"""From a configuration to a running server: what has to be true before gunicorn may listen.

Whatever is wrong ends as a StartError with one line for the owner: no stack trace, exit code 2.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from homebody.config.settings import DATABASE_NAME, Config
from homebody.core import server_key
from homebody.core.appservices import files as registrations
from homebody.server import privacy
from homebody.spec import identifiers
from homebody.storage import disk_errors
from homebody.storage.schema import MIGRATIONS

LOG = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
LOCK_NAME = "homebody.lock"
RESTORING_NAME = "homebody.restoring"
"""Lies in a data folder while it is being filled from a backup; see restore.py."""
SQLITE = "sqlite:///"
_ERROR = re.compile(r"(?m)^[\w.]+Error: (.+)$")


class StartError(Exception):
    """Why the server can't start, as one line."""


def prepare(config: Config, environ: Mapping[str, str]) -> list[int]:
    """Check everything that can be checked before the start, and bring the database up to date.

    Returns the descriptors of the locks; the data folder and the database are ours while they are
    open.
    Raises StartError, and ConfigError for the signing key and for registrations of bridges.
    """
    locks = lock(config)
    check_whole(config.data_dir)
    check_port(config.bind)
    registrations.load(config)
    check_media(config.data_dir)
    check_pages(config)
    is_new = current_migration(config.database_url) is None
    migrate(config)
    check_server_name(config)
    if not config.signing_key_path.exists() and has_accounts(config):
        LOG.warning(
            "There is no signing key %s although the server has accounts: a new one is made. If the"
            " old one is elsewhere or in a backup, stop the server and put it there",
            config.signing_key_path,
        )
    server_key.load_or_make(config)
    raise_descriptor_limit()
    privacy.mend(config, database_path(config.database_url), environ)
    if is_new:
        LOG.info("%s is a new server, in %s", config.server_name, config.data_dir)
    return locks


def init(config: Config) -> None:
    """Make the database and the signing key of a new server. Raises StartError and ConfigError."""
    locks = lock(config)
    try:
        check_whole(config.data_dir)
        if current_migration(config.database_url) is not None:
            raise StartError(f"There is a server in {config.data_dir} already")
        migrate(config)
        server_key.load_or_make(config)
    finally:
        for descriptor in locks:
            os.close(descriptor)


def check_whole(data_dir: Path) -> None:
    """Raise StartError for a data folder that is half restored."""
    if (data_dir / RESTORING_NAME).exists():
        raise StartError(
            f"The data folder {data_dir} is half restored from a backup: `homebody restore` has to"
            " be done to the end first"
        )


def check_existence(config: Config) -> None:
    """Raise StartError when there is no database.

    A command that made one would make a new server, with an administrator of its own, wherever it
    is typed in another folder than the server's.
    """
    if current_migration(config.database_url) is None:
        raise StartError(
            f"There is no database {database_path(config.database_url)}: set data_dir if the server"
            " is elsewhere; `homebody init` makes a new one here"
        )


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
        locks.append(_locked(folder / name))
    except OSError as error:
        reason = (
            "another homebody uses it" if isinstance(error, BlockingIOError) else error.strerror
        )
        os.close(locks[0])
        raise StartError(f"The database {database} can't be used: {reason}") from error
    return locks


def lock_data_dir(data_dir: Path) -> int:
    """The descriptor of the lock that this process now holds on its data folder.

    Raises StartError when another server has it, or the folder can't be used.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _locked(data_dir / LOCK_NAME)
    except BlockingIOError:
        raise StartError(f"Another homebody is running on the data folder {data_dir}") from None
    except OSError as error:
        raise StartError(f"The data folder {data_dir} can't be used: {error.strerror}") from error


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_port(bind: str) -> None:
    """Raises StartError when the address can't be listened on."""
    host, _, port = bind.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise StartError(f"Can't listen on {bind}: {error.strerror}") from error


def check_media(data_dir: Path) -> None:
    """Raise StartError when this process can't write where uploads go."""
    for folder in (data_dir / "media", data_dir / "media/incoming", data_dir / "media/files"):
        try:
            is_usable = folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)
            if not is_usable and folder.exists():
                raise StartError(
                    f"The folder {folder} can't be used: it has to be a folder that this user may"
                    " read and write"
                )
        except OSError as error:
            raise StartError(f"The folder {folder} can't be used: {error.strerror}") from error


def check_pages(config: Config) -> None:
    """Raises StartError when the database is damaged.

    To go on with it would be the end of what is still whole, and of the backups that are made of
    it. A large one is left to the worker, as reading it would keep everybody waiting.
    """
    path = database_path(config.database_url)
    if not path.exists() or path.stat().st_size > disk_errors.LARGE_BYTES:
        return
    found = disk_errors.damage(path, lambda: False)
    if found is not None:
        raise StartError(f"The database {path} is damaged ({found}): {disk_errors.ADVICE}")


def migrate(config: Config) -> None:
    """Bring the database to the newest migration. Raises StartError.

    A new one is made at once. Alembic takes half a second and 40 MB to import, so it runs in a
    process of its own, and only for a database that is behind.
    """
    folder = database_path(config.database_url).parent
    if not folder.is_dir():
        raise StartError(f"The database can't be made: there is no folder {folder}")
    at = current_migration(config.database_url)
    if at is None:
        make(database_path(config.database_url))
        return
    if not is_behind(at):
        return
    command = [sys.executable, "-P", "-m", "homebody.storage.migrate", config.database_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        # SQLAlchemy says more after the line with the error: the statement, and where to read on
        told = _ERROR.findall(done.stderr) or done.stderr.splitlines() or ["no reason given"]
        raise StartError(f"The database could not be brought up to date: {told[-1]}")


def make(path: Path) -> None:
    """Make a new database, whole or not at all. Raises StartError."""
    statements = (MIGRATIONS / "schema.sql").read_text(encoding="utf-8")
    try:
        path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"BEGIN;{statements}COMMIT;")
    except (OSError, sqlite3.Error) as error:
        raise StartError(f"The database {path} can't be made: {error}") from error


def check_server_name(config: Config) -> None:
    """Raises StartError when the database has accounts of another server name.

    Rooms and people are known by it: with another one, nobody could log in and no event would be
    ours.
    """
    with contextlib.closing(sqlite3.connect(database_path(config.database_url))) as connection:
        try:
            check_name(config, connection)
        except StartError as error:
            hint = f"To begin anew without them, move the data folder {config.data_dir} away"
            raise StartError(f"{error}. {hint}") from None


def check_name(config: Config, connection: sqlite3.Connection) -> None:
    """Do the same for a database that is open."""
    row = connection.execute("SELECT user_id FROM accounts LIMIT 1").fetchone()
    if row is not None and (name := identifiers.server_name(row[0])) != config.server_name:
        raise StartError(
            f"server_name is {config.server_name}, but the accounts in the database are of {name}:"
            " it can't change once there are accounts"
        )


def has_accounts(config: Config) -> bool:
    """Return whether anybody has registered yet."""
    with contextlib.closing(sqlite3.connect(database_path(config.database_url))) as connection:
        return connection.execute("SELECT 1 FROM accounts LIMIT 1").fetchone() is not None


def is_behind(migration: str) -> bool:
    """Return whether there are migrations after this one. Raises StartError for an unknown one."""
    steps = known_migrations()
    if migration not in steps:
        raise StartError(
            f"The database is of a newer homebody (migration {migration}; this one knows"
            f" {steps[-1]})"
        )
    return migration != steps[-1]


def known_migrations() -> list[str]:
    """The numbers of all migrations, in order."""
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current_migration(database_url: str) -> str | None:
    """The number of the last migration that a database went through; None for a new one.

    Raises StartError when it can't be read.
    """
    path = database_path(database_url)
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return migration_of(path, connection)
    except sqlite3.Error as error:
        raise StartError(f"The database {path} can't be read: {error}") from error


def migration_of(path: Path, connection: sqlite3.Connection) -> str | None:
    """Find the same in a database that is open. Raises sqlite3.Error as well."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise StartError(f"The database {path} is not one of homebody")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def database_path(database_url: str) -> Path:
    """The file of an SQLite database. Raises StartError for other databases."""
    if not database_url.startswith(SQLITE):
        scheme = re.split(r"[:+]", database_url, maxsplit=1)[0]
        raise StartError(f"database_url: {scheme} has not landed yet, only sqlite has")
    return Path(database_url.removeprefix(SQLITE))


def raise_descriptor_limit() -> None:
    """Each waiting client takes a file descriptor: allow as many as the system lets us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run(environ: dict[str, str]) -> None:
    """Become gunicorn, with the configuration that this environment names. Doesn't return."""
    # -P: what lies in the folder where the command was typed is not ours
    command = [sys.executable, "-P", "-m", "gunicorn"]
    command += ["-c", "python:homebody.server.gunicorn_config", "homebody.server.wsgi:app"]
    os.execve(sys.executable, command, environ)  # noqa: S606 - our own words
