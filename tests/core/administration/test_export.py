"""The export of a user's own data: by the pages, by the command, and what is in the archive."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from homebody import errors
from homebody.background.tasks import Tasks
from homebody.core import archives, tasks
from homebody.core.accounts import external_ids
from homebody.core.administration import export
from homebody.core.sessions import deactivation
from homebody.core.tasks import Task
from homebody.core.user_data import thread_subscriptions
from homebody.models.media import Media
from homebody.web import Application
from tests.cli import test_users as of_users
from tests.cli.test_users import Run
from tests.conftest import Login, Person
from tests.helpers.pages import log_in, send
from tests.helpers.waiting import wait_for
from tests.web.test_pages import visible

run, result = of_users.run, of_users.result

PAGE = "/_homebody/account/export"
ARCHIVE = f"{PAGE}/archive"
DATA = b"\x89PNG of a cat" * 1000


@pytest.fixture
def alice(login: Login) -> Person:
    """Alice, who has used the server a little."""
    return login("alice")


@pytest.fixture
def browser(app: Application, alice: Person) -> FlaskClient:
    found = app.test_client()
    log_in(found, "alice")
    return found


@pytest.fixture
def runner(app: Application) -> Iterator[Tasks]:
    """The tasks of the server, which run."""
    app.homeserver.tasks.start()
    app.homeserver.database.deliver = lambda _kind, action: app.homeserver.tasks.notify(action)
    yield app.homeserver.tasks
    app.homeserver.tasks.stop()


def upload(person: Person, data: bytes = DATA, name: str = "cat.png") -> str:
    path = f"/_matrix/media/v3/upload?filename={name}"
    answer = person.post(path, data=data, json=None, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["content_uri"])


def read(archive: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    """The lines of a file in an archive."""
    return [json.loads(line) for line in archive.read(name).splitlines()]


def exported(app: Application, user_id: str, tmp_path: Path) -> zipfile.ZipFile:
    path = tmp_path / "out.zip"
    export.write(app.homeserver.database, user_id, path)
    return zipfile.ZipFile(path)


def files_of(app: Application) -> list[str]:
    folder = app.homeserver.server.config.data_dir / archives.FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_archive_has_what_the_user_has_put_here(
    app: Application, alice: Person, tmp_path: Path
) -> None:
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice L."})
    alice.put(f"user/{alice.user_id}/account_data/org.example.colour", json={"colour": "blue"})
    room_id = alice.create_room(preset="public_chat")
    sent = [alice.send(room_id, f"message {number}") for number in range(3)]
    with app.homeserver.database.write() as tx:
        external_ids.add(tx, alice.user_id, "keycloak", "17")
        thread_subscriptions.subscribe(tx, alice.user_id, room_id, sent[0], None)
        thread_subscriptions.unsubscribe(tx, alice.user_id, room_id, sent[1])
    uri = upload(alice)

    archive = exported(app, alice.user_id, tmp_path)

    assert archive.testzip() is None
    account = json.loads(archive.read("account.json"))
    assert account["profile"] == {"displayname": "Alice L."}
    assert account["logins_elsewhere"] == [["keycloak", "17"]]
    assert account["account_data"][""]["org.example.colour"] == {"colour": "blue"}
    assert account["thread_subscriptions"] == {room_id: [sent[0]]}
    assert [it["device_id"] for it in account["devices"]] == [alice.device_id]
    assert read(archive, "rooms.jsonl") == [{"room_id": room_id, "membership": "join"}]
    events = read(archive, "events.jsonl")
    assert [it["event_id"] for it in events if it["type"] == "m.room.message"] == sent
    assert events[-1]["content"]["body"] == "message 2"
    assert {it["room_id"] for it in events} == {room_id}
    (file,) = read(archive, "media.jsonl")
    assert (file["uri"], file["file_name"], file["size_bytes"]) == (uri, "cat.png", len(DATA))
    assert archive.read(file["file"]) == DATA
    assert file["file"].endswith(".png")
    assert alice.user_id in archive.read("README.txt").decode()


def test_an_archive_has_nothing_of_others(
    app: Application, alice: Person, login: Login, tmp_path: Path
) -> None:
    bob = login("bob")
    room_id = alice.create_room(preset="public_chat")
    bob.post(f"rooms/{room_id}/join")
    alice.send(room_id, "of alice")
    bob.send(room_id, "SECRET of bob")
    upload(bob, b"SECRET file")
    bob.put(f"user/{bob.user_id}/account_data/org.example.x", json={"x": "SECRET"})

    archive = exported(app, alice.user_id, tmp_path)

    for name in archive.namelist():
        assert b"SECRET" not in archive.read(name), name
    assert "of alice" in archive.read("events.jsonl").decode()


def test_an_archive_has_what_was_sent_to_rooms_that_were_left(
    app: Application, alice: Person, login: Login, tmp_path: Path
) -> None:
    bob = login("bob")
    room_id = bob.create_room(preset="public_chat")
    alice.post(f"rooms/{room_id}/join")
    event_id = alice.send(room_id)
    alice.post(f"rooms/{room_id}/leave")

    archive = exported(app, alice.user_id, tmp_path)

    assert event_id in {it["event_id"] for it in read(archive, "events.jsonl")}


def test_what_was_redacted_is_empty(app: Application, alice: Person, tmp_path: Path) -> None:
    room_id = alice.create_room()
    event_id = alice.send(room_id, "REGRETTED")
    alice.put(f"rooms/{room_id}/redact/{event_id}/t1", json={})

    archive = exported(app, alice.user_id, tmp_path)

    assert b"REGRETTED" not in archive.read("events.jsonl")
    (found,) = (it for it in read(archive, "events.jsonl") if it["event_id"] == event_id)
    assert found["content"] == {}


def test_long_rooms_are_read_in_parts(
    app: Application, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(export, "EVENTS_AT_ONCE", 2)
    room_id = alice.create_room()
    sent = [alice.send(room_id) for _ in range(9)]

    archive = exported(app, alice.user_id, tmp_path)

    events = read(archive, "events.jsonl")
    assert [it["event_id"] for it in events][-9:] == sent
    assert len({it["event_id"] for it in events}) == len(events)


def test_a_failure_leaves_no_file(app: Application, alice: Person, tmp_path: Path) -> None:
    alice.send(alice.create_room())
    path = tmp_path / "folder" / "out.zip"
    path.parent.mkdir()

    def stop(_so_far: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.write(app.homeserver.database, alice.user_id, path, stop)

    assert list(path.parent.iterdir()) == []


def test_a_file_that_is_missing_is_listed(app: Application, alice: Person, tmp_path: Path) -> None:
    upload(alice)
    for path in (tmp_path / "media" / "files").rglob("*"):
        if path.is_file():
            path.unlink()

    archive = exported(app, alice.user_id, tmp_path)

    (file,) = read(archive, "media.jsonl")
    assert file["file"] is None


def test_a_file_of_a_clock_that_was_wrong_is_exported(
    app: Application, alice: Person, tmp_path: Path
) -> None:
    upload(alice)
    with app.homeserver.database.write() as tx:
        tx.sql.execute(update(Media).values(created_ts=5_000))

    archive = exported(app, alice.user_id, tmp_path)

    (file,) = read(archive, "media.jsonl")
    assert archive.read(file["file"]) == DATA
    assert archive.getinfo(file["file"]).date_time[0] == 1980


def last(app: Application, user_id: str) -> Task:
    with app.homeserver.database.read() as tx:
        found = export.latest(tx, user_id)
    assert found
    return found


def test_a_user_has_the_archive_prepared_and_downloads_it(
    browser: FlaskClient, app: Application, alice: Person, runner: Tasks
) -> None:
    sent = alice.send(alice.create_room())
    upload(alice)

    ordered = send(browser, PAGE)
    wait_for(lambda: last(app, alice.user_id).status == tasks.COMPLETE)
    page, answer = browser.get(PAGE), browser.get(ARCHIVE)

    assert (ordered.status_code, ordered.headers["Location"]) == (303, PAGE)
    assert "1 files" in visible(page)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="alice.zip"'
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    archive = zipfile.ZipFile(io.BytesIO(answer.data))
    assert sent in {it["event_id"] for it in read(archive, "events.jsonl")}
    assert runner
    assert len(files_of(app)) == 1
    (path,) = (app.homeserver.server.config.data_dir / archives.FOLDER).iterdir()
    assert path.parent.stat().st_mode & 0o077 == 0


def test_nobody_else_gets_the_archive(
    browser: FlaskClient, app: Application, alice: Person, login: Login, runner: Tasks
) -> None:
    send(browser, PAGE)
    wait_for(lambda: last(app, alice.user_id).status == tasks.COMPLETE)
    login("bob")
    other = app.test_client()

    stranger = other.get(ARCHIVE)
    log_in(other, "bob")
    bob = other.get(ARCHIVE)

    assert runner
    assert (stranger.status_code, bob.status_code) == (303, 404)


def test_archives_are_not_ordered_one_after_the_other(
    browser: FlaskClient, app: Application, alice: Person, runner: Tasks
) -> None:
    send(browser, PAGE)
    wait_for(lambda: last(app, alice.user_id).status == tasks.COMPLETE)

    answer = send(browser, PAGE)

    assert runner
    assert answer.status_code == 429
    assert "Try again in 60 minutes." in visible(answer)


def test_two_orders_are_one_task(app: Application, alice: Person) -> None:
    with app.homeserver.database.write() as tx:
        first, second = (export.order(tx, alice.user_id) for _ in range(2))

    assert first == second


def test_a_newer_archive_replaces_the_older(app: Application, alice: Person) -> None:
    database = app.homeserver.database
    for _ in range(2):
        with database.write() as tx:
            tasks.add(tx, export.ACTION, {"user_id": alice.user_id}, alice.user_id)
        export.run(database, last(app, alice.user_id), lambda _: None)
        time.sleep(0.002)

    assert files_of(app) == [f"{last(app, alice.user_id).id}.zip"]


def test_old_archives_are_deleted(
    browser: FlaskClient, app: Application, alice: Person, runner: Tasks
) -> None:
    send(browser, PAGE)
    wait_for(lambda: last(app, alice.user_id).status == tasks.COMPLETE)
    database = app.homeserver.database
    path = export.path_of(database, last(app, alice.user_id))

    export.sweep(database)
    assert path.exists()
    os.utime(path, (0, time.time() - export.KEPT_MS / 1000 - 60))
    export.sweep(database)

    assert runner
    assert not path.exists()
    assert browser.get(ARCHIVE).status_code == 404
    assert "deleted after some days" in visible(browser.get(PAGE))


def test_archives_go_with_an_erased_account(
    browser: FlaskClient, app: Application, alice: Person, runner: Tasks
) -> None:
    send(browser, PAGE)
    wait_for(lambda: last(app, alice.user_id).status == tasks.COMPLETE)
    database = app.homeserver.database
    path = export.path_of(database, last(app, alice.user_id))
    assert path.exists()

    deactivation.deactivate(database, alice.user_id)
    assert path.exists()
    deactivation.deactivate(database, alice.user_id, erase=True)

    assert runner
    wait_for(lambda: not files_of(app))  # just after the COMMIT
    path.write_bytes(b"a crash between the COMMIT and the deletion has left it")
    export.sweep(database)
    assert files_of(app) == []


def test_an_export_that_runs_while_the_account_is_erased_leaves_nothing(
    app: Application, alice: Person
) -> None:
    database = app.homeserver.database
    with database.write() as tx:
        export.order(tx, alice.user_id)
    upload(alice)

    def erase(so_far: dict[str, Any]) -> None:  # at the last report
        if so_far["files"]:
            deactivation.deactivate(database, alice.user_id, erase=True)

    with pytest.raises(tasks.CancelledError):
        export.run(database, last(app, alice.user_id), erase)

    wait_for(lambda: not files_of(app))


def test_a_cancelled_export_leaves_the_earlier_archive(app: Application, alice: Person) -> None:
    database = app.homeserver.database
    for _ in range(2):
        with database.write() as tx:
            tasks.add(tx, export.ACTION, {"user_id": alice.user_id}, alice.user_id)
        time.sleep(0.002)
    with database.read() as reader:
        first, second = tasks.select_tasks(reader, actions=[export.ACTION])
    upload(alice)
    export.run(database, first, lambda _: None)

    def cancel(_so_far: dict[str, Any]) -> None:
        with database.write() as writing:
            tasks.record(writing, second.id, tasks.CANCELLED)
        raise tasks.CancelledError

    with pytest.raises(tasks.CancelledError):
        export.run(database, second, cancel)

    assert files_of(app) == [f"{first.id}.zip"]


def test_an_administrator_exports_by_the_command(
    app: Application, alice: Person, run: Run, tmp_path: Path
) -> None:
    alice.send(alice.create_room())
    path = tmp_path / "alice.zip"

    done = run("user", "export", "alice", str(path))
    again = run("user", "export", "alice", str(path))
    forced = run("user", "export", "@alice:localhost", str(path), "--force", "--json")

    assert (done.returncode, again.returncode, forced.returncode) == (0, 1, 0), done.stderr
    assert "exists already" in again.stderr
    found = json.loads(forced.stdout)
    assert (found["user_id"], found["bytes"]) == (alice.user_id, path.stat().st_size)
    assert zipfile.ZipFile(path).testzip() is None
    assert "user.export" in run("audit").stdout


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("nobody", "out.zip", "There is no user nobody"),
        ("alice", "no/such/out.zip", "No such file"),
    ],
)
def test_the_command_says_what_is_wrong(
    app: Application, alice: Person, run: Run, tmp_path: Path, name: str, file: str, sentence: str
) -> None:
    done = run("user", "export", name, str(tmp_path / file))

    assert done.returncode == 1
    assert sentence in done.stderr
    assert not list(tmp_path.glob("**/*.zip"))


def test_an_unknown_user_has_no_data(app: Application, tmp_path: Path) -> None:
    with pytest.raises(errors.MatrixError):
        export.write(app.homeserver.database, "@nobody:localhost", tmp_path / "x.zip")
