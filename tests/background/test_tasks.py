"""Tasks that administrators order: their order, their status, failures, and restarts."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from homebody import errors
from homebody.background import tasks as background
from homebody.background.tasks import Report, Run, Tasks
from homebody.core import tasks
from homebody.core.tasks import Task
from homebody.spec.events import Json
from homebody.storage.database import Database
from homebody.web import Application
from tests.helpers.waiting import wait_for

Start = Callable[..., Tasks]


@pytest.fixture
def database(app: Application) -> Database:
    return app.homeserver.database


@pytest.fixture
def start(database: Database) -> Iterator[Start]:
    """Run tasks by these functions, by the name of their action."""
    started: list[Tasks] = []

    def start_one(**actions: Run) -> Tasks:
        runner = Tasks(database, actions)
        database.deliver = lambda _kind, action: runner.notify(action)
        started.append(runner)
        runner.start()
        return runner

    yield start_one
    for runner in started:
        runner.stop()


def add(database: Database, action: str, about: str = "!room", **params: object) -> str:
    time.sleep(0.002)  # those of the same millisecond have no order
    with database.write() as tx:
        return tasks.add(tx, action, params, about)


def find(database: Database, task_id: str) -> Task:
    with database.read() as tx:
        return tasks.find(tx, task_id)


def ended(database: Database, task_id: str) -> Task:
    wait_for(lambda: not find(database, task_id).is_under_way)
    return find(database, task_id)


def test_tasks_run_in_their_order_and_keep_their_results(database: Database, start: Start) -> None:
    order = []

    def run(_db: Database, task: Task, _report: Report) -> Json:
        order.append(task.params["n"])
        return {"doubled": task.params["n"] * 2}

    first, second = add(database, "double", n=1), add(database, "double", n=2)
    start(double=run)

    assert ended(database, second).result == {"doubled": 4}
    assert ended(database, first).status == "complete"
    assert order == [1, 2]
    third = add(database, "double", n=3)  # while they run
    assert ended(database, third).result == {"doubled": 6}


class Patient:
    """An action that goes on until it may end, and counts its steps."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.may_end = threading.Event()

    def __call__(self, _db: Database, task: Task, report: Report) -> Json:
        self.running.append(task.id)
        try:
            steps = 0
            while not self.may_end.wait(0.01):
                steps += 1
                report({"steps": steps})
        finally:
            self.running.remove(task.id)
        return {"steps": "all"}


def test_three_tasks_run_at_once_but_one_of_each_kind_and_of_each_room(
    database: Database, start: Start
) -> None:
    patient = Patient()
    first = add(database, "purge", "!a")
    same_kind, same_room = add(database, "purge", "!b"), add(database, "redact", "!a")
    others = [add(database, action, f"!{action}") for action in ("export", "vacuum", "count")]

    start(**dict.fromkeys(("purge", "redact", "export", "vacuum", "count"), patient))

    wait_for(lambda: len(patient.running) == 3)
    assert set(patient.running) == {first, *others[:2]}
    assert find(database, same_kind).status == tasks.SCHEDULED
    assert find(database, same_room).status == tasks.SCHEDULED
    patient.may_end.set()
    for task_id in (first, same_kind, same_room, *others):
        assert ended(database, task_id).status == tasks.COMPLETE


def test_interrupted_tasks_go_on_before_others_begin(database: Database, start: Start) -> None:
    patient = Patient()
    older, interrupted = add(database, "purge", "!a"), add(database, "purge", "!b")
    with database.write() as tx:
        tasks.record(tx, interrupted, tasks.ACTIVE)

    start(purge=patient)

    wait_for(lambda: len(patient.running) == 1)
    assert patient.running == [interrupted]
    patient.may_end.set()
    assert ended(database, older).status == tasks.COMPLETE


def test_a_running_task_is_cancelled_and_the_next_one_runs(
    database: Database, start: Start
) -> None:
    patient = Patient()
    start(purge=patient)
    running, waiting, third = (add(database, "purge", f"!{name}") for name in "abc")
    wait_for(lambda: (find(database, running).result or {}).get("steps", 0) > 1)

    with database.write() as tx:
        assert tasks.cancel(tx, "@admin:localhost", waiting).status == tasks.CANCELLED
        tasks.cancel(tx, "@admin:localhost", running)

    wait_for(lambda: patient.running == [third])
    patient.may_end.set()
    assert ended(database, third).result == {"steps": "all"}
    found = [find(database, it) for it in (running, waiting)]
    assert [it.status for it in found] == [tasks.CANCELLED] * 2
    assert found[1].result is None


def test_a_cancelled_task_does_not_go_on_after_a_restart(database: Database, start: Start) -> None:
    patient = Patient()
    patient.may_end.set()
    cancelled, other = add(database, "purge", "!a"), add(database, "purge", "!b")
    with database.write() as tx:
        tasks.record(tx, cancelled, tasks.ACTIVE)
        tasks.cancel(tx, "@admin:localhost", cancelled)

    start(purge=patient)

    assert ended(database, other).status == tasks.COMPLETE
    assert find(database, cancelled).status == tasks.CANCELLED


def test_a_task_past_the_point_of_no_return_is_not_cancelled(database: Database) -> None:
    task_id = add(database, "purge")
    with database.write() as tx:
        tasks.seal(tx, task_id)

    with database.write() as tx, pytest.raises(errors.MatrixError, match="can't be stopped"):
        tasks.cancel(tx, "@admin:localhost", task_id)

    assert find(database, task_id).is_under_way


def test_a_write_that_seals_a_cancelled_task_is_undone(database: Database) -> None:
    task_id = add(database, "purge")
    with database.write() as tx:
        tasks.cancel(tx, "@admin:localhost", task_id)

    with pytest.raises(tasks.CancelledError), database.write() as tx:
        tasks.add(tx, "other", {})
        tasks.seal(tx, task_id)

    with database.read() as reader:
        assert [it.id for it in tasks.select_tasks(reader)] == [task_id]


def test_a_task_that_ends_before_it_notices_keeps_its_outcome(
    database: Database, start: Start
) -> None:
    is_active, may_end = threading.Event(), threading.Event()

    def run(_db: Database, _task: Task, _report: Report) -> Json:
        is_active.set()
        may_end.wait(5)
        return {"done": True}

    start(work=run)
    task_id = add(database, "work")
    assert is_active.wait(5)
    with database.write() as tx:
        tasks.cancel(tx, "@admin:localhost", task_id)
    may_end.set()

    wait_for(lambda: find(database, task_id).result is not None)
    assert find(database, task_id).status == tasks.COMPLETE


def test_many_reports_are_few_writes(database: Database, start: Start) -> None:
    def run(_db: Database, _task: Task, report: Report) -> Json:
        for step in range(2000):
            report({"step": step})
        return {}

    start(work=run)
    before = database.writer.last_position
    task_id = add(database, "work")

    assert ended(database, task_id).status == tasks.COMPLETE
    assert database.writer.last_position - before < 100


def test_a_task_that_fails_says_why_and_the_next_one_runs(
    database: Database, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def run(_db: Database, task: Task, _report: Report) -> Json:
        if task.params["how"] == "refused":
            raise errors.not_found("There is no such room")
        if task.params["how"] == "bug":
            raise KeyError("x")
        return {}

    start(work=run)
    refused, bug, fine = (add(database, "work", how=how) for how in ("refused", "bug", "fine"))

    assert ended(database, fine).status == "complete"
    assert ended(database, refused).error == "There is no such room"
    assert ended(database, bug).status == "failed"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_read_of_a_failing_disk_ends_no_task_and_does_not_keep_others_from_starting(
    database: Database, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = sqlite3.OperationalError("disk I/O error")
    failing.sqlite_errorcode = sqlite3.SQLITE_IOERR
    problems, select_tasks = [failing], tasks.select_tasks

    def fail_once(*given: Any, **options: Any) -> list[Task]:
        if problems:
            raise problems.pop()
        return select_tasks(*given, **options)

    def run(_db: Database, _task: Task, _report: Report) -> Json:
        if not has_failed.is_set():
            has_failed.set()
            raise failing
        return {"done": True}

    has_failed = threading.Event()
    monkeypatch.setattr(background, "_SECONDS_AFTER_AN_ERROR", 0.05)
    monkeypatch.setattr(tasks, "select_tasks", fail_once)
    start(work=run)

    assert ended(database, add(database, "work")).result == {"done": True}
    assert (problems, has_failed.is_set()) == ([], True)


def test_a_task_goes_on_after_a_restart(database: Database, start: Start) -> None:
    is_active, may_go_on = threading.Event(), threading.Event()

    def run_long(_db: Database, _task: Task, report: Report) -> Json:
        for done in range(100):
            report({"done": done})
            is_active.set()
            may_go_on.wait(5)
        return {"done": 100}

    runner = start(count=run_long)
    task_id = add(database, "count")
    assert is_active.wait(5)
    threading.Timer(0.1, may_go_on.set).start()
    runner.stop()
    interrupted = find(database, task_id)
    assert (interrupted.status, interrupted.result) == ("active", {"done": 1})

    start(count=lambda _db, task, _report: {"resumed": task.id == task_id})

    assert ended(database, task_id).result == {"resumed": True}


def test_outcomes_are_forgotten_after_a_week(database: Database, start: Start) -> None:
    start(work=lambda _db, _task, _report: {})
    old = ended(database, add(database, "work")).id
    with database.write() as tx:
        tx.now_ms -= tasks.KEPT_MS + 60_000
        tasks.record(tx, old, tasks.COMPLETE)

    new = add(database, "work")

    with database.read() as tx, pytest.raises(errors.MatrixError, match="no such task"):
        tasks.find(tx, old)
    assert ended(database, new).status == "complete"


def test_tasks_are_found_by_what_they_do_and_concern(database: Database) -> None:
    ids = [add(database, "purge"), add(database, "redact")]

    with database.read() as tx:
        assert [task.id for task in tasks.select_tasks(tx)] == ids
        assert [task.id for task in tasks.select_tasks(tx, actions=["redact"])] == ids[1:]
        assert tasks.select_tasks(tx, statuses=["failed"]) == []
        assert len(tasks.select_tasks(tx, resource_id="!room")) == 2
        assert tasks.select_tasks(tx, created_before_ts=1) == []
        with pytest.raises(errors.MatrixError):
            tasks.find(tx, ids[0], "redact")
