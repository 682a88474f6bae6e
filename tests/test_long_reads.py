"""Statements that take long: few at once, some that wait, and an end to each."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from flask import Flask

from app import long_reads
from app.errors import MatrixError
from app.long_reads import Gate

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
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_reads, "MAX_SECONDS", 0.05)

    with app.extensions["db"].read() as tx, pytest.raises(MatrixError):
        tx.read_long(ENDLESS, {})
