"""Run migrations: on the database of the configuration, or on the one of `-x url=…`."""

from __future__ import annotations

import os
import sqlite3

from alembic import context
from sqlalchemy import Connection, create_engine, event, pool

from homebody.config import settings as config
from homebody.models import all_tables
from homebody.server import privacy
from homebody.storage import data_folder
from homebody.storage.statements import sqlite_url


def database_url() -> str:
    """Return the database to migrate; lock that of the configuration, so that no server starts."""
    if given := context.get_x_argument(as_dictionary=True).get("url"):
        return given
    settings = config.load(None, os.environ)
    data_folder.lock(settings)
    data_folder.check_restored(settings.data_dir)
    return settings.database_url


def is_described(name: str | None, kind: str, _parents: object) -> bool:
    """Return whether a table has a model: FTS5's tables of the full-text index can't have one."""
    return kind != "table" or not (name or "").startswith("search_index")


def leave_transactions_alone(connection: sqlite3.Connection, _record: object) -> None:
    """Disable the implicit transactions of sqlite3, which begin too late to contain DDL."""
    connection.isolation_level = None


def begin(connection: Connection) -> None:
    """Begin a transaction, so that a migration with its DDL is applied as a whole or not at all."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


privacy.restrict_new_files()
url = database_url()
engine = create_engine(sqlite_url(url), poolclass=pool.NullPool)
event.listen(engine, "connect", leave_transactions_alone)
event.listen(engine, "begin", begin)

with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=all_tables(),
        include_name=is_described,
        render_as_batch=True,  # SQLite can't alter most of a table
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
