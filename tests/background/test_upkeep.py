"""Jobs run from time to time, one after the other; failures and the end of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homebody.background import upkeep
from homebody.background.upkeep import Job, Step, Upkeep
from homebody.errors import MatrixError
from homebody.storage import data_folder, upkeep_pause, vacuum
from homebody.web import Application
from tests.helpers.waiting import wait_for

Start = Callable[..., Upkeep]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Upkeep] = []

    def start_one(*jobs: Job) -> Upkeep:
        found = Upkeep(jobs, tmp_path)
        started.append(found)
        found.start()
        return found

    yield start_one
    for it in started:
        it.stop()


def test_each_job_runs_again_and_again(start: Start) -> None:
    runs: list[str] = []

    start(
        Job("often", 0.01, 0.0, lambda _: runs.append("often")),
        Job("seldom", 100.0, 0.0, lambda _: runs.append("seldom")),
        Job("later", 0.01, 100.0, lambda _: runs.append("later")),
    )

    wait_for(lambda: runs.count("often") >= 3)
    assert runs.count("seldom") == 1
    assert "later" not in runs


@pytest.mark.parametrize(
    "problem", [MatrixError(503, "M_UNKNOWN", "full"), OSError("gone"), KeyError("a bug")]
)
def test_a_job_that_fails_runs_again_and_the_others_go_on(
    start: Start, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    def fail(_: Step) -> None:
        runs.append("fail")
        raise problem

    start(Job("fail", 0.01, 0.0, fail), Job("good", 0.01, 0.0, lambda _: runs.append("good")))

    wait_for(lambda: runs.count("fail") >= 2 and runs.count("good") >= 2)
    assert "upkeep: fail" in caplog.text


def test_a_running_job_ends_at_its_next_step_when_the_server_stops(start: Start) -> None:
    began, steps = threading.Event(), []

    def endless(step: Step) -> None:
        while True:
            steps.append(1)
            began.set()
            step()

    running = start(Job("endless", 1.0, 0.0, endless))
    began.wait(5)

    running.stop()

    began.clear()
    assert not began.wait(0.3)
    assert steps


def test_a_pause_holds_the_running_job_and_all_others(start: Start, tmp_path: Path) -> None:
    steps: list[int] = []
    runs: list[int] = []

    def work(step: Step) -> None:
        for _ in range(3):
            step()
            steps.append(1)

    running = start(Job("long", 0.0, 0.0, work), Job("short", 0.0, 0.0, lambda _: runs.append(1)))
    wait_for(lambda: len(steps) >= 2)
    upkeep_pause.put(tmp_path)
    time.sleep(0.2)  # for the step that has begun
    before = len(steps), len(runs)
    time.sleep(0.5)

    assert running.is_paused
    assert (len(steps), len(runs)) == before
    upkeep_pause.remove(tmp_path)
    wait_for(lambda: len(steps) > before[0] and len(runs) > before[1])
    upkeep_pause.put(tmp_path)
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 1.0


def test_what_is_in_memory_is_written_while_upkeep_is_paused_or_busy(
    start: Start, tmp_path: Path
) -> None:
    runs: list[str] = []

    def work(step: Step) -> None:
        while True:
            runs.append("long")
            step()

    start(
        Job("long", 0.0, 0.0, work),
        Job("writing", 0.01, 0.0, lambda _: runs.append("writing"), can_wait=False),
    )
    wait_for(lambda: {"long", "writing"} <= set(runs))
    upkeep_pause.put(tmp_path)
    before = runs.count("writing")

    wait_for(lambda: runs.count("writing") > before + 2)


def test_a_pause_ends_with_the_next_start(start: Start, tmp_path: Path) -> None:
    runs: list[int] = []
    upkeep_pause.put(tmp_path)

    running = start(Job("short", 0.0, 0.0, lambda _: runs.append(1)))

    wait_for(lambda: len(runs) > 1)
    assert not running.is_paused


def test_the_jobs_of_a_server_run(app: Application) -> None:
    found = upkeep.jobs(
        app.homeserver.database, app.homeserver.media_used, app.homeserver.sliding_connections
    )

    for job in found:
        job.run(lambda: None)

    assert len({job.name for job in found}) == len(found) >= 5


def test_space_is_given_back_when_it_is_worth_it(app: Application) -> None:
    database = app.homeserver.database
    steps: list[int] = []

    def fill(pages: int) -> None:
        with database.write() as tx:
            tx.sql.raw.execute("CREATE TABLE ballast (x BLOB)")
            for _ in range(pages):
                tx.sql.raw.execute("INSERT INTO ballast VALUES (zeroblob(4000))")
            tx.sql.raw.execute("DROP TABLE ballast")

    fill(500)
    upkeep.give_space_back(database, lambda: steps.append(1))
    assert steps == []
    fill(4000)

    upkeep.give_space_back(database, lambda: steps.append(1))

    assert len(steps) > 10
    with database.read() as tx:
        assert vacuum.pages(tx).free <= vacuum.pages(tx).kept


def test_the_database_from_before_an_upgrade_is_deleted_after_some_days(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = app.homeserver.database
    path = data_folder.database_path(database.server.config.database_url)
    old = path.with_name(f"{path.name}.before-0001")
    old.touch()
    (job,) = (
        it
        for it in upkeep.jobs(
            database, app.homeserver.media_used, app.homeserver.sliding_connections
        )
        if it.name == "deleting old databases"
    )

    job.run(lambda: None)
    is_kept = old.exists()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 8 * 86_400)
    job.run(lambda: None)

    assert is_kept
    assert not old.exists()
    assert path.exists()
