"""Overwritten pages of the database: found at the start, survived while running.

Protects server/startup.py: prepare and check_pages, with the limit LARGE_BYTES;
storage/disk_errors.py: damage (PRAGMA quick_check, and the `except` for a file that can't be
opened) and _DAMAGE; web/middleware.py: fault_response (a response to the client and one line in the
log); for a large database, server/worker.py: Worker._check_large_database.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from homebody.config import settings
from homebody.server import startup
from homebody.storage import disk_errors
from tests.faults import clients
from tests.faults.clients import Person
from tests.faults.conftest import Start
from tests.helpers import server
from tests.helpers.waiting import wait_for
from tests.server.test_startup import complaint

GARBAGE = b"\xa5" * 4096


def overwrite(database: Path, page: int, count: int = 1) -> None:
    """Overwrite pages with garbage; they are numbered from 1."""
    with database.open("r+b") as file:
        file.seek((page - 1) * len(GARBAGE))
        file.write(GARBAGE * count)
        file.flush()
        os.fsync(file.fileno())


def pages(database: Path) -> int:
    return database.stat().st_size // len(GARBAGE)


def root_of(database: Path, name: str) -> int:
    """Return the first page of a table or an index."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,))
        return int(found.fetchone()[0])


def leaf_of(database: Path, name: str) -> int:
    """Return a page in the middle of a table that contains rows: not the root."""
    page = root_of(database, name)
    content = database.read_bytes()
    while content[at := (page - 1) * len(GARBAGE)] == 5:  # an inner page of a table
        cells = int.from_bytes(content[at + 3 : at + 5], "big")
        pointer = at + 12 + cells // 2 * 2
        cell = at + int.from_bytes(content[pointer : pointer + 2], "big")
        page = int.from_bytes(content[cell : cell + 4], "big")
    return page


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of a server that was stopped normally, with a room of 200 messages."""
    folder = tmp_path_factory.mktemp("left")
    running = server.start(folder)
    try:
        alice = Person(running, "alice")
        room_id = alice.create_room()
        for _ in range(200):
            alice.send(room_id)["event_id"]
    finally:
        running.stop()
    return folder


@pytest.fixture
def filled(left: Path, tmp_path: Path) -> Path:
    """Return a copy of its data folder."""
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    return tmp_path / "homebody.db"


@pytest.mark.parametrize("where", ["middle", "events", "header", "schema"])
def test_a_damaged_database_is_not_started_on(filled: Path, where: str) -> None:
    whole = filled.read_bytes()
    if where == "middle":
        overwrite(filled, pages(filled) // 2 - 4, 8)
    elif where == "events":
        overwrite(filled, leaf_of(filled, "events"))
    elif where == "header":
        overwrite(filled, 1)
    else:
        with filled.open("r+b") as file:  # after the header of the file: the table of tables
            file.seek(100)
            file.write(GARBAGE[:2000])

    sentence = complaint(filled.parent)

    assert sentence.startswith(f"The database {filled} is damaged (")
    assert "restore it from a backup, or save what can be read with `sqlite3 " in sentence
    # it was left unchanged, for attempts to repair it
    assert filled.stat().st_size == len(whole)
    filled.write_bytes(whole)
    assert clients.problems(filled.parent) == []


def test_a_page_that_breaks_while_the_server_runs_costs_what_is_on_it_only(
    filled: Path, start: Start
) -> None:
    running = start()
    bob = Person(running, "bob")
    (room_id,) = alices_rooms(filled)
    mine = bob.create_room()
    token = bob.request("POST", "/login", login("alice"))["access_token"]
    overwrite(filled, leaf_of(filled, "events"))

    path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=500"
    bob.token, bobs_token = token, bob.token
    answers = [bob.request("GET", path) for _ in "123"]
    bob.token = bobs_token
    others = [bob.send(mine), bob.request("GET", "/account/whoami")]
    others.append(bob.request("GET", f"/rooms/{quote(mine)}/messages?dir=b"))

    assert [answer.status for answer in answers] == [500, 500, 500]
    assert answers[0].body == {"errcode": "M_UNKNOWN", "error": "The server's database is damaged"}
    assert [answer.status for answer in others] == [200, 200, 200]
    log = running.output()
    assert "Traceback" not in log
    assert len(re.findall(r"the database is damaged \(.*malformed.*\): stop the server", log)) == 3
    running.stop()
    assert running.process.returncode == 0
    assert complaint(filled.parent).startswith(f"The database {filled} is damaged (")


@pytest.mark.parametrize(
    "is_full", [False, pytest.param(True, marks=[pytest.mark.big, pytest.mark.timeout(300)])]
)
def test_a_large_database_starts_at_once_and_its_damage_is_told_soon(
    filled: Path, start: Start, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    if is_full:
        fill_with_a_gigabyte(filled)
    else:  # there is nothing after the pages that its header declares
        os.truncate(filled, disk_errors.LARGE_BYTES + 1)
        monkeypatch.setenv(
            "GUNICORN_CMD_ARGS", "--worker-class tests.faults_clients.impatient.Worker"
        )
    overwrite(filled, leaf_of(filled, "zz_padding" if is_full else "events"))
    began = time.thread_time()
    startup.check_pages(settings.load(None, {}, {"data_dir": str(filled.parent)}))
    seconds = time.thread_time() - began
    running = start()

    wait_for(lambda: "database is damaged" in running.output(), running.output)

    assert seconds < 0.2
    assert Person(running, "bob").create_room()
    running.stop()
    assert "Traceback" not in running.output()


def fill_with_a_gigabyte(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE zz_padding (id INTEGER PRIMARY KEY, text)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO zz_padding SELECT i, printf('%.*c', 1000, 'x') FROM n",
            (970_000,),
        )
        connection.commit()
    assert pages(database) > 240_000


def login(name: str) -> clients.Json:
    who = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": who, "password": "x" * 12}


def alices_rooms(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT DISTINCT room_id FROM events")]
