"""A migration works on a copy: whatever happens, there is a whole database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.config.settings import Config
from homebody.storage import migrations, replacement
from homebody.storage.data_folder import StartError
from tests.helpers import killing
from tests.helpers.backups import done, homebody, homebody_apart, tree
from tests.server.test_restore import add_account, alembic

STEPS = migrations.known()


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A data folder whose database lacks the last migration."""
    return folder_at(tmp_path / "data", STEPS[-2])


def folder_at(data_dir: Path, step: str) -> Path:
    """Return a new data folder with an account, whose database is as of a migration."""
    data_dir.mkdir()
    alembic(f"sqlite:///{data_dir}/homebody.db", step)
    add_account(data_dir, "@alice:localhost")
    return data_dir


def config_of(data_dir: Path) -> Config:
    return settings.load(None, {}, {"data_dir": str(data_dir)})


def revision(file: Path) -> str | None:
    return migrations.current(f"sqlite:///{file}")


def test_the_old_database_is_kept(older: Path) -> None:
    before = (older / "homebody.db").read_bytes()

    migrations.upgrade(config_of(older))

    kept = older / f"homebody.db.before-{STEPS[-2]}"
    assert revision(older / "homebody.db") == STEPS[-1]
    assert kept.read_bytes() == before
    assert kept.stat().st_mode & 0o777 == (older / "homebody.db").stat().st_mode & 0o777
    assert sorted(it.name for it in older.iterdir()) == ["homebody.db", kept.name]


def test_what_is_only_in_the_write_ahead_log_comes_along(older: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(older / "homebody.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE clock SET position = 1234")
    connection.commit()
    shutil.copytree(older, tmp_path / "killed")
    connection.close()
    assert (tmp_path / "killed" / "homebody.db-wal").stat().st_size

    migrations.upgrade(config_of(tmp_path / "killed"))

    with closing(sqlite3.connect(tmp_path / "killed" / "homebody.db")) as connection:
        assert connection.execute("SELECT position FROM clock").fetchone() == (1234,)


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    older = folder_at(tmp_path / "data", "0023")
    with closing(sqlite3.connect(older / "homebody.db")) as connection, connection:
        connection.execute("CREATE TABLE audit_log (mine)")  # migration 0024 wants to make it
    before = tree(older)

    served = homebody_apart(older, "serve")

    assert served.returncode == 2
    assert served.stderr.count("\n") == 1
    assert "could not be brought up to date" in served.stderr
    assert "table audit_log already exists" in served.stderr
    assert "start the previous version of homebody again" in served.stderr
    assert tree(older) == before


def test_a_disk_without_room_for_a_copy_is_noticed_before(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(older)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))

    with pytest.raises(StartError, match=r"takes up to 1 MB, and 0 MB are free"):
        migrations.upgrade(config_of(older))

    assert tree(older) == before


def test_a_database_that_another_process_uses_is_not_replaced(older: Path) -> None:
    with closing(sqlite3.connect(older / "homebody.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM clock").fetchone()

        with pytest.raises(StartError, match="can't be copied to bring it up to date"):
            migrations.upgrade(config_of(older))

    assert revision(older / "homebody.db") == STEPS[-2]
    assert not list(older.glob("*.migrating*"))


@pytest.mark.parametrize("most", killing.HOW_MANY)
def test_a_migration_that_is_killed_is_made_at_the_next_start(
    tmp_path: Path, older: Path, most: int
) -> None:
    shutil.copytree(older, tmp_path / "counted")
    count = killing.run(tmp_path / "counted", "user", Path("list"), 0, tmp_path / "counted")
    were_left = 0

    for moment in sorted({1 + round(at * (count - 1) / (most - 1)) for at in range(most)}):
        data_dir = tmp_path / f"data-{moment}"
        shutil.copytree(older, data_dir)
        killing.run(data_dir, "user", Path("list"), moment, data_dir)
        found = revision(data_dir / "homebody.db")
        were_left += any(data_dir.glob("*.migrating-*"))

        assert found in STEPS[-2:]
        assert homebody(data_dir, "user", "list").stdout.startswith("@alice:localhost ")
        assert revision(data_dir / "homebody.db") == STEPS[-1]
        assert not list(data_dir.glob("*.migrating*"))
        assert not list(data_dir.glob("*.new"))
    assert were_left


def test_a_link_to_the_database_stays_one(older: Path, tmp_path: Path) -> None:
    (older / "homebody.db").rename(tmp_path / "disk.db")
    (older / "homebody.db").symlink_to(tmp_path / "disk.db")

    migrations.upgrade(config_of(older))

    assert (older / "homebody.db").is_symlink()
    assert revision(tmp_path / "disk.db") == STEPS[-1]
    assert (tmp_path / f"disk.db.before-{STEPS[-2]}").exists()


def test_old_databases_are_deleted_after_some_days(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations.upgrade(config_of(older))
    database, now = older / "homebody.db", time.time()

    early = replacement.delete_old(database)
    monkeypatch.setattr("time.time", lambda: now + 8 * 86_400)
    late = replacement.delete_old(database)

    assert early == []
    assert [it.name for it in late] == [f"homebody.db.before-{STEPS[-2]}"]
    assert os.listdir(older) == ["homebody.db"]  # noqa: PTH208 - all of them


def test_the_disk_after_an_upgrade_is_that_of_a_new_server(older: Path) -> None:
    listed = done(older, "user", "list")

    assert [it["user_id"] for it in listed] == ["@alice:localhost"]
    assert replacement.kept(older / "homebody.db") != []
