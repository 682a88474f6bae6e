"""`homebody backup --verify`: a backup is started where nothing leaves it, and a login succeeds."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from homebody.server import trial
from homebody.server.copies import BackupError
from tests.helpers import server as real_server
from tests.helpers.backups import PNG, done, homebody, store_upload, tree, upload
from tests.helpers.gateway import Gateway, running
from tests.helpers.live import Person
from tests.server.test_restore import add_account

LOOPBACK = {"outside_allowed": "127.0.0.1"}


def test_a_backup_of_a_server_is_verified_and_not_changed(tmp_path: Path, data_dir: Path) -> None:
    server = real_server.start(data_dir)
    alice = Person(server, "alice")
    alice.send(alice.create_room())
    upload(alice, PNG)
    alice.close()
    server.stop()
    done(data_dir, "backup", str(tmp_path / "backups" / "one.tar"))
    before = tree(tmp_path / "backups")

    verified = homebody(tmp_path / "nowhere", "backup", "--verify", f"{tmp_path}/backups/one.tar")

    assert verified.exit_code == 0, verified.output
    assert "is complete: 1 files" in verified.stdout
    assert "A server of localhost started on it, and a login succeeded" in verified.stdout
    assert tree(tmp_path / "backups") == before
    assert not (tmp_path / "nowhere").exists()


def test_a_backup_in_a_folder_is_verified_as_well(tmp_path: Path, stopped: Path) -> None:
    add_account(stopped, "@alice:example.org")
    (stopped / "homebody.toml").write_text('server_name = "example.org"\n')
    done(stopped, "backup", str(tmp_path / "backup"))
    before = tree(tmp_path / "backup")

    verified = done(tmp_path / "nowhere", "backup", "--verify", str(tmp_path / "backup"))

    assert verified["server_name"] == "example.org"
    assert tree(tmp_path / "backup") == before


def test_what_is_wrong_with_a_backup_is_reported(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    store_upload(stopped, b"one" * 1000, "1")
    done(stopped, "backup", str(tmp_path / "good.tar"))
    content = (tmp_path / "good.tar").read_bytes()
    (tmp_path / "flipped.tar").write_bytes(content.replace(b"oneone", b"onEone", 1))
    shutil.copytree(stopped, tmp_path / "unknown")
    (tmp_path / "unknown" / "homebody.toml").write_text("colour = 3\n")

    flipped = homebody(stopped, "backup", "--verify", str(tmp_path / "flipped.tar"))
    unknown = homebody(stopped, "backup", "--verify", str(tmp_path / "unknown"))

    assert (flipped.exit_code, unknown.exit_code) == (1, 2)
    assert "is damaged" in flipped.stderr
    assert "colour: no such key" in unknown.stderr
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_database_on_which_no_server_works_is_found(tmp_path: Path, stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        connection.execute("DROP TABLE to_device_messages")
        connection.execute("DROP TABLE receipts")
    done(stopped, "backup", str(tmp_path / "one.tar"))

    verified = homebody(stopped, "backup", "--verify", str(tmp_path / "one.tar"))

    assert verified.exit_code == 1
    assert verified.stderr.count("\n") == 1
    assert "The server answers GET /_matrix/client/v3/sync" in verified.stderr


def test_nothing_leaves_a_server_that_is_tried(tmp_path: Path, data_dir: Path) -> None:
    gateway = Gateway(real_server.free_port(), tmp_path / "told.jsonl")
    server = real_server.start(data_dir, **LOOPBACK)
    alice, bob = Person(server, "alice"), Person(server, "bob")
    data = {"url": gateway.url}
    pusher = {"app_id": "a", "pushkey": "k", "kind": "http", "lang": "en", "data": data}
    names = {"app_display_name": "a", "device_display_name": "d"}
    alice.ask("POST", "/pushers/set", pusher | names)
    room_id = alice.create_room(preset="public_chat")
    bob.join(room_id)
    bob.send(room_id, "alice: hello")
    for person in (alice, bob):
        person.close()
    server.stop()

    with running(gateway):
        environ = trial.environ_for(data_dir, "localhost") | {
            "HOMEBODY_OUTSIDE_ALLOWED": "127.0.0.1"
        }
        trial.log_in_once(environ, tmp_path / "log", "bob", "x" * 12)
        during = gateway.told()
        again = real_server.start(data_dir, **LOOPBACK)
        after = gateway.wait(bool)
        again.stop()

    assert during == []
    assert after


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', port))",
        "socket.socket().connect_ex(('127.0.0.1', port))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
        "socket.getaddrinfo('localhost', port)",
        "__import__('subprocess').run(['true'])",
    ],
)
def test_every_way_out_is_closed(attempt: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        program = (
            "import socket, sys\nfrom homebody.server import isolated\n"
            f"port = {port}\nsys.addaudithook(isolated.refuse)\n{attempt}\n"
        )

        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )

        assert "is refused in a trial of a backup" in ended.stderr
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_server_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "homebody.db").write_text("not a database")
    environ = trial.environ_for(tmp_path / "data", "localhost")

    with pytest.raises(BackupError, match=r"does not start on the backup: .*not a database"):
        trial.log_in_once(environ, tmp_path / "log", "alice", "password")
