"""`homebody upgrade --check`: what a new version would do, and what is in its way."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from homebody.storage import data_folder, migrations
from tests.helpers.backups import done, homebody, tree
from tests.server.test_restore import add_account, alembic

STEPS = migrations.known()


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A data folder whose database lacks the last two migrations."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    alembic(f"sqlite:///{data_dir}/homebody.db", STEPS[-3])
    return data_dir


def test_the_migrations_that_would_run_are_listed_and_nothing_is_changed(older: Path) -> None:
    before = tree(older)
    lock = data_folder.lock_data_dir(older)  # as a server does that runs

    checked = homebody(older, "upgrade", "--check")
    described = done(older, "upgrade", "--check")

    assert lock
    assert checked.exit_code == 0, checked.output
    assert f"is of migration {STEPS[-3]}; these would run:\n  {STEPS[-2]}  " in checked.stdout
    assert checked.stdout.endswith("Nothing is in the way\n")
    assert [it["migration"] for it in described["pending"]] == STEPS[-2:]
    assert all(it["title"] for it in described["pending"])
    assert described["needed_bytes"] > described["database_bytes"] > 100_000
    assert described["seconds"] >= 1
    assert tree(older) == before


def test_a_copy_is_migrated_and_deleted_on_demand(older: Path) -> None:
    before = tree(older)

    tried = done(older, "upgrade", "--check", "--try")

    assert tried["was_tried"]
    assert tried["problems"] == []
    assert tree(older) == before


def test_a_migration_that_will_fail_is_found_by_trying_it(older: Path) -> None:
    with closing(sqlite3.connect(older / "homebody.db")) as connection, connection:
        connection.execute("CREATE TABLE audit_log (mine)")
    before = tree(older)

    tried = homebody(older, "upgrade", "--check", "--try")

    assert tried.exit_code == 1
    assert "In the way: Migrating a copy failed: " in tried.stdout
    assert "table audit_log already exists" in tried.stdout
    assert tree(older) == before


def test_all_settings_that_are_gone_are_named(stopped: Path) -> None:
    (stopped / "homebody.toml").write_text("workers = 2\ncolour = 3\npresence = 17\n")

    checked = homebody(stopped, "upgrade", "--check", "--json")

    assert checked.exit_code == 1
    problems = json.loads(checked.stdout)["problems"]
    assert len(problems) == 3
    for key, line in (("workers", 1), ("colour", 2), ("presence", 3)):
        assert any(f"homebody.toml:{line}: {key}: " in it for it in problems)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "is of a newer homebody"),
        ("DROP TABLE alembic_version", "is not one of homebody"),
    ],
)
def test_a_database_that_it_cannot_use_is_in_the_way(
    stopped: Path, spoil: str, reason: str
) -> None:
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        connection.execute(spoil)

    checked = homebody(stopped, "upgrade", "--check")

    assert checked.exit_code == 1
    assert f"In the way: The database {stopped}" in checked.stdout or reason in checked.stdout
    assert reason in checked.stdout


def test_a_damaged_database_and_another_name_are_in_the_way(stopped: Path) -> None:
    shutil.copy(stopped / "homebody.db", stopped.parent / "good.db")
    with (stopped / "homebody.db").open("r+b") as file:
        file.seek(4096 * 10)
        file.write(b"\xff" * 4096 * 40)
    damaged = homebody(stopped, "upgrade", "--check")
    shutil.copy(stopped.parent / "good.db", stopped / "homebody.db")
    add_account(stopped, "@alice:example.org")
    named = homebody(stopped, "upgrade", "--check")

    assert (named.exit_code, damaged.exit_code) == (1, 1)
    assert "the accounts in the database are of example.org" in named.stdout
    assert "In the way: The database" in damaged.stdout


def test_too_little_room_is_in_the_way(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))

    checked = homebody(older, "upgrade", "--check")

    assert checked.exit_code == 1
    assert "In the way: Migrating takes up to 1 MB, and 0 MB are free" in checked.stdout


def test_a_server_that_is_up_to_date_has_nothing_to_do(tmp_path: Path, stopped: Path) -> None:
    new = homebody(tmp_path / "new", "upgrade", "--check")
    current = homebody(stopped, "upgrade", "--check")

    assert (new.exit_code, current.exit_code) == (0, 0)
    assert "There is no database yet" in new.stdout
    assert f"The database is up to date (migration {STEPS[-1]})" in current.stdout
    assert not (tmp_path / "new").exists()


def test_without_the_option_the_database_is_brought_up_to_date(older: Path) -> None:
    first = homebody(older, "upgrade")
    second = homebody(older, "upgrade")

    assert first.stdout == f"Brought the database from migration {STEPS[-3]} to {STEPS[-1]}\n"
    assert second.stdout == f"The database is up to date (migration {STEPS[-1]})\n"


def test_a_running_server_is_not_upgraded_under(older: Path) -> None:
    lock = data_folder.lock_data_dir(older)

    refused = homebody(older, "upgrade")

    assert lock
    assert refused.exit_code == 2
    assert "Another homebody is running" in refused.stderr
