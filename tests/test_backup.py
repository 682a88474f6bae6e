"""`homebody backup` and `homebody restore`, with a server that runs and one that is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from app import serving
from app.cli import main
from app.core.media import files
from tests import server as real_server
from tests.live import Person
from tests.server import RunningServer

HOMEBODY = str(Path(sys.executable).parent / "homebody")
PNG = b"\x89PNG, as far as anybody asks"


def environ_of(data_dir: Path) -> dict[str, str]:
    return {"HOMEBODY_DATA_DIR": str(data_dir), "HOMEBODY_PASSWORD_HASHING": "cheap"}


def homebody(data_dir: Path, *words: str) -> Result:
    """A finished command on this data folder, called in the test's own process."""
    others = {key: None for key in os.environ if key.startswith("HOMEBODY_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "nice", lambda _by: 0)  # all tests after this one would be slower
        return CliRunner().invoke(main, words, env={**others, **environ_of(data_dir)})


def homebody_apart(data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A finished command on this data folder, run as its owner does."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= environ_of(data_dir)
    return subprocess.run(
        [HOMEBODY, *words], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def done(data_dir: Path, *words: str) -> Any:
    """The JSON of a command that succeeds."""
    finished = homebody(data_dir, *words, "--json")
    assert finished.exit_code == 0, finished.output
    return json.loads(finished.stdout)


def upload(person: Person, content: bytes) -> str:
    return str(person.ask("POST", "/_matrix/media/v3/upload", content)["content_uri"])


def download(person: Person, uri: str) -> bytes:
    path = f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
    return person.raw("GET", path)[1]


def messages(person: Person, room_id: str) -> list[str]:
    """The texts in a room, the oldest first."""
    answer = person.ask("GET", f"/rooms/{quote(room_id)}/messages?dir=f&limit=1000")
    chunk = answer["chunk"]
    return [event["content"]["body"] for event in chunk if event["type"] == "m.room.message"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def stopped(data_dir: Path, empty_database: Path) -> Path:
    """The data folder of a server that does not run."""
    shutil.copy(empty_database, data_dir / "homebody.db")
    (data_dir / "signing.key").write_text("ed25519 a_0001 " + "A" * 43 + "\n")
    return data_dir


def store(data_dir: Path, content: bytes) -> None:
    """Put a file where uploads lie."""
    target = files.content_path(data_dir, hashlib.sha256(content).hexdigest())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def lost_and_restored(running: RunningServer, data_dir: Path, backup: Path) -> RunningServer:
    """The server of the backup, after a disk was lost."""
    running.kill()
    shutil.rmtree(data_dir)
    done(data_dir, "restore", str(backup))
    return real_server.start(data_dir)


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


def test_what_was_given_out_after_the_backup_is_not_given_out_again(
    tmp_path: Path, data_dir: Path
) -> None:
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    room_id = alice.create_room()
    alice.ask("POST", "/keys/upload", {"one_time_keys": {"curve25519:A": "key"}})
    done(data_dir, "backup", str(tmp_path / "backup"))
    for _ in range(5):
        alice.send(room_id)
    since = alice.ask("GET", "/sync")["next_batch"]

    alice.server = lost_and_restored(running, data_dir, tmp_path / "backup")
    alice.send(room_id, "news")
    answer = alice.ask("GET", f"/sync?since={since}")
    again = alice.ask("POST", "/keys/upload", {"one_time_keys": {"curve25519:A": "key"}})
    alice.close()
    alice.server.stop()

    timeline = answer["rooms"]["join"][room_id]["timeline"]["events"]
    assert [event["content"]["body"] for event in timeline] == ["news"]
    assert answer["device_one_time_keys_count"].get("curve25519", 0) == 0
    assert again["one_time_key_counts"].get("curve25519", 0) == 0


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
        ids = [connection.execute(insert).lastrowid for _ in range(2)]
    assert ids == [1_000_000_002, 1_000_000_003]


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
    assert set(modes) >= {"homebody.db", "signing.key", "homebody.toml"}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 4
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


def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, stopped: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = homebody(tmp_path / "empty", "backup", str(tmp_path / "backup"))
    no_backup = homebody(stopped, "restore", str(tmp_path / "nowhere"))
    to_itself = homebody(stopped, "backup", str(stopped))
    done(stopped, "backup", str(tmp_path / "backup"))
    over_another = homebody(stopped, "restore", str(tmp_path / "backup"))
    lock = serving.lock_data_dir(stopped)  # as a server does that runs
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
