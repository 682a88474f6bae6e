"""Tasks that administrators order: their order, their status, failures, and restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from homebody import errors
from homebody.background.tasks import Report, Run, Tasks
from homebody.core import tasks
from homebody.core.tasks import Task
from homebody.spec.events import Json
from homebody.storage.database import Database
from homebody.web import Application
from tests.helpers.deliveries import wait_until

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


def add(database: Database, action: str, **params: object) -> str:
    with database.write() as tx:
        return tasks.add(tx, action, params, "!room")


def find(database: Database, task_id: str) -> Task:
    with database.read() as tx:
        return tasks.find(tx, task_id)


def ended(database: Database, task_id: str) -> Task:
    wait_until(lambda: find(database, task_id).status in {"complete", "failed"})
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
