"""SQLAlchemy's engine for the database: how its connections are set up."""

from __future__ import annotations

import sqlite3

import orjson
from sqlalchemy import Engine, create_engine, event, pool

from homebody.storage.statements import sqlite_url, to_json


def make_engine(url: str) -> Engine:
    """Return an engine whose connections are set up as database.py needs them."""
    engine = create_engine(
        sqlite_url(url),
        isolation_level="AUTOCOMMIT",  # database.py begins and ends transactions itself
        poolclass=pool.NullPool,
        connect_args={"check_same_thread": False, "timeout": 0, "cached_statements": 512},
        json_serializer=to_json,
        json_deserializer=orjson.loads,
        hide_parameters=True,  # what users write and do has no place in a log
    )
    event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # an acknowledged write survives a loss of power
        "foreign_keys = ON",
        "cache_size = -8192",  # KiB
        "temp_store = MEMORY",
        "journal_size_limit = 67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")
