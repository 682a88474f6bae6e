"""The mixed traffic: what counts as growth, and that no action of its users is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from tests.bench import habits, samples, town, traffic
from tests.bench.phones import Phones
from tests.bench.samples import Sample
from tests.bench.town import Device, Faults, Person, Town
from tests.helpers import server
from tests.helpers.server import RunningServer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Start a server for all tests of this module."""
    started = server.start(tmp_path_factory.mktemp("data"))
    yield started
    started.stop()


def hour(last: dict[str, Any], before: dict[str, Any] | None = None) -> list[Sample]:
    """Twelve samples, of which the last three differ."""
    usual: dict[str, Any] = {
        "requests": 1000,
        "pss_mb": 100.0,
        "rss_mb": 120.0,
        "caches_mb": 4.0,
        "waiting": 16,
        "connections": 41,
        "threads": 5,
        "fds": 60,
        "database_mb": 8.0,
        "failures": 0,
    } | (before or {})
    numbers = range(1, samples.COUNT + 1)
    return [Sample(minute=5.0 * it, **(usual | (last if it > 9 else {}))) for it in numbers]


def test_an_hour_in_which_nothing_grows_is_well() -> None:
    assert samples.faults(hour({}), Faults()) == []


@pytest.mark.parametrize("last", [{"pss_mb": 107.6}, {"pss_mb": 120.0, "caches_mb": 24.0}])
def test_noise_and_caches_that_fill_up_are_no_fault(last: dict[str, Any]) -> None:
    assert samples.faults(hour(last), Faults()) == []


def test_memory_that_grows_is_a_fault() -> None:
    found = samples.faults(hour({"pss_mb": 104.1}, {"pss_mb": 96.0}), Faults())

    assert found == ["memory besides the caches: 92.0 MB, and then 100.1 MB"]


def test_a_few_megabytes_more_are_no_fault_of_a_small_server() -> None:
    assert samples.faults(hour({"pss_mb": 55.9}, {"pss_mb": 50.0}), Faults()) == []


def test_what_grows_while_it_warms_up_is_no_fault() -> None:
    warm = hour({})
    cold = [dataclasses.replace(it, pss_mb=50.0, fds=30) for it in warm[:3]]

    assert samples.faults(cold + warm[3:], Faults()) == []


def test_a_single_moment_of_much_memory_is_no_fault() -> None:
    found = hour({})
    found[-2] = hour({"pss_mb": 200.0})[-2]

    assert samples.faults(found, Faults()) == []


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("waiting", "waiting requests: 16, and then 20"),
        ("connections", "connections: 41, and then 45"),
        ("threads", "threads: 5, and then 9"),
        ("fds", "descriptors: 60, and then 64"),
    ],
)
def test_what_stays_open_is_a_fault(field: str, sentence: str) -> None:
    usual = int(sentence.split(": ")[1].split(",", maxsplit=1)[0])

    within = samples.faults(hour({field: usual + samples.MORE_OPEN}), Faults())
    beyond = samples.faults(hour({field: usual + samples.MORE_OPEN + 1}), Faults())

    assert (within, beyond) == ([], [sentence])


def test_requests_that_failed_are_faults_and_the_first_of_them_are_told() -> None:
    failed = Faults()
    for number in range(30):
        failed.note(f"say: {number}")

    found = samples.faults(hour({"failures": 2}), failed)

    assert found[:2] == ["30 requests failed: say: 0", "and: say: 1"]
    assert found[-2:] == ["and: say: 19", "2 answers of 500 and more"]


def test_the_table_has_a_row_for_each_sample() -> None:
    lines = samples.markdown(hour({"pss_mb": 101.26})).splitlines()

    assert lines[0].startswith("| minute | requests | PSS MB |")
    assert len(lines) == 2 + samples.COUNT
    assert lines[-1] == "| 60.0 | 1000 | 101.3 | 120.0 | 4.0 | 16 | 41 | 5 | 60 | 8.0 |"


def test_scripts_get_samples_and_faults() -> None:
    told = samples.as_json(hour({"fds": 90}), Faults())

    assert told["samples"][-1]["fds"] == 90
    assert told["faults"] == ["descriptors: 60, and then 90"]


def test_memory_is_that_of_all_processes_of_the_group() -> None:
    found = list(samples.memory_kb(os.getpgrp()))

    assert all(0 < pss <= rss for pss, rss in found)
    assert found


@pytest.mark.parametrize(("faults", "code"), [([], 0), (["threads: 5, and then 9"], 1)])
def test_the_exit_code_tells_whether_something_is_wrong(
    faults: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Faults()
    found = hour({"threads": 9} if faults else {})
    monkeypatch.setattr(traffic, "run", lambda *_, **__: (found, failed))

    done = CliRunner().invoke(traffic.main, ["--json"])

    assert done.exit_code == code
    assert json.loads(done.stdout)["faults"] == faults
    assert done.stderr.splitlines() == faults


def test_the_same_seed_has_the_same_said() -> None:
    def said(seed: str) -> Sequence[str]:
        person = _stranger("http://127.0.0.1:9")
        person.random = Random(seed)  # noqa: S311 - as there
        return [person.words() for _ in range(3)]

    assert said("5 1") == said("5 1")
    assert said("5 1") != said("5 2")


def test_nothing_that_people_do_is_refused(running: RunningServer) -> None:
    people = town.settle(running.url, users=5, seed=1, rooms=6)
    pockets = Phones(people)
    pockets.start()

    for habit in habits.OFTEN:
        for person in people.people:
            traffic.do(people, person, habit)
    sample = samples.take(0, people.people[0].desk, running.process.pid)
    pockets.stop()
    people.hang_up()

    assert people.faults.told == []
    assert sample.failures == 0
    assert sample.requests > len(habits.OFTEN) * len(people.people)
    assert sample.connections >= len(people.people) + len(pockets)


def test_what_is_refused_is_told(running: RunningServer) -> None:
    person = _stranger(running.url)
    people = Town([person], [])

    traffic.do(people, person, habits.receive)
    people.hang_up()

    assert people.faults.count == 1
    assert people.faults.told[0].startswith("receive: ")
    assert "401" in people.faults.told[0]


def test_a_server_that_is_gone_is_told() -> None:
    person = _stranger(f"http://127.0.0.1:{server.free_port()}")
    people = Town([person], [])

    traffic.do(people, person, habits.receive)

    assert "ConnectionRefusedError" in people.faults.told[0]


def _stranger(url: str) -> Person:
    device = Device(url, "@nobody:localhost", "nobody's")
    return Person(device.user_id, device, device, Random(1))  # noqa: S311 - no secret
