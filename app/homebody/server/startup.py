"""Checks and preparations before gunicorn listens.

Errors are StartErrors: one line for the administrator without a stack trace, and exit code 2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from homebody.config.settings import Config
from homebody.core import server_key
from homebody.core.appservices import files as registrations
from homebody.server import listeners, privacy
from homebody.spec import identifiers
from homebody.storage import data_folder, disk_errors, migrations, replacement
from homebody.storage.data_folder import StartError, database_path

LOG = logging.getLogger(__name__)


class Opened(NamedTuple):
    """The sockets that were opened, except those of systemd."""

    main: list[socket.socket]
    metrics: socket.socket | None


def prepare(
    config: Config, environ: Mapping[str, str], *, is_activated: bool = False
) -> tuple[list[int], Opened]:
    """Check everything that can be checked before the start, and bring the database up to date.

    Returns the descriptors of the locks, which hold while they are open, and the sockets; if
    `is_activated`, systemd has opened those of the setting bind. Raises StartError, and ConfigError
    for the signing key and for registrations of bridges.
    """
    locks = data_folder.lock(config)
    data_folder.check_restored(config.data_dir)
    opened = open_listeners(config, is_activated=is_activated)
    registrations.load(config)
    check_media(config.data_dir)
    check_pages(config)
    is_new = migrations.current(config.database_url) is None
    migrations.upgrade(config)
    for old in replacement.delete_old(database_path(config.database_url)):
        LOG.info("Deleted %s, the database from before an upgrade", old)
    check_server_name(config)
    if not config.signing_key_path.exists() and has_accounts(config):
        LOG.warning(
            "There is no signing key %s although the server has accounts: a new one is created. If"
            " the old one is elsewhere or in a backup, stop the server and put it there",
            config.signing_key_path,
        )
    server_key.load_or_create(config)
    raise_descriptor_limit()
    privacy.restrict_existing_files(config, database_path(config.database_url), environ)
    if is_new:
        LOG.info("%s is a new server, in %s", config.server_name, config.data_dir)
    return locks, opened


def open_listeners(config: Config, *, is_activated: bool) -> Opened:
    """Open the sockets to listen on. Raises StartError."""
    main = [] if is_activated else listeners.open_all(config.bind)
    if config.metrics_bind is None:
        return Opened(main, None)
    (metrics,) = listeners.open_all([config.metrics_bind])
    metrics.listen()  # gunicorn does so for the others
    return Opened(main, metrics)


def init(config: Config) -> None:
    """Create a new server's database and signing key. Raises StartError and ConfigError."""
    with data_folder.locked(config):
        data_folder.check_restored(config.data_dir)
        if migrations.current(config.database_url) is not None:
            raise StartError(f"There is a server in {config.data_dir} already")
        migrations.upgrade(config)
        server_key.load_or_create(config)


def check_media(data_dir: Path) -> None:
    """Raise StartError when this process can't write to the folders of uploads."""
    for folder in (data_dir / "media", data_dir / "media/incoming", data_dir / "media/files"):
        try:
            is_usable = folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)
            if not is_usable and folder.exists():
                raise StartError(
                    f"The folder {folder} can't be used: it has to be a folder that this user can"
                    " read and write"
                )
        except OSError as error:
            raise StartError(f"The folder {folder} can't be used: {error.strerror}") from error


def check_pages(config: Config) -> None:
    """Raise StartError when the database is damaged.

    A server that ran on it could damage more of it, and the backups that are made of it. The worker
    checks a large one, as that would delay the start.
    """
    path = database_path(config.database_url)
    if not path.exists() or path.stat().st_size > disk_errors.LARGE_BYTES:
        return
    found = disk_errors.damage(path, lambda: False)
    if found is not None:
        raise StartError(f"The database {path} is damaged ({found}): {disk_errors.ADVICE}")


def check_server_name(config: Config) -> None:
    """Raise StartError when the database has accounts of another server name.

    User and room IDs contain it: with another one nobody could log in, and no event would be ours.
    """
    with contextlib.closing(sqlite3.connect(database_path(config.database_url))) as connection:
        try:
            check_name(config, connection)
        except StartError as error:
            hint = f"To start over without them, move the data folder {config.data_dir} away"
            raise StartError(f"{error}. {hint}") from None


def check_name(config: Config, connection: sqlite3.Connection) -> None:
    """Check the server name in an open database. Raises StartError."""
    check_accounts_name(config, accounts_name(connection))


def accounts_name(connection: sqlite3.Connection) -> str:
    """Return the server name of the accounts in a database, or an empty text if there are none."""
    # Raw SQL: on a plain connection, before the server runs
    row = connection.execute("SELECT user_id FROM accounts LIMIT 1").fetchone()
    return "" if row is None else identifiers.server_name(row[0])


def check_accounts_name(config: Config, name: str) -> None:
    """Check the server name of the accounts, if there are any. Raises StartError."""
    if name and name != config.server_name:
        raise StartError(
            f"server_name is {config.server_name}, but the accounts in the database are of {name}:"
            " it can't be changed once there are accounts"
        )


def has_accounts(config: Config) -> bool:
    """Return whether there is an account."""
    with contextlib.closing(sqlite3.connect(database_path(config.database_url))) as connection:
        # Raw SQL: as above
        return connection.execute("SELECT 1 FROM accounts LIMIT 1").fetchone() is not None


def raise_descriptor_limit() -> None:
    """Raise the limit of file descriptors to the maximum: each connection needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run(environ: dict[str, str]) -> None:
    """Replace this process by gunicorn, with this environment. Does not return."""
    # -P, and __main__.py: modules in the working folder must not hide ours
    command = [sys.executable, "-P", "-m", "homebody.server"]
    command += ["-c", "python:homebody.server.gunicorn_config", "homebody.server.wsgi:app"]
    os.execve(sys.executable, command, environ)  # noqa: S606 - our own words
