"""What other users of the machine can read of a server's files: nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import bridge
from tests.helpers import server as real_server
from tests.helpers.backups import HOMEBODY, PNG, done, environ_of, store, upload
from tests.helpers.live import Person
from tests.helpers.server import ROOT


@pytest.fixture(autouse=True)
def ordinary_umask() -> Iterator[None]:
    """That of most machines, by which others read what is made."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable(folder: Path) -> list[str]:
    """Files and folders inside that others than their owner may read, if they get there."""
    found = {path: path.stat().st_mode & 0o077 for path in folder.rglob("*")}
    return sorted(path.name for path, mode in found.items() if mode and path.name != "server.log")


def test_a_server_makes_nothing_that_others_read(data_dir: Path) -> None:
    data_dir.chmod(0o755)

    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    upload(alice, PNG)
    alice.close()
    names = {path.name for path in data_dir.iterdir()}
    found = readable(data_dir)
    running.stop()

    assert {"homebody.db", "homebody.db-wal", "homebody.db-shm", "media", "signing.key"} <= names
    assert found == []
    assert data_dir.stat().st_mode & 0o777 == 0o755  # somebody wanted it so


@pytest.mark.parametrize(
    "words",
    [
        [HOMEBODY, "init"],
        [sys.executable, "-m", "alembic", "-c", "alembic/alembic.ini", "upgrade", "head"],
    ],
)
def test_commands_make_nothing_that_others_read(data_dir: Path, words: list[str]) -> None:
    environ = {"PATH": os.environ["PATH"], **environ_of(data_dir)}

    subprocess.run(words, cwd=ROOT, env=environ, check=True, capture_output=True)

    assert (data_dir / "homebody.db").exists()
    assert readable(data_dir) == []


def test_what_others_could_read_is_mended_at_the_start(tmp_path: Path, data_dir: Path) -> None:
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    upload(alice, PNG)
    alice.close()
    running.kill()  # the WAL stays
    (data_dir / "homebody.toml").write_text('registration_shared_secret = "s3cret"\n')
    (tmp_path / "turn").write_text("secret of coturn")
    names = ("homebody.db", "signing.key", "homebody.toml", "media")
    opened = [*(data_dir / name for name in names), tmp_path / "turn"]
    beside = [data_dir / "homebody.db-wal", data_dir / "homebody.db-shm"]
    for path in (*opened, *beside):
        path.chmod(0o755)

    running = real_server.start(data_dir, turn_shared_secret_file=str(tmp_path / "turn"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in opened}
    modes_beside = [path.stat().st_mode & 0o077 for path in beside]
    running.stop()

    of_groups = {"homebody.toml": 0o750, "turn": 0o750}
    assert modes == {path.name: 0o700 for path in opened} | of_groups
    assert modes_beside == [0, 0]
    for path in opened:
        assert f"other users of this machine could read {path}: changed its mode 755 to " in (
            running.output()
        )


def test_what_others_may_read_is_left_alone(tmp_path: Path, data_dir: Path) -> None:
    registration = Path(bridge.write(tmp_path, bridge.registration(None)))
    configuration = data_dir / "homebody.toml"
    configuration.write_text("presence = false\n")  # no secret
    for path in (configuration, registration):
        path.chmod(0o644)

    running = real_server.start(data_dir, appservices=f'["{registration}"]')
    running.stop()

    assert [it.stat().st_mode & 0o777 for it in (configuration, registration)] == [0o644, 0o644]
    warnings = [line for line in running.output().splitlines() if "other users" in line]
    assert len(warnings) == 1
    assert f"may read {registration}, which contains tokens" in warnings[0]


def test_a_backup_closes_the_media_of_an_older_one(tmp_path: Path, stopped: Path) -> None:
    store(stopped, PNG)
    backup = tmp_path / "backup"
    (backup / "media" / "files").mkdir(parents=True)

    done(stopped, "backup", str(backup))
    other = tmp_path / "other"
    done(other, "restore", str(backup))

    assert (backup / "media").stat().st_mode & 0o777 == 0o700
    assert readable(other) == []
    shutil.rmtree(backup / "media")
    assert readable(backup) == []
