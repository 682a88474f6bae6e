"""The commands `homebody media …` and `homebody disk`, beside a server."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from homebody.background import upkeep
from homebody.cli import main
from homebody.cli.disk import human
from homebody.core import audit, tasks
from homebody.core.administration import disk_usage
from homebody.core.federation import remote_media
from homebody.models.events import StoredEvent
from homebody.models.media import Media, RemoteMediaFile
from homebody.storage import data_folder, rewriting
from homebody.web import Application
from tests.client_server.test_media import TEXT, download, upload
from tests.conftest import Login, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import unchanged

Run = Callable[..., Result]
DAY_MS = 86_400_000


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def run(app: Application, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.homeserver.database.server.config.data_dir))

    def start(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(main, words, **options)

    return start


@pytest.fixture
def result(run: Run, app: Application) -> Callable[..., Any]:
    """The JSON that a command prints; the server has noticed what it wrote."""

    def start(*words: str, **options: Any) -> Any:
        done = run(*words, "--json", **options)
        assert done.exit_code == 0, done.output
        app.homeserver.database.notice_other_writers()
        return json.loads(done.stdout)

    return start


def disk(tmp_path: Path) -> int:
    folder = tmp_path / "media"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def actions(app: Application) -> list[str]:
    with app.homeserver.database.read() as tx:
        found = audit.latest(tx, 100)
    assert {it["actor"] for it in found} <= {audit.COMMAND_LINE}
    return [it["action"] for it in found]


def grow_old(app: Application, days: int) -> None:
    with app.homeserver.database.write() as tx:
        ts = tx.now_ms - days * DAY_MS
        tx.sql.execute(update(Media).values(created_ts=ts, last_used_ts=None))
        tx.sql.execute(update(RemoteMediaFile).values(last_used_ts=ts))


def test_files_are_listed_and_shown(result: Callable[..., Any], run: Run, alice: Person) -> None:
    media = upload(alice, filename="notes.txt")

    (found,) = result("media", "list", "alice")

    assert (found["uri"], found["media_length"]) == (f"mxc://{media}", len(TEXT))
    line = run("media", "list", "alice").output
    assert f"mxc://{media}  35 bytes  text/plain  notes.txt" in line
    assert result("media", "show", f"mxc://{media}")["user_id"] == alice.user_id
    assert "notes.txt" in run("media", "show", media.partition("/")[2]).output


def test_files_are_deleted_from_the_disk(
    result: Callable[..., Any], app: Application, alice: Person, tmp_path: Path
) -> None:
    one, others = upload(alice), [upload(alice, bytes(size)) for size in (1, 2)]

    done = result("media", "delete", f"mxc://{one}", "--yes")

    assert done == {"files": 1, "freed_bytes": len(TEXT)}
    assert [download(alice, it).status_code for it in (one, *others)] == [404, 200, 200]
    assert result("media", "delete", "--user", "alice", "--yes") == {"files": 2, "freed_bytes": 3}
    assert result("media", "delete", "--user", "alice") == {"files": 0, "freed_bytes": 0}
    assert disk(tmp_path) == 0
    assert actions(app) == ["media.delete"] * 3


def test_nothing_is_deleted_without_confirmation(run: Run, app: Application, alice: Person) -> None:
    media = upload(alice)

    with unchanged(app):
        done = run("media", "delete", media, input="n\n")

    assert done.exit_code == 1
    assert "Delete 1 files forever?" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "--yes"),
        ("delete", "mxc://b.test/x", "--yes"),
        ("delete", "not an uri", "--yes"),
        ("show", "mxc://localhost/nothing"),
        ("list", "nobody"),
        ("protect", "nothing"),
        ("quarantine",),
        ("quota", "nobody", "5 MiB"),
        ("quota", "alice", "much"),
        ("delete-unused",),
        ("purge-remote", "--days", "0"),
    ],
)
def test_what_is_wrong_changes_nothing(
    run: Run, app: Application, alice: Person, words: tuple[str, ...]
) -> None:
    upload(alice)

    with unchanged(app):
        done = run("media", *words)

    assert done.exit_code in {1, 2}
    assert done.stderr


def test_unused_files_are_deleted_by_age_and_size(
    result: Callable[..., Any], app: Application, alice: Person
) -> None:
    small, large, avatar = (upload(alice, bytes(size)) for size in (1, 2000, 3000))
    encrypted = upload(alice, bytes(4000), "application/octet-stream")
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": f"mxc://{avatar}"})
    words = ("media", "delete-unused", "--days", "10", "--larger-than", "1 KiB", "--yes")
    assert result(*words)["files"] == 0

    grow_old(app, 11)

    assert result(*words) == {"files": 1, "freed_bytes": 2000}
    found = [download(alice, it).status_code for it in (small, large, avatar, encrypted)]
    assert found == [200, 404, 200, 200]
    grow_old(app, 11)
    assert result(*words, "--with-encrypted") == {"files": 1, "freed_bytes": 4000}


def test_files_of_other_servers_are_purged(
    remote: Remotes,
    result: Callable[..., Any],
    app: Application,
    alice: Person,
    tmp_path: Path,
) -> None:
    remote("b.test").media["cat"] = ("text/plain", TEXT)
    assert download(alice, "b.test/cat").status_code == 200
    grow_old(app, 11)
    assert result("media", "purge-remote", "--days", "12")["files"] == 0

    done = result("media", "purge-remote", "--days", "10")

    assert done == {"files": 1, "freed_bytes": len(TEXT)}
    assert disk(tmp_path) == 0
    assert actions(app) == ["media.purge_remote"] * 2


def test_a_purge_of_remote_files_that_fails_is_in_the_audit_log(
    run: Run, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remote_media, "delete_unused", fail)

    done = run("media", "purge-remote", "--days", "10")

    assert (done.exit_code, done.stderr) == (1, "homebody: No space left on device\n")
    assert actions(app) == ["media.purge_remote"]


def test_files_are_quarantined_protected_and_released(
    result: Callable[..., Any], app: Application, alice: Person
) -> None:
    one, spared, in_room = (upload(alice, bytes(size)) for size in (1, 2, 3))
    room = alice.create_room()
    alice.send(room, msgtype="m.file", url=f"mxc://{in_room}")

    def found() -> list[int]:
        return [download(alice, it).status_code for it in (one, spared, in_room)]

    result("media", "protect", spared)
    assert result("media", "quarantine", "--user", "alice") == {"files": 2}
    assert found() == [404, 200, 404]
    result("media", "unquarantine", f"mxc://{one}")
    result("media", "unquarantine", f"mxc://{in_room}")
    assert found() == [200, 200, 200]
    assert result("media", "quarantine", "--room", room) == {"files": 1}
    assert found() == [200, 200, 404]
    result("media", "unprotect", spared)
    assert result("media", "quarantine", spared, "b.test/cat") == {"files": 2}
    assert found() == [200, 404, 404]
    assert actions(app)[-1] == "media.protect"


def test_quotas_are_set_listed_and_lifted(
    result: Callable[..., Any], run: Run, app: Application, alice: Person
) -> None:
    upload(alice, bytes(2**20))

    found = result("media", "quota", "alice", "5 MiB")

    assert found == {"user_id": alice.user_id, "max_bytes": 5 * 2**20, "used_bytes": 2**20}
    assert result("media", "quota") == [{"user_id": alice.user_id, "max_bytes": 5 * 2**20}]
    assert run("media", "quota", "alice").output == (
        f"{alice.user_id} may have 5.0 MiB, and has 1.0 MiB\n"
    )
    assert alice.get("/_matrix/media/v3/config").get_json() == {"m.upload.size": 5 * 2**20}
    assert result("media", "quota", "alice", "0")["max_bytes"] == 0
    assert result("media", "quota", "alice", "default")["max_bytes"] == 10 * 2**30
    assert result("media", "quota") == []
    assert actions(app) == ["user.media_quota"] * 3


def test_disk_says_what_takes_the_room(
    result: Callable[..., Any], run: Run, app: Application, alice: Person, remote: Remotes
) -> None:
    room = alice.create_room()
    for number in range(20):
        alice.send(room, f"{number}" * 100)
    upload(alice, bytes(10_000))
    remote("b.test").media["cat"] = ("text/plain", TEXT)
    download(alice, "b.test/cat")
    left = alice.create_room()
    alice.post(f"rooms/{quote(left)}/leave")
    grow_old(app, 300)

    found = result("disk")

    by_purpose = found["database"]["by_purpose"]
    assert {"events", "state of rooms", "search index", "other"} <= set(by_purpose)
    assert sum(by_purpose.values()) <= found["database"]["bytes"]
    assert found["media"]["files of users"]["files"] == 1
    assert found["media"]["files of users"]["bytes"] >= 10_000
    assert found["media"]["files of users"]["preview_bytes"] == 0
    assert found["rooms"][0]["room_id"] == room
    assert 0 < found["rooms"][0]["bytes"] <= by_purpose["events"]
    assert found["users"][0]["user_id"] == alice.user_id
    assert found["users"][0]["media_bytes"] == 10_000
    freed = [it["bytes"] for it in found["could_free"]]
    assert freed[:2] == [len(TEXT), 10_000]
    assert freed[2] > 0
    overview = disk_usage.overview(app.homeserver.database)
    assert (overview["files"], overview["file_bytes"]) == (1, 10_000)
    assert (overview["remote_files"], overview["remote_file_bytes"]) == (1, len(TEXT))
    assert overview["database_bytes"] >= sum(by_purpose.values())
    text = run("disk").output
    assert "homebody media purge-remote --days 30" in text
    assert f"{alice.user_id} (1 files)" in text
    assert result("disk", "--top", "1", "--days", "400")["could_free"][0]["bytes"] == 0


def test_what_the_settings_ask_for_can_be_done_at_once(
    result: Callable[..., Any], app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = alice.create_room()
    alice.send(room, "old")
    upload(alice, bytes(100))
    grow_old(app, 40)
    with app.homeserver.database.write() as tx:
        old = tx.now_ms - 40 * DAY_MS
        tx.sql.execute(update(StoredEvent).values(origin_server_ts=old))
    alice.send(room, "new")
    nothing = {"files": 0, "remote_files": 0, "freed_bytes": 0, "events": 0, "rooms": 0}
    assert result("disk", "--clean") == nothing
    monkeypatch.setenv("HOMEBODY_MEDIA_RETENTION__LOCAL_MEDIA_LIFETIME", "30 d")
    monkeypatch.setenv("HOMEBODY_RETENTION__ENABLED", "true")
    monkeypatch.setenv("HOMEBODY_RETENTION__DEFAULT_MAX_LIFETIME", "30 d")

    done = result("disk", "--clean")

    assert (done["files"], done["freed_bytes"], done["rooms"]) == (1, 100, 0)
    assert done["events"] >= 1
    page = alice.get(f"rooms/{quote(room)}/messages?dir=b").get_json()
    assert [it["content"].get("body") for it in page["chunk"]] == ["new"]
    assert actions(app)[0] == "server.clean"


def test_a_running_server_is_asked_to_shorten_its_database(
    result: Callable[..., Any], app: Application, alice: Person, tmp_path: Path
) -> None:
    database = app.homeserver.database
    with database.write() as tx:
        tx.sql.raw.execute("CREATE TABLE ballast (x BLOB)")
        for _ in range(2000):
            tx.sql.raw.execute("INSERT INTO ballast VALUES (zeroblob(4000))")
        tx.sql.raw.execute("DROP TABLE ballast")
    locks = data_folder.lock(database.server.config)

    with closing(_Locks(locks)):
        ordered = result("disk", "--vacuum")

    assert ordered["is_ordered"]
    with database.read() as tx:
        task = tasks.find(tx, ordered["task_id"])
    assert task.action == upkeep.VACUUM
    reports: list[Any] = []
    done = upkeep.run_vacuum(database, task, reports.append)
    assert done["freed_bytes"] > 6 * 2**20
    assert len(reports) >= 15


def test_the_database_of_a_stopped_server_is_rewritten(
    run: Run, result: Callable[..., Any], app: Application, tmp_path: Path
) -> None:
    path = tmp_path / "homebody.db"
    app.homeserver.database.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        connection.execute("CREATE TABLE ballast (x BLOB)")
        connection.executemany("INSERT INTO ballast VALUES (zeroblob(4000))", [()] * 1000)
        connection.execute("DROP TABLE ballast")
    before = path.stat().st_size

    done = run("disk", "--vacuum", "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["freed_bytes"] > 3 * 2**20
    assert path.stat().st_size < before - 3 * 2**20
    assert rewriting.is_incremental(path)


def test_a_database_in_use_is_not_rewritten(run: Run, app: Application, tmp_path: Path) -> None:
    app.homeserver.database.close()
    with closing(sqlite3.connect(tmp_path / "homebody.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")

        done = run("disk", "--vacuum")

    assert done.exit_code == 1
    assert "was not rewritten: database is locked" in done.stderr


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (200 * 2**20, "200 MiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert human(size) == text


class _Locks:
    """Locks of the data folder, as a running server holds them."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
