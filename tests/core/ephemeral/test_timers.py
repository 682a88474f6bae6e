"""Calls that are made later, and the end of them."""

from __future__ import annotations

import threading

import pytest

from homebody.core.ephemeral.timers import Timers

SECONDS = 10.0
HOUR = 3_600_000


def test_calls_are_made_in_the_order_in_which_they_are_due() -> None:
    now_ms = 0
    timers = Timers(lambda: now_ms)
    made: list[str] = []
    for due_ms, name in ((3 * HOUR, "c"), (HOUR, "a"), (2 * HOUR, "b"), (4 * HOUR, "d")):
        timers.call_at(due_ms, lambda name=name: made.append(name))  # type: ignore[misc]  # bound at once

    now_ms = 3 * HOUR
    timers.run_due()
    timers.close()

    assert made == ["a", "b", "c"]


def test_a_jump_of_the_clock_makes_calls_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homebody.core.ephemeral.timers.MAX_WAIT_S", 0.05)
    now_ms = 0
    timers = Timers(lambda: now_ms)
    is_made = threading.Event()
    timers.call_at(HOUR, is_made.set)
    was_made = is_made.wait(0.2)

    now_ms = HOUR

    assert is_made.wait(SECONDS)
    timers.close()
    assert not was_made


def test_closing_waits_for_the_call_under_way_and_makes_none_after() -> None:
    timers = Timers(lambda: 0)
    began, may_end = threading.Event(), threading.Event()
    made: list[str] = []

    def first() -> None:
        began.set()
        assert may_end.wait(SECONDS)
        made.append("under way")

    timers.call_at(0, first)
    timers.call_at(0, lambda: made.append("due as well"))
    assert began.wait(SECONDS)
    closing = threading.Thread(target=timers.close)
    closing.start()
    closing.join(0.05)
    was_waiting = closing.is_alive()
    may_end.set()
    closing.join(SECONDS)

    assert (was_waiting, closing.is_alive()) == (True, False)
    assert made == ["under way"]


def test_a_call_that_asks_for_itself_again_does_not_keep_them_open() -> None:
    timers = Timers(lambda: 0)
    is_running = threading.Event()

    def again() -> None:
        is_running.set()
        timers.call_at(0, again)

    timers.call_at(0, again)
    assert is_running.wait(SECONDS)
    closing = threading.Thread(target=timers.close, daemon=True)
    closing.start()
    closing.join(SECONDS)

    assert not closing.is_alive()
