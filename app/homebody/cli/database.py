"""How commands open the server's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from sqlalchemy.exc import DBAPIError

from homebody import cli
from homebody.config.settings import Config
from homebody.core import server_key
from homebody.errors import MatrixError
from homebody.server import startup
from homebody.storage import data_folder, migrations
from homebody.storage.caches import Caches
from homebody.storage.database import Database, Server

CACHE_BYTES: Final = 8 * 2**20


@contextmanager
def open_database(ctx: click.Context) -> Iterator[Database]:
    """Open the existing database of the configuration; bring it up to date if no server runs on it.

    Raises ConfigError, StartError, and MatrixError for errors of the database.
    """
    config = cli.load_config(ctx)
    data_folder.check_restored(config.data_dir)
    migrations.check_existence(config)
    if migrations.current(config.database_url) != migrations.known()[-1]:
        with data_folder.locked(config):  # not under a running server of another version
            migrations.upgrade(config)
    with open_migrated(config) as database:
        yield database


@contextmanager
def open_migrated(config: Config) -> Iterator[Database]:
    """Open the database of the configuration as it is. Raises as `open_database` does."""
    startup.check_server_name(config)
    server = Server(config.server_name, server_key.load_or_create(config), config)
    try:
        database = Database(config.database_url, server, Caches(CACHE_BYTES), lambda _: None)
        try:
            yield database
        finally:
            database.close()
    except DBAPIError as error:
        raise MatrixError(503, "M_UNKNOWN", f"The database can't be used: {error.orig}") from error
