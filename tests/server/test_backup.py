"""`homebody backup`, of a server that runs and of one that does not."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from homebody.server import copies
from homebody.storage import data_folder, fsync
from tests.helpers import killing
from tests.helpers import server as real_server
from tests.helpers.backups import (
    PNG,
    done,
    download,
    homebody,
    homebody_apart,
    lost_and_restored,
    messages,
    store,
    store_upload,
    tree,
    upload,
)
from tests.helpers.live import Person


def test_what_was_backed_up_while_many_wrote_comes_back(tmp_path: Path, data_dir: Path) -> None:
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    room_id = alice.create_room()
    uri = upload(alice, PNG)
    sent = [alice.send(room_id, f"before-{number}") for number in range(20)]
    stopping = threading.Event()

    def go_on() -> None:
        number = 0
        twin = alice.again()
        while not stopping.is_set():
            sent.append(twin.send(room_id, f"during-{number}"))
            number += 1
        twin.close()

    writer = threading.Thread(target=go_on)
    writer.start()
    finished = homebody_apart(data_dir, "backup", str(tmp_path / "backup"), "--json")
    stopping.set()
    writer.join()
    alice.server = lost_and_restored(running, data_dir, tmp_path / "backup")
    found = messages(alice, room_id)
    new = alice.send(room_id, "after")
    file = download(alice, uri)
    alice.close()
    alice.server.stop()

    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    assert (told["files"], told["new_files"], told["new_bytes"]) == (1, 1, len(PNG))
    assert told["database_bytes"] > 100_000
    assert found[:20] == [f"before-{number}" for number in range(20)]
    assert found[20:] == [f"during-{number}" for number in range(len(found) - 20)]
    assert new not in sent
    assert file == PNG


def test_a_second_backup_takes_only_what_is_new(tmp_path: Path, stopped: Path) -> None:
    backup = str(tmp_path / "backup")
    store(stopped, b"one")
    first = done(stopped, "backup", backup)
    store(stopped, b"another")

    second = done(stopped, "backup", backup)

    assert (first["files"], first["new_files"]) == (1, 1)
    assert (second["files"], second["new_files"], second["new_bytes"]) == (2, 1, len(b"another"))


def test_nobody_else_reads_a_backup(tmp_path: Path, stopped: Path) -> None:
    store(stopped, PNG)
    (stopped / "homebody.toml").write_text("presence = false\n")
    backup = tmp_path / "deep" / "backup"

    done(stopped, "backup", str(backup))

    modes = {path.name: path.stat().st_mode & 0o777 for path in backup.rglob("*") if path.is_file()}
    assert set(modes) >= {"homebody.db", "signing.key", "homebody.toml", "manifest.json"}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 5
    assert backup.stat().st_mode & 0o777 == 0o700


def test_a_damaged_database_does_not_replace_a_good_backup(tmp_path: Path, stopped: Path) -> None:
    backup = tmp_path / "backup"
    done(stopped, "backup", str(backup))
    good = (backup / "homebody.db").read_bytes()
    with (stopped / "homebody.db").open("r+b") as file:
        file.seek(4096 * 10)
        file.write(b"\xff" * 4096 * 40)

    refused = homebody(stopped, "backup", str(backup))

    assert refused.exit_code == 1
    assert "can't be copied" in refused.stderr
    assert (backup / "homebody.db").read_bytes() == good
    assert not list(backup.glob("*.new"))


def test_a_damaged_file_does_not_replace_a_good_copy_of_it(tmp_path: Path, stopped: Path) -> None:
    backup = tmp_path / "backup"
    short, changed = store_upload(stopped, b"first", "1"), store_upload(stopped, b"other", "2")
    done(stopped, "backup", str(backup))
    never = store_upload(stopped, b"never", "3")
    short.write_bytes(b"fir")
    changed.write_bytes(b"0ther")
    never.unlink()

    copied = homebody(stopped, "backup", str(backup), "--json")

    assert copied.exit_code == 0
    assert json.loads(copied.stdout)["lost_files"] == 1
    assert copied.stderr == "homebody: 1 files that users uploaded are missing or damaged\n"
    kept = {path.read_bytes() for path in (backup / "media").rglob("*") if path.is_file()}
    assert kept == {b"first", b"other"}


def test_a_backup_never_gets_among_the_files_of_the_server(tmp_path: Path, stopped: Path) -> None:
    store(stopped, PNG)
    (tmp_path / "link").symlink_to(stopped / "media")
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "media").symlink_to(stopped / "media")
    before = tree(tmp_path)

    inside = [homebody(stopped, "backup", str(it)) for it in (stopped / "media", stopped / "a/b")]
    linked = homebody(stopped, "backup", str(tmp_path / "link"))
    around = homebody(stopped, "backup", str(tmp_path / "around"))

    assert [it.exit_code for it in (*inside, linked, around)] == [1, 1, 1, 1]
    assert all("is inside the data folder" in it.stderr for it in (*inside, linked))
    assert "has the server's own files in it" in around.stderr
    assert tree(tmp_path) == before


def test_two_backups_do_not_mix(tmp_path: Path, stopped: Path) -> None:
    backup = tmp_path / "backup"
    done(stopped, "backup", str(backup))

    with fsync.held(backup):  # as a backup does that is under way
        second = homebody(stopped, "backup", str(backup))
        way_back = homebody(tmp_path / "other", "restore", str(backup))

    assert (second.exit_code, way_back.exit_code) == (1, 1)
    assert "is writing a backup" in second.stderr
    assert "is writing a backup" in way_back.stderr


@pytest.mark.parametrize("most", killing.HOW_MANY)
def test_a_backup_that_is_killed_leaves_the_older_one_whole(
    tmp_path: Path, stopped: Path, most: int
) -> None:
    (stopped / "homebody.toml").write_text("presence = false\n")
    store_upload(stopped, b"one", "1")
    older = tmp_path / "older"
    done(stopped, "backup", str(older))
    store_upload(stopped, b"another", "2")
    (stopped / "homebody.toml").write_text("presence = true\n")

    for number, moment in enumerate(killing.moments(stopped, "backup", older, tmp_path, most)):
        backup, other = tmp_path / f"backup-{number}", tmp_path / f"other-{number}"
        shutil.copytree(older, backup)
        killing.run(stopped, "backup", backup, moment)
        restored = done(other, "restore", str(backup))

        assert restored["files"] in {1, 2}
        assert restored["lost_files"] == 0
        again = done(stopped, "backup", str(backup))
        assert again["files"] == 2
        assert not [path for path in backup.rglob("*") if path.name.endswith(".new")]


def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, stopped: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = homebody(tmp_path / "empty", "backup", str(tmp_path / "backup"))
    no_backup = homebody(stopped, "restore", str(tmp_path / "nowhere"))
    to_itself = homebody(stopped, "backup", str(stopped))
    done(stopped, "backup", str(tmp_path / "backup"))
    over_another = homebody(stopped, "restore", str(tmp_path / "backup"))
    lock = data_folder.lock_data_dir(stopped)  # as a server does that runs
    under_a_server = homebody(stopped, "restore", str(tmp_path / "backup"))
    os.close(lock)

    refusals = [nothing, no_backup, to_itself, over_another, under_a_server]
    assert [it.exit_code for it in refusals] == [1, 1, 1, 1, 2]
    assert all(it.stderr.count("\n") == 1 for it in refusals)
    assert "There is no database" in nothing.stderr
    assert "There is no backup" in no_backup.stderr
    assert "the data folder itself" in to_itself.stderr
    assert "move it away first" in over_another.stderr
    assert "Another homebody is running" in under_a_server.stderr


def test_a_file_that_is_deleted_meanwhile_does_not_end_a_backup(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(stopped, b"one")
    store(stopped, b"another")
    before = copies.media

    def delete_one(folder: Path) -> dict[str, Path]:
        found = before(folder)
        if folder.is_relative_to(stopped):
            next(iter(found.values())).unlink()
        return found

    monkeypatch.setattr(copies, "media", delete_one)

    made = done(stopped, "backup", str(tmp_path / "backup"))

    assert (made["files"], made["new_files"]) == (1, 1)
