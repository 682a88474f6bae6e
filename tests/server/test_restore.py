"""`homebody restore`: a server that is lost comes back whole, or nothing happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from homebody.storage import migrations
from tests.helpers import killing
from tests.helpers import server as real_server
from tests.helpers.backups import (
    done,
    homebody,
    homebody_apart,
    lost_and_restored,
    store_upload,
    tree,
)
from tests.helpers.live import Person
from tests.helpers.server import ROOT

MARKER = "homebody.restoring"


@pytest.fixture
def backup(tmp_path: Path, stopped: Path) -> Path:
    """A backup with two files that were uploaded, and a configuration."""
    (stopped / "homebody.toml").write_text('server_name = "example.org"\n')
    add_account(stopped, "@alice:example.org")
    store_upload(stopped, b"one" * 1000, "1")
    store_upload(stopped, b"another", "2")
    done(stopped, "backup", str(tmp_path / "backup"))
    return tmp_path / "backup"


def add_account(data_dir: Path, user_id: str) -> None:
    columns = "user_id, created_ts, is_admin, is_guest, is_locked, is_suspended"
    with closing(sqlite3.connect(data_dir / "homebody.db")) as connection, connection:
        connection.execute(
            f"INSERT INTO accounts ({columns}) VALUES (?, 0, 1, 0, 0, 0)",  # noqa: S608 - ours
            (user_id,),
        )


def uploads(data_dir: Path) -> set[bytes]:
    found = (data_dir / "media" / "files").rglob("*")
    return {path.read_bytes() for path in found if path.is_file()}


def position(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "homebody.db")) as connection:
        return int(connection.execute("SELECT position FROM clock").fetchone()[0])


def test_what_was_given_out_after_the_backup_is_not_given_out_again(
    tmp_path: Path, data_dir: Path
) -> None:
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    room_id = alice.create_room()
    alice.ask("POST", "/keys/upload", {"one_time_keys": {"curve25519:A": "key"}})
    delayed = {"delay_ms": 3_600_000, "content": {"body": "sent meanwhile"}}
    path = f"/rooms/{room_id}/delayed_event/m.room.message/t"
    delay_id = alice.ask("PUT", path, delayed)["delay_id"]
    done(data_dir, "backup", str(tmp_path / "backup"))
    for _ in range(5):
        alice.send(room_id)
    since = alice.ask("GET", "/sync")["next_batch"]

    alice.server = lost_and_restored(running, data_dir, tmp_path / "backup")
    alice.send(room_id, "news")
    answer = alice.ask("GET", f"/sync?since={since}")
    again = alice.ask("POST", "/keys/upload", {"one_time_keys": {"curve25519:A": "key"}})
    of_delayed = alice.ask("GET", f"/org.matrix.msc4140/delayed_events/{delay_id}")
    alice.close()
    alice.server.stop()

    timeline = answer["rooms"]["join"][room_id]["timeline"]["events"]
    assert [event["content"]["body"] for event in timeline] == ["news"]
    assert "finalised_ts" in of_delayed
    assert "event_id" not in of_delayed
    assert answer["device_one_time_keys_count"].get("curve25519", 0) == 0
    assert again["one_time_key_counts"].get("curve25519", 0) == 0


def test_device_lists_of_other_servers_and_what_clients_have_is_not_known(
    tmp_path: Path, stopped: Path
) -> None:
    tables = {
        "remote_users": "('@carol:b.test', 1, 0, NULL, NULL)",
        "remote_devices": "('@carol:b.test', 'PHONE', '{}', NULL)",
        "sync_connections": "('@alice:localhost', 'PHONE', '', x'00', 1, 1, x'00', 0)",
    }
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        for table, row in tables.items():
            connection.execute(f"INSERT INTO {table} VALUES {row}")  # noqa: S608 - ours
    done(stopped, "backup", str(tmp_path / "backup"))
    restored = tmp_path / "restored"
    restored.mkdir()

    done(restored, "restore", str(tmp_path / "backup"))

    with closing(sqlite3.connect(restored / "homebody.db")) as connection:
        for table in tables:
            assert connection.execute(f"SELECT * FROM {table}").fetchall() == []  # noqa: S608 - ours


def test_filters_and_key_backups_of_the_lost_server_are_not_taken_for_new_ones(
    tmp_path: Path, data_dir: Path
) -> None:
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    other = {"room": {"timeline": {"limit": 1}}}
    filters = f"/user/{alice.user_id}/filter"
    algorithm = "m.megolm_backup.v1.curve25519-aes-sha2"
    backup = {"algorithm": algorithm, "auth_data": {"public_key": "A" * 43}}
    kept = alice.ask("POST", "/room_keys/version", backup)["version"]
    done(data_dir, "backup", str(tmp_path / "backup"))
    lost_filters = [
        alice.ask("POST", filters, {"room": {"rooms": [it]}}) for it in ("!a:b", "!c:d")
    ]
    lost_versions = [alice.ask("POST", "/room_keys/version", backup) for _ in range(2)]

    alice.server = lost_and_restored(running, data_dir, tmp_path / "backup")
    new_filter = alice.ask("POST", filters, other)
    current = alice.ask("GET", "/room_keys/version")
    new_version = alice.ask("POST", "/room_keys/version", backup)
    alice.close()
    alice.server.stop()

    assert new_filter not in lost_filters
    assert new_version not in lost_versions
    assert current["version"] == kept
    assert int(current["etag"]) > 1_000_000_000


def test_numbers_that_bridges_know_are_not_used_again(tmp_path: Path, stopped: Path) -> None:
    insert = (
        "INSERT INTO outbox (kind, destination, payload, created_ts, tries, next_try_ts)"
        " VALUES ('none', 'x', '{}', 0, 0, 0)"
    )
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        connection.execute(insert)
    done(stopped, "backup", str(tmp_path / "backup"))
    other = tmp_path / "other"

    done(other, "restore", str(tmp_path / "backup"))

    with closing(sqlite3.connect(other / "homebody.db")) as connection, connection:
        ids = [connection.execute(insert).lastrowid or 0 for _ in range(2)]
    assert ids[0] > 1_000_000_000
    assert ids[1] == ids[0] + 1


def test_the_configuration_in_the_backup_is_that_of_the_restored_server(
    tmp_path: Path, data_dir: Path
) -> None:
    (data_dir / "homebody.toml").write_text(
        'server_name = "example.org"\nregistration = "open"\nregistration_open_to_all = true\n'
    )
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    room_id = alice.create_room()
    done(data_dir, "backup", str(tmp_path / "backup"))
    for _ in range(5):
        alice.send(room_id)
    since = alice.ask("GET", "/sync")["next_batch"]

    alice.server = lost_and_restored(running, data_dir, tmp_path / "backup")
    alice.send(room_id, "news")
    answer = alice.ask("GET", f"/sync?since={since}")
    alice.close()
    alice.server.stop()

    assert alice.user_id == "@alice:example.org"
    timeline = answer["rooms"]["join"][room_id]["timeline"]["events"]
    assert [event["content"]["body"] for event in timeline] == ["news"]


def test_a_server_that_is_restored_twice_gives_out_new_numbers(
    tmp_path: Path, stopped: Path
) -> None:
    done(stopped, "backup", str(tmp_path / "backup"))

    done(tmp_path / "first", "restore", str(tmp_path / "backup"))
    done(tmp_path / "second", "restore", str(tmp_path / "backup"))

    assert position(tmp_path / "first") > position(stopped) + 1_000_000_000
    assert position(tmp_path / "second") > position(tmp_path / "first")


def test_a_machine_whose_clock_is_not_set_leaves_as_much_out(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(stopped, "backup", str(tmp_path / "backup"))
    monkeypatch.setattr("time.time_ns", lambda: 5 * 10**9)  # 1970: a board without a battery

    done(tmp_path / "new", "restore", str(tmp_path / "backup"))

    assert position(tmp_path / "new") > position(stopped) + 1_000_000_000


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def media_of(backup: Path) -> Path:
    return next(path for path in (backup / "media" / "files").rglob("*") if path.is_file())


@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("media", Path.unlink, "is missing"),
        ("media", truncate, "is damaged"),
        ("media", change, "is damaged"),
        ("signing.key", Path.unlink, "is missing"),
        ("signing.key", truncate, "is damaged"),
        ("homebody.db", truncate, ""),
        ("homebody.db", Path.unlink, "is missing"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused_and_nothing_is_changed(
    tmp_path: Path,
    backup: Path,
    name: str,
    spoil: Callable[[Path], None],
    reason: str,
    *,
    has_manifest: bool,
) -> None:
    if not has_manifest:
        (backup / "manifest.json").unlink()
    file = media_of(backup) if name == "media" else backup / name
    good = file.read_bytes()
    spoil(file)
    (tmp_path / "empty").mkdir()

    refused = homebody(tmp_path / "other", "restore", str(backup))
    refused_in_folder = homebody(tmp_path / "empty", "restore", str(backup))
    is_there = (tmp_path / "other").exists()
    file.write_bytes(good)
    restored = done(tmp_path / "empty", "restore", str(backup))

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert reason in refused.stderr
    assert refused_in_folder.stderr == refused.stderr
    assert not is_there
    assert restored["files"] == 2
    assert uploads(tmp_path / "empty") == {b"one" * 1000, b"another"}


@pytest.mark.parametrize("name", ["homebody.toml", "homebody.db", "signing.key"])
def test_what_was_changed_in_a_backup_is_found(tmp_path: Path, backup: Path, name: str) -> None:
    change(backup / name)

    refused = homebody(tmp_path / "other", "restore", str(backup))

    assert refused.exit_code in {1, 2}
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_media_that_are_damaged_are_left_out_where_that_is_wanted(
    tmp_path: Path, backup: Path
) -> None:
    truncate(media_of(backup))

    restored = homebody(
        tmp_path / "other", "restore", str(backup), "--skip-damaged-media", "--json"
    )

    assert json.loads(restored.stdout)["lost_files"] == 1
    assert restored.stderr == "homebody: 1 files that users uploaded are missing or damaged\n"
    assert len(uploads(tmp_path / "other")) == 1


def test_a_file_that_the_server_had_lost_before_does_not_keep_it_from_coming_back(
    tmp_path: Path, stopped: Path
) -> None:
    store_upload(stopped, b"lost").unlink()
    done(stopped, "backup", str(tmp_path / "backup"))

    restored = done(tmp_path / "other", "restore", str(tmp_path / "backup"))

    assert (restored["files"], restored["lost_files"]) == (0, 1)


def test_a_plain_copy_of_a_data_folder_is_a_backup(tmp_path: Path, stopped: Path) -> None:
    store_upload(stopped, b"one")
    before = position(stopped)
    connection = sqlite3.connect(stopped / "homebody.db")
    connection.execute("UPDATE clock SET position = 1234")
    connection.commit()
    shutil.copytree(stopped, tmp_path / "copy")  # with what is in the WAL only
    connection.close()

    done(tmp_path / "other", "restore", str(tmp_path / "copy"))

    assert (tmp_path / "copy" / "homebody.db-wal").exists()
    assert before != 1234
    assert position(tmp_path / "other") > 1234
    assert uploads(tmp_path / "other") == {b"one"}


def test_the_name_of_the_server_is_looked_at_before_anything_is_copied(
    tmp_path: Path, backup: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "homebody.toml").write_text('server_name = "example.com"\n')

    refused = homebody(other, "restore", str(backup))

    assert refused.exit_code == 2
    assert "server_name is example.com, but the accounts in the database are of" in refused.stderr
    assert tree(other) == {"homebody.toml": b'server_name = "example.com"\n'}


def test_a_configuration_that_is_there_stays(tmp_path: Path, backup: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = 'server_name = "example.org"\npublic_url = "https://new.example.org"\n'
    (other / "homebody.toml").write_text(text)

    done(other, "restore", str(backup))

    assert (other / "homebody.toml").read_text() == text


def test_a_backup_of_another_data_folder_needs_to_be_told_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: Path
) -> None:
    (stopped / "homebody.toml").write_text(f'data_dir = "{stopped}"\n')
    done(stopped, "backup", str(tmp_path / "backup"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("tests.helpers.backups.environ_of", lambda _folder: {})

    refused = homebody(tmp_path, "restore", str(tmp_path / "backup"))

    assert refused.exit_code == 1
    assert f"is for the data folder {stopped}, not for {tmp_path}/elsewhere/data" in refused.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["homebody.db", "homebody.db-wal", "signing.key", "media/files/ab/" + "c" * 62]
)
def test_nothing_is_restored_over_what_is_there(tmp_path: Path, backup: Path, name: str) -> None:
    other = tmp_path / "other"
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text("mine")
    before = tree(other)

    refused = homebody(other, "restore", str(backup))

    assert refused.exit_code == 1
    assert "already: move" in refused.stderr
    assert tree(other) == before


@pytest.mark.parametrize("writes", [0, 1, 3, 5, 8])
def test_a_disk_that_fails_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backup: Path, writes: int
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    fsync, left = os.fsync, [writes]

    def fail(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        refused = homebody(other, "restore", str(backup))
    found = tree(other)
    done(other, "restore", str(backup))

    assert refused.exit_code == 1
    assert "No space left on device" in refused.stderr
    assert found == {"notes.txt": b"mine"}


@pytest.mark.parametrize("most", killing.HOW_MANY)
def test_what_was_killed_can_not_be_used_and_is_done_again(
    tmp_path: Path, backup: Path, most: int
) -> None:
    half_done = 0
    for number, moment in enumerate(killing.moments(tmp_path, "restore", backup, tmp_path, most)):
        other = tmp_path / f"other-{number}"
        killing.run(other, "restore", backup, moment)
        before = tree(other)
        if MARKER in before:
            half_done += 1
            served = homebody_apart(other, "serve")
            asked = [homebody(other, *words) for words in (("user", "list"), ("init",))]
            asked.append(homebody(other, "backup", str(tmp_path / "second")))

            assert (served.returncode, served.stderr.count("\n")) == (2, 1)
            assert "is only partly restored from a backup" in served.stderr
            assert [it.exit_code for it in asked] == [2, 2, 2]
            assert tree(other) == before
        if MARKER in before or "homebody.db" not in before:
            assert done(other, "restore", str(backup))["files"] == 2

        assert uploads(other) == {b"one" * 1000, b"another"}
        assert position(other) > 1_000_000_000
        assert MARKER not in tree(other)
        assert homebody(other, "user", "list").stdout.startswith("@alice:example.org ")
        assert not [name for name in tree(other) if name.endswith(".new")]
    assert half_done > 4


def test_a_backup_in_the_data_folder_itself_is_refused(tmp_path: Path, backup: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(backup, other / "backup")

    refused = homebody(other, "restore", str(other / "backup"))

    assert refused.exit_code == 1
    assert "is inside the data folder" in refused.stderr
    assert not (other / "homebody.db").exists()


def test_a_backup_of_a_newer_homebody_is_refused(tmp_path: Path, stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    shutil.copytree(stopped, tmp_path / "backup")

    refused = homebody(tmp_path / "other", "restore", str(tmp_path / "backup"))

    assert refused.exit_code == 2
    assert "The database is of a newer homebody (migration 9999; this one " in refused.stderr
    assert not (tmp_path / "other").exists()


def test_a_backup_of_an_older_homebody_is_brought_up_to_date(tmp_path: Path, stopped: Path) -> None:
    steps = migrations.known()
    (stopped / "homebody.db").unlink()
    url = f"sqlite:///{stopped}/homebody.db"
    alembic(url, steps[-2])
    done(stopped, "backup", str(tmp_path / "backup"))

    done(tmp_path / "other", "restore", str(tmp_path / "backup"))

    restored = f"sqlite:///{tmp_path}/other/homebody.db"
    assert [migrations.current(it) for it in (url, restored)] == [steps[-2], steps[-1]]


def alembic(url: str, step: str) -> None:
    command = [sys.executable, "-m", "alembic", "-c", "alembic/alembic.ini", "-x", f"url={url}"]
    subprocess.run([*command, "upgrade", step], cwd=ROOT, check=True, capture_output=True)
