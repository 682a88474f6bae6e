"""The writer: grouped commits, what a failed write leaves behind, what other processes write."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from homebody import errors
from homebody.application import create_app
from homebody.config import settings as config
from homebody.core.events.state import JOINED_ROOMS
from homebody.models.account_data import AccountData
from homebody.storage import migrations
from homebody.storage.database import PLACES, Database, Tx
from homebody.web import Application
from tests.conftest import ROOT


@pytest.fixture
def db(app: Application) -> Database:
    database: Database = app.homeserver.database
    return database


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that the server knows nothing of."""
    connection = sqlite3.connect(tmp_path / "homebody.db", isolation_level=None)
    yield connection
    connection.close()


def note(tx: Tx, word: str) -> int:
    """Write something, and return its position."""
    position = tx.next_position()
    row = {"user_id": "@a:x", "room_id": "", "type": word, "content": "{}", "position": position}
    tx.sql.execute(insert(AccountData), row)
    return position


def noted(db: Database) -> set[str]:
    with db.read() as tx:
        return set(tx.sql.execute(select(AccountData.type)).scalars())


class Disk:
    """The writer's connection to a disk whose COMMITs can be held up and made to fail."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.begun = 0
        self.commits = 0
        self.is_full = False
        self.after_commit: Callable[[], None] = lambda: None

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql != "COMMIT":
            return self._raw.execute(sql, *args)
        self.begun += 1
        self.may_commit.wait(10)
        self.commits += 1
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        done = self._raw.execute(sql, *args)
        self.after_commit()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


@pytest.fixture
def disk(db: Database) -> Disk:
    disk = Disk(db.writer.raw)
    db.writer.raw = disk  # type: ignore[assignment]  # there is no other way to break it
    return disk


def test_a_write_can_be_read_once_it_returns(db: Database) -> None:
    with db.write() as tx:
        position = note(tx, "one")

    assert noted(db) == {"one"}
    with db.read() as reader:
        assert reader.position == position


def test_a_write_that_raises_leaves_nothing_and_harms_nobody(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.write() as tx:
        note(tx, "one")
        raise ZeroDivisionError

    with db.write() as tx:
        note(tx, "two")

    assert noted(db) == {"two"}


def test_a_reader_keeps_its_snapshot_while_others_write(db: Database) -> None:
    with db.read() as reader:
        before = reader.position
        with db.write() as tx:
            note(tx, "one")
        found = reader.sql.execute(select(AccountData.type)).scalars().all()

    assert (found, before) == ([], 1)


def test_writers_that_come_during_a_commit_share_the_next_one(db: Database, disk: Disk) -> None:
    disk.may_commit.clear()

    def write(word: str) -> None:
        with db.write() as tx:
            note(tx, word)

    threads = [threading.Thread(target=write, args=(f"word{n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    disk.may_commit.set()
    for thread in threads:
        thread.join(10)

    assert len(noted(db)) == 20
    assert disk.commits < 20


def test_nobody_is_answered_before_the_commit(db: Database, disk: Disk) -> None:
    disk.may_commit.clear()
    is_answered = threading.Event()

    def write() -> None:
        with db.write() as tx:
            note(tx, "one")
        is_answered.set()

    thread = threading.Thread(target=write)
    thread.start()
    too_early = is_answered.wait(0.2)
    disk.may_commit.set()
    thread.join(10)

    assert not too_early
    assert is_answered.is_set()


def test_a_failed_commit_fails_its_writes_and_the_next_one_works(db: Database, disk: Disk) -> None:
    woken: list[object] = []
    db.writer.wake = woken.append
    disk.is_full = True

    with pytest.raises(errors.MatrixError) as refusal, db.write() as tx:
        note(tx, "one")
        tx.wake("@a:x")
        tx.remember(JOINED_ROOMS, "@a:x", frozenset({"!wrong:x"}))
    disk.is_full = False
    with db.write() as tx:
        note(tx, "two")

    assert refusal.value.status == 503
    assert noted(db) == {"two"}
    assert db.cached(JOINED_ROOMS, "@a:x") is None
    assert woken == [[]]


def test_a_disk_that_is_full_before_the_commit_is_a_503_as_well(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    # Protects: the call of disk_errors.answer_to in Database.write. A caller that can do without
    # the write, as a /sync that takes away what was got, waits for a MatrixError.
    raw = db.writer.raw
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    raw.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(errors.MatrixError) as refusal, db.write() as tx:
        note(tx, "secret" * 100_000)
    raw.execute("PRAGMA max_page_count = 1000000")
    with db.write() as tx:
        note(tx, "two")

    assert refusal.value.status == 503
    assert noted(db) == {"two"}
    assert len(caplog.records) == 2
    assert not any("\n" in line or "secret" in line for line in caplog.messages)


def test_what_is_written_is_in_no_error(db: Database) -> None:
    # Protects: hide_parameters in engine.make_engine: a trace of the error stands in the log.
    with pytest.raises(IntegrityError) as problem, db.write() as tx:
        for _ in range(2):
            note(tx, "secret")

    assert "secret" not in str(problem.value)


def test_a_rolled_back_write_takes_its_caches_with_it(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.write() as tx:
        tx.remember(JOINED_ROOMS, "@a:x", frozenset({"!wrong:x"}))
        raise ZeroDivisionError

    assert db.cached(JOINED_ROOMS, "@a:x") is None


def test_an_old_reader_cannot_fill_a_cache_that_the_writer_has_changed(db: Database) -> None:
    with db.read() as reader:
        assert (
            reader.position == db.writer.last_position
        )  # the snapshot begins with the first statement
        with db.write() as tx:
            tx.forget(JOINED_ROOMS, "@a:x")
        reader.fill(JOINED_ROOMS, "@a:x", frozenset({"!old:x"}))
    with db.read() as reader:
        reader.fill(JOINED_ROOMS, "@b:x", frozenset({"!new:x"}))

    assert db.cached(JOINED_ROOMS, "@a:x") is None
    assert db.cached(JOINED_ROOMS, "@b:x") == frozenset({"!new:x"})


def write_during(db: Database, disk: Disk, change: Callable[[Tx], object]) -> threading.Thread:
    """A write whose COMMIT has begun and waits for `disk.may_commit`."""
    disk.may_commit.clear()
    commits = disk.begun

    def write() -> None:
        with db.write() as tx:
            change(tx)

    thread = threading.Thread(target=write)
    thread.start()
    while disk.begun == commits:
        thread.join(0.01)
    return thread


def finish(disk: Disk, thread: threading.Thread) -> None:
    disk.may_commit.set()
    thread.join(10)


def test_a_reader_cannot_fill_a_cache_while_its_change_is_not_committed(
    db: Database, disk: Disk
) -> None:
    thread = write_during(db, disk, lambda tx: tx.forget(JOINED_ROOMS, "@a:x"))

    with db.read() as reader:
        reader.fill(JOINED_ROOMS, "@a:x", frozenset({"!old:x"}))
    finish(disk, thread)

    assert db.cached(JOINED_ROOMS, "@a:x") is None


def test_a_reader_does_not_see_what_is_not_committed_yet(db: Database, disk: Disk) -> None:
    # Protects: the positions in Cache.get. A /sync that met a membership before its COMMIT passed
    # over events that were in its snapshot.
    new = frozenset({"!new:x"})
    thread = write_during(db, disk, lambda tx: tx.remember(JOINED_ROOMS, "@a:x", new))

    with db.read() as during:
        seen_during = during.cached(JOINED_ROOMS, "@a:x")
        finish(disk, thread)
        seen_by_the_old_snapshot = during.cached(JOINED_ROOMS, "@a:x")
    with db.read() as after:
        seen_after = after.cached(JOINED_ROOMS, "@a:x")

    assert (seen_during, seen_by_the_old_snapshot) == (None, None)
    assert seen_after == frozenset({"!new:x"})


def test_a_snapshot_taken_as_the_commit_lands_sees_what_it_wrote(db: Database, disk: Disk) -> None:
    # The COMMIT is on the disk, but the thread that ran it has not come back.
    found = []

    def look() -> None:
        with db.read() as reader:
            found.append(reader.cached(JOINED_ROOMS, "@a:x"))

    disk.after_commit = look
    with db.write() as tx:
        tx.remember(JOINED_ROOMS, "@a:x", frozenset({"!new:x"}))

    assert found == [frozenset({"!new:x"})]


def test_what_a_reader_found_serves_older_snapshots_back_to_the_last_change(db: Database) -> None:
    with db.write() as tx:
        tx.forget(JOINED_ROOMS, "@b:x")
    with db.read() as older:
        assert older.cached(JOINED_ROOMS, "@a:x") is None
        with db.write() as tx:
            note(tx, "elsewhere")
        with db.read() as newer:
            newer.fill(JOINED_ROOMS, "@a:x", frozenset({"!a:x"}))

        assert older.cached(JOINED_ROOMS, "@a:x") == frozenset({"!a:x"})


def test_every_commit_moves_the_clock(db: Database) -> None:
    positions = []
    for _ in range(2):
        with db.write():
            pass
        with db.read() as reader:
            positions.append(reader.position)

    assert positions[0] < positions[1]


def test_a_snapshot_with_the_change_of_another_process_uses_no_cache(
    db: Database, other_process: sqlite3.Connection
) -> None:
    # Before the server looks for other writers, twice a second.
    with db.write() as tx:
        tx.remember(JOINED_ROOMS, "@a:x", frozenset({"!a:x"}))
    other_process.execute("UPDATE clock SET position = position + 7")

    with db.read() as reader:
        seen = reader.cached(JOINED_ROOMS, "@a:x")
        reader.fill(JOINED_ROOMS, "@b:x", frozenset({"!b:x"}))

    assert seen is None
    assert db.cached(JOINED_ROOMS, "@b:x") is None


def test_what_a_failed_commit_would_have_made_true_is_seen_by_nobody(
    db: Database, disk: Disk
) -> None:
    disk.is_full = True
    with pytest.raises(errors.MatrixError), db.write() as tx:
        tx.next_position()
        tx.remember(JOINED_ROOMS, "@a:x", frozenset({"!wrong:x"}))
    disk.is_full = False
    with db.write() as tx:
        tx.remember(JOINED_ROOMS, "@b:x", frozenset({"!b:x"}))

    with db.read() as reader:
        assert reader.cached(JOINED_ROOMS, "@a:x") is None
        assert reader.cached(JOINED_ROOMS, "@b:x") == frozenset({"!b:x"})


FULL_POOL = """
from gevent import monkey
monkey.patch_all()
import sys, threading
import gevent
from homebody.application import create_app
from homebody.config import settings
from homebody.runtime import event_loop
from homebody.storage import migrations
config = settings.load(None, {}, {"data_dir": sys.argv[1]})
migrations.upgrade(config)
database = create_app(config).homeserver.database
may_end = [gevent.monkey.get_original("threading", "Event")() for _ in range(20)]
for one in may_end:
    event_loop.begin(one.wait, 20)
gevent.sleep(0.05)
with database.write() as tx:
    tx.next_position()
print("committed")
for one in may_end:
    one.set()
"""


def test_a_commit_does_not_wait_for_other_work_in_the_pool(tmp_path: Path) -> None:
    # Protects: the thread of its own for COMMIT. Long searches once held up the sends of all.
    command = [sys.executable, "-c", FULL_POOL, str(tmp_path)]

    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT
    )

    assert done.stdout == "committed\n", done.stderr


def test_positions_go_on_after_a_restart(db: Database, make_app: Any) -> None:
    with db.write() as tx:
        last = note(tx, "one")
    db.close()

    again: Database = make_app().homeserver.database
    with again.write() as tx:
        next_one = note(tx, "two")

    assert next_one > last


def test_what_another_process_writes_empties_the_caches(
    db: Database, other_process: sqlite3.Connection
) -> None:
    woken: list[object] = []
    db.writer.wake = woken.append
    with db.write() as tx:
        tx.remember(JOINED_ROOMS, "@a:x", frozenset({"!a:x"}))

    db.notice_other_writers()
    kept = db.cached(JOINED_ROOMS, "@a:x")
    other_process.execute("UPDATE clock SET position = 500")
    db.notice_other_writers()

    assert kept == frozenset({"!a:x"})
    assert db.cached(JOINED_ROOMS, "@a:x") is None
    assert woken[-1] == [{"*"}]
    with db.write() as tx:
        assert tx.next_position() == 501


def test_what_another_process_wrote_wakes_everybody_though_a_write_saw_it_first(
    db: Database, other_process: sqlite3.Connection
) -> None:
    # On a busy server a batch is nearly always open, and it is a write that sees the change.
    woken: list[object] = []
    db.writer.wake = woken.append
    other_process.execute("UPDATE clock SET position = 500")

    with db.write() as tx:
        note(tx, "one")
    has_changed, has_changed_again = db.notice_other_writers(), db.notice_other_writers()

    assert (has_changed, has_changed_again) == (True, False)
    assert woken[-1] == [{"*"}]


def test_a_failed_commit_does_not_hide_what_another_process_wrote(
    db: Database, disk: Disk, other_process: sqlite3.Connection
) -> None:
    woken: list[object] = []
    db.writer.wake = woken.append
    other_process.execute("UPDATE clock SET position = 500")
    disk.is_full = True

    with pytest.raises(errors.MatrixError), db.write() as tx:
        note(tx, "one")
    disk.is_full = False

    assert db.notice_other_writers()
    assert woken[-1] == [{"*"}]


def test_a_locked_database_is_a_503_and_not_for_ever(
    db: Database, other_process: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.storage.database.LOCKED_FOR_SECONDS", 0.1)
    other_process.execute("BEGIN IMMEDIATE")

    with pytest.raises(errors.MatrixError) as refusal, db.write() as tx:
        note(tx, "one")
    other_process.execute("ROLLBACK")
    with db.write() as tx:
        note(tx, "two")

    assert refusal.value.status == 503
    assert noted(db) == {"two"}


def test_closing_waits_for_a_write_that_runs_and_later_ones_fail(db: Database) -> None:
    # A greenlet of a room that went on writing crashed the process
    closing = threading.Thread(target=db.close)

    with db.write(is_awaited=False) as tx:
        closing.start()
        closing.join(0.05)
        note(tx, "one")
    closing.join(10)
    with pytest.raises(errors.MatrixError) as refusal, db.write():
        pytest.fail("the database is closed")

    assert not closing.is_alive()
    assert refusal.value.status == 503
    assert noted(db) == {"one"}


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    settings = config.load(None, {}, {"data_dir": str(tmp_path)})
    migrations.upgrade(settings)
    database: Database = create_app(settings).homeserver.database  # those of the other tests don't

    with database.write() as tx:
        journal = tx.sql.execute(text("PRAGMA journal_mode")).scalar_one()
        synchronous = tx.sql.execute(text("PRAGMA synchronous")).scalar_one()

    database.close()
    assert (journal, synchronous) == ("wal", 2)


def test_event_numbers_are_never_given_twice(
    db: Database, other_process: sqlite3.Connection
) -> None:
    with db.write() as tx:
        first, position = tx.next_event()
    with pytest.raises(ZeroDivisionError), db.write() as tx:
        undone, _ = tx.next_event()
        raise ZeroDivisionError
    with db.write() as tx:
        aside = tx.next_event_number()
        unchanged = tx.position
    other_process.execute("UPDATE clock SET event_number = 500, position = position + 1")
    with db.write() as tx:
        after = tx.next_event()

    assert first < undone < aside < 501
    assert unchanged <= position + 2 * (PLACES + 1)
    assert after[0] == 501
    (kept,) = other_process.execute("SELECT event_number FROM clock").fetchone()
    assert kept == 501
