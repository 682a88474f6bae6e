"""Empty pages of the database go back to the disk, in small steps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from homebody.storage import rewriting, vacuum
from homebody.storage.database import Database
from homebody.web import Application


@pytest.fixture
def database(app: Application) -> Database:
    return app.homeserver.database


def size(tmp_path: Path) -> int:
    """The bytes of the file, with what is still in its log."""
    with closing(sqlite3.connect(tmp_path / "homebody.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (tmp_path / "homebody.db").stat().st_size


def fill(database: Database, megabytes: int) -> None:
    """Write rows of this size, and delete them again."""
    with database.write() as tx:
        tx.sql.raw.execute("CREATE TABLE ballast (x BLOB)")
        for _ in range(megabytes * 256):
            tx.sql.raw.execute("INSERT INTO ballast VALUES (zeroblob(4000))")
    with database.write() as tx:
        tx.sql.raw.execute("DROP TABLE ballast")


def test_a_new_database_can_be_shortened(database: Database) -> None:
    with database.read() as tx:
        assert vacuum.pages(tx).is_incremental


def test_bytes_on_the_disk_go_down(database: Database, tmp_path: Path) -> None:
    fill(database, 20)
    before = size(tmp_path)
    steps = []

    freed = vacuum.give_back(database, lambda: steps.append(1))

    after = size(tmp_path)
    assert before - after >= freed > 18 * 2**20
    assert len(steps) >= freed / 4096 / vacuum.PAGES_AT_ONCE
    with database.read() as tx:
        left = vacuum.pages(tx)
    assert left.free == left.kept
    assert not left.is_worth_it
    assert vacuum.give_back(database) == 0


def test_it_is_not_worth_it_for_a_few_pages(database: Database) -> None:
    fill(database, 4)
    with database.read() as tx:
        assert not vacuum.pages(tx).is_worth_it
    fill(database, 20)
    with database.read() as tx:
        assert vacuum.pages(tx).is_worth_it


def test_an_interrupted_step_leaves_the_database_whole(database: Database, tmp_path: Path) -> None:
    fill(database, 20)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        vacuum.give_back(database, stop)

    with closing(sqlite3.connect(tmp_path / "homebody.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert vacuum.give_back(database) > 17 * 2**20


def test_an_older_database_is_rewritten_once(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x BLOB)")
        connection.executemany("INSERT INTO t VALUES (zeroblob(4000))", [()] * 1000)
        connection.execute("DELETE FROM t WHERE rowid > 10")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.stat().st_size
    assert not rewriting.is_incremental(path)
    assert rewriting.has_room(path)

    rewriting.rewrite(path)

    assert rewriting.is_incremental(path)
    assert path.stat().st_size < before / 10
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
