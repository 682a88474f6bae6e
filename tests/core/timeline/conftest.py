"""A database without a server, for events of other servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from homebody.config import settings as config
from homebody.spec.signing import SigningKey
from homebody.storage.caches import Caches
from homebody.storage.database import Database, Server


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Iterator[Database]:
    path = tmp_path / "homebody.db"
    shutil.copy(empty_database, path)
    settings = config.load(None, {}, {"data_dir": str(tmp_path), "server_name": "one.example"})
    server = Server("one.example", SigningKey.from_seed("a_1", bytes(32)), settings)
    db = Database(f"sqlite:///{path}", server, Caches(2**24), lambda _users: None)
    db.writer.raw.execute("PRAGMA synchronous = OFF")
    yield db
    db.close()
