"""The schedule of backups: when they are made, by a process of their own, and what fails."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homebody.background.backups import Backups
from homebody.config.tables import Backup
from homebody.runtime.metrics import Metrics
from homebody.storage import backup_folder
from tests.helpers import server as real_server
from tests.helpers.backups import done, homebody, tree
from tests.helpers.live import Person
from tests.helpers.waiting import wait_for

HOUR_MS = 3_600_000
Start = Callable[..., Metrics]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a schedule whose command is a program in Python; `out` is the folder in it."""
    started: list[Backups] = []

    def start_one(program: str, every_ms: int = HOUR_MS, retry_s: float = 0.05) -> Metrics:
        metrics = Metrics()
        command = (
            sys.executable,
            "-c",
            f"import pathlib; out = pathlib.Path({str(folder)!r})\n{program}",
        )
        settings = Backup(folder=folder, every_ms=every_ms)
        started.append(Backups(settings, metrics, command, first_s=0.0, retry_s=retry_s))
        started[-1].start()
        return metrics

    yield start_one
    for it in started:
        it.stop()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_backup_is_made_when_there_is_none(start: Start, folder: Path) -> None:
    name = backup_folder.name_of(now_ms())

    metrics = start(f"(out / {name!r}).touch(); print('made')")
    wait_for(lambda: metrics.backups.counts["succeeded"] == 1)
    time.sleep(0.3)

    assert metrics.backups.counts == {"succeeded": 1, "failed": 0}
    assert [it.name for it in folder.iterdir()] == [name]


def test_the_time_of_the_latest_file_counts(start: Start, folder: Path) -> None:
    (folder / backup_folder.name_of(now_ms() - HOUR_MS // 2)).touch()
    waiting = start("(out / 'early').touch()")
    time.sleep(0.3)
    too_early = (folder / "early").exists()

    due = start(f"(out / {backup_folder.name_of(now_ms())!r}).touch()", every_ms=HOUR_MS // 3)
    wait_for(lambda: due.backups.counts["succeeded"] == 1)

    assert not too_early
    assert waiting.backups.counts == {"succeeded": 0, "failed": 0}


def test_a_file_from_the_future_delays_nothing(start: Start, folder: Path) -> None:
    (folder / backup_folder.name_of(now_ms() + 1000 * HOUR_MS)).touch()

    metrics = start(f"(out / {backup_folder.name_of(now_ms())!r}).touch()")
    wait_for(lambda: metrics.backups.counts["succeeded"] == 1)
    time.sleep(0.2)

    assert metrics.backups.counts["succeeded"] == 1


def test_a_failure_is_logged_and_tried_again(
    start: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = backup_folder.name_of(now_ms())
    program = (
        "import sys\n"
        "if (out / 'tried').exists(): (out / NAME).touch(); sys.exit()\n"
        "(out / 'tried').touch(); sys.exit('homebody: the disk is full')"
    ).replace("NAME", repr(name))

    with caplog.at_level(logging.WARNING):
        metrics = start(program)
        wait_for(lambda: metrics.backups.counts["succeeded"] == 1)

    assert metrics.backups.counts == {"succeeded": 1, "failed": 1}
    assert "the backup failed, and is tried again in 0 s: the disk is full" in caplog.text


def test_a_stop_ends_the_backup_that_is_being_made(folder: Path) -> None:
    program = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(folder)!r}, str(os.getpid())).touch(); time.sleep(60)"
    )
    command = (sys.executable, "-c", program)
    backups = Backups(Backup(folder=folder), Metrics(), command, first_s=0.0)
    backups.start()
    wait_for(lambda: any(folder.iterdir()))
    (process,) = (int(it.name) for it in folder.iterdir())

    backups.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_no_folder_means_no_backups(tmp_path: Path) -> None:
    backups = Backups(Backup(), Metrics(), ("/bin/touch", str(tmp_path / "file")), first_s=0.0)

    backups.start()
    backups.stop()

    assert not (tmp_path / "file").exists()


def test_a_running_server_backs_itself_up(
    data_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.helpers.backups.environ_of", lambda it: environ(it, folder))
    server = real_server.start(
        data_dir, backup__folder=str(folder), backup__every="1 min", log_level="INFO"
    )
    alice = Person(server, "alice")
    until = time.monotonic() + 60
    while not (listed := done(data_dir, "backup", "list")):
        assert time.monotonic() < until, server.output()
        time.sleep(0.5)
    time.sleep(0.5)
    _, metrics = alice.raw("GET", "/metrics")
    alice.close()
    server.stop()

    assert f"backup: Backed up to {listed[0]['file']}" in server.output()
    assert b'homebody_backups_total{outcome="succeeded"} 1.0' in metrics
    assert b"homebody_backup_last_success_timestamp_seconds" in metrics
    assert done(data_dir.parent / "other", "restore", listed[0]["file"])["database_bytes"]


def environ(data_dir: Path, folder: Path) -> dict[str, str]:
    return {"HOMEBODY_DATA_DIR": str(data_dir), "HOMEBODY_BACKUP__FOLDER": str(folder)}


@pytest.fixture
def scheduled(stopped: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stopped server with a folder for backups, of which two are kept."""
    settings = {**environ(stopped, folder), "HOMEBODY_BACKUP__KEEP": "2"}
    monkeypatch.setattr("tests.helpers.backups.environ_of", lambda _: settings)
    return stopped


def test_the_oldest_backups_are_deleted_after_a_new_one(scheduled: Path, folder: Path) -> None:
    old = [folder / f"homebody-2025010{day}T000000Z.tar" for day in (1, 2, 3)]
    for file in (*old, folder / "mine.tar"):
        file.touch()

    made = done(scheduled, "backup", "run")

    listed = done(scheduled, "backup", "list")
    assert [it["file"] for it in listed] == [made["file"], str(old[2])]
    assert made["deleted"] == [old[1].name, old[0].name]
    assert (folder / "mine.tar").exists()
    assert homebody(scheduled, "backup", "list").stdout.count("\n") == 2


def test_a_backup_that_fails_deletes_nothing(scheduled: Path, folder: Path) -> None:
    for day in (1, 2, 3):
        (folder / f"homebody-2025010{day}T000000Z.tar").touch()
    before = tree(folder)
    (scheduled / "signing.key").unlink()

    refused = homebody(scheduled, "backup", "run", "--json")

    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["error"].endswith("signing.key is missing")
    assert tree(folder) == before


def test_a_folder_that_is_not_there_is_not_made(scheduled: Path, folder: Path) -> None:
    folder.rmdir()

    refused = homebody(scheduled, "backup", "run")

    assert refused.exit_code == 1
    assert f"backup.folder: there is no folder {folder}" in refused.stderr
    assert not folder.exists()


def test_sigterm_leaves_nothing_half_done(scheduled: Path, folder: Path) -> None:
    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("homebody.server.archiving.Writer.finish", stop)
        ended = homebody(scheduled, "backup", "run")

    assert ended.exit_code == 1
    assert tree(folder) == {}
