"""Statements that take long: few at once, some that wait, and an end to each."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from homebody.errors import MatrixError
from homebody.storage import long_reads
from homebody.storage.long_reads import Gate
from homebody.web import Application
from tests.conftest import ROOT

ENDLESS = """
    WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers)
    SELECT count(*) FROM numbers
"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as made:
        yield made


def refusal(gate: Gate) -> tuple[int, str] | None:
    """What somebody hears who comes to the gate now; None: they are let in."""
    try:
        with gate.turn():
            return None
    except MatrixError as error:
        return error.status, error.errcode


def test_some_run_some_wait_and_the_rest_is_refused() -> None:
    gate = Gate(at_once=1, waiting=1)
    has_waited = threading.Event()

    def wait() -> None:
        with gate.turn():
            has_waited.set()

    with gate.turn():
        waiting = threading.Thread(target=wait)
        waiting.start()
        while gate.inside < 2:
            pass
        refused = refusal(gate)
        was_let_in = has_waited.is_set()
    waiting.join()

    assert refused == (429, "M_LIMIT_EXCEEDED")
    assert (was_let_in, has_waited.is_set()) == (False, True)
    assert refusal(gate) is None


def test_a_turn_that_ends_with_an_error_lets_the_next_one_in() -> None:
    gate = Gate(at_once=1, waiting=0)

    with pytest.raises(KeyError), gate.turn():
        raise KeyError

    assert refusal(gate) is None


def test_a_statement_without_end_is_interrupted(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_reads, "MAX_SECONDS", 0.05)

    with pytest.raises(MatrixError) as raised:
        long_reads.fetch(connection, ENDLESS, {})

    assert (raised.value.status, raised.value.errcode) == (503, "M_UNKNOWN")
    assert long_reads.fetch(connection, "SELECT :one", {"one": 1}) == [(1,)]


def test_what_is_wrong_with_a_statement_is_told_as_ever(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        long_reads.fetch(connection, "SELECT * FROM nowhere", {})


def test_every_long_read_of_the_server_has_these_bounds(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_reads, "MAX_SECONDS", 0.05)

    with app.homeserver.database.read() as tx, pytest.raises(MatrixError):
        tx.sql.execute_long(text(ENDLESS), {})


IN_GREENLETS = """
import gevent.monkey

gevent.monkey.patch_all()
import sqlite3
import sys

import gevent

from homebody.errors import MatrixError
from homebody.storage import long_reads

long_reads.MAX_SECONDS = 0.1


def read():
    try:
        long_reads.fetch(sqlite3.connect(":memory:", check_same_thread=False), sys.argv[1], {})
    except MatrixError as error:
        return error.status


reads = [gevent.spawn(read) for _ in range(long_reads.AT_ONCE + long_reads.MAX_WAITING + 5)]
turns = 0
while any(it.dead is False for it in reads):
    gevent.sleep(0.01)
    turns += 1
print(sorted(it.value for it in reads), turns)
"""


def test_in_the_server_others_go_on_while_statements_run_and_all_of_them_end() -> None:
    command = [sys.executable, "-c", IN_GREENLETS, ENDLESS]

    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=60)

    answers, _, turns = done.stdout.rpartition(" ")
    assert answers == str([429] * 5 + [503] * 24)
    assert int(turns) > 24, "everybody waited for the statements"
