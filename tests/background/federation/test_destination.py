"""When a server is tried again, and what is kept for it meanwhile."""

from __future__ import annotations

import time

import pytest

from homebody.background.federation import transactions
from homebody.background.federation.destination import MAX_WAITING_EDUS, Destination
from homebody.background.federation.transactions import Entry, Transaction
from homebody.core.federation.catch_up import MAX_EVENTS, Missing
from homebody.core.outgoing import MAX_WAIT_MS, NEVER, NOT_LOGGED, Progress

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


@pytest.fixture
def b() -> Destination:
    return Destination(Progress("b.test"))


def entries(*positions: int) -> list[Entry]:
    return [Entry(it, b"{}") for it in positions]


def transaction(*positions: int) -> Transaction:
    return transactions.make("localhost", entries(*positions), [], [])


def add(destination: Destination, *positions: int) -> None:
    for entry in entries(*positions):
        destination.add(entry)


def has_unfinished(destination: Destination) -> bool:
    return destination.unfinished is not None


def test_waits_double_while_they_are_short_beside_the_outage_and_end_after_a_week(
    b: Destination,
) -> None:
    now_ms, waits = NOW_MS, []

    while b.next_try_ts != NEVER:
        b.fail(now_ms, "down")
        if b.next_try_ts != NEVER:
            waits.append((now_ms - NOW_MS, b.next_try_ts - now_ms))
            now_ms = b.next_try_ts

    for number, (failing_ms, wait_ms) in enumerate(waits):
        expected = min(1_000 * 2**number, 20_000 + failing_ms / 30)
        assert 0.79 * expected <= wait_ms <= 1.21 * expected
    assert 7 * DAY_MS < now_ms - NOW_MS < 8 * DAY_MS
    assert 150 < len(waits) < 260


def test_after_an_outage_of_ten_minutes_a_server_is_tried_again_within_a_minute(
    b: Destination,
) -> None:
    while b.next_try_ts < NOW_MS + 600_000:
        b.fail(max(NOW_MS, b.next_try_ts), "down")

    assert b.next_try_ts < NOW_MS + 650_000


def test_a_server_is_tried_when_its_time_has_come(b: Destination) -> None:
    b.fail(NOW_MS, "down")

    assert not b.is_due(NOW_MS)
    assert b.is_due(b.next_try_ts)
    assert b.is_due(NOW_MS - 2 * MAX_WAIT_MS)  # the clock was set back


def test_a_silent_server_is_not_due_until_it_makes_a_request(b: Destination) -> None:
    b.fail(NOW_MS, "down")
    b.fail(NOW_MS + 8 * DAY_MS, "still down")
    later_ms = NOW_MS + 100 * DAY_MS

    assert not b.is_due(later_ms)
    b.hurry(later_ms)
    assert b.is_due(later_ms)


def test_requests_of_a_failing_server_cause_an_attempt_per_second_at_most(b: Destination) -> None:
    for _ in range(10):
        b.fail(NOW_MS, "down")

    b.hurry(NOW_MS + 10)

    assert not b.is_due(NOW_MS + 999)
    assert b.is_due(NOW_MS + 1_000)


def test_an_accepted_transaction_ends_the_failure(b: Destination) -> None:
    add(b, 5, 6)
    b.fail(NOW_MS, "down")

    b.accept(transaction(5), NOW_MS)

    assert (b.tries, b.problem, b.failing_since_ts, b.next_try_ts) == (0, None, None, 0)
    assert [it.position for it in b.queue] == [6]
    assert b.cursor == 5


def test_a_server_with_too_many_events_is_read_from_the_log_again(b: Destination) -> None:
    add(b, *range(10, 10 + MAX_EVENTS))
    was_behind = b.is_behind

    add(b, 2_000)

    assert (was_behind, b.is_behind) == (False, True)
    assert not b.queue
    assert b.cursor == 9


def test_a_transaction_that_is_accepted_after_falling_behind_does_not_skip_events(
    b: Destination,
) -> None:
    add(b, 10, 11)
    b.fall_behind(4)

    b.accept(transaction(10, 11), NOW_MS)

    assert b.is_behind
    assert b.cursor == 4


def test_new_events_are_queued_once_all_missing_ones_are_accepted(b: Destination) -> None:
    b.fall_behind(4)
    b.lacks([Missing(5, 1), Missing(7, 2)], upto=8, log_end=8)
    add(b, 9)
    b.accept(transaction(5), NOW_MS)
    assert b.cursor == 4

    b.accept(transaction(7), NOW_MS)
    assert (b.is_behind, b.cursor) == (True, 8)
    b.lacks([], upto=9, log_end=9)
    add(b, 10)

    assert not b.is_behind
    assert [it.position for it in b.queue] == [10]


def test_events_that_come_while_the_log_is_read_keep_the_server_behind(b: Destination) -> None:
    b.fall_behind(4)

    b.lacks([], upto=8, log_end=9)

    assert (b.is_behind, b.cursor) == (True, 8)


def test_after_some_failures_memory_is_freed(b: Destination) -> None:
    add(b, 10, 11)
    b.add_edu("m.typing", "key", b"{}")
    rows = [transactions.ReliableEdu(3, b"{}")]
    b.unfinished = transactions.make("localhost", entries(10), rows, [])

    b.fail(NOW_MS, "down")
    after_one = (has_unfinished(b), len(b.edus), len(b.queue))
    for _ in range(4):
        b.fail(NOW_MS, "down")

    assert after_one == (True, 0, 2)
    assert (has_unfinished(b), b.is_behind, b.cursor, b.has_rows) == (False, True, 9, True)
    assert not b.queue


def test_a_failing_server_gets_no_edus_and_a_waiting_one_not_too_many(b: Destination) -> None:
    for number in range(MAX_WAITING_EDUS + 10):
        b.add_edu("m.typing", number, b"{}")
    assert len(b.edus) == MAX_WAITING_EDUS

    b.fail(NOW_MS, "down")
    b.add_edu("m.typing", "key", b"{}")

    assert not b.edus


def test_a_server_that_is_late_or_fails_has_its_own_place(b: Destination) -> None:
    add(b, 10)
    now = time.monotonic()

    assert b.progress(now).sent_upto is None
    assert b.progress(now + 6).sent_upto == 9
    b.fail(NOW_MS, "down")
    assert b.progress(now).sent_upto == 9


def test_a_place_that_the_log_no_longer_has_is_forgotten(b: Destination) -> None:
    b.fall_behind(4)
    b.lacks([Missing(5, 1)], upto=8, log_end=8)

    b.forget_place(20)

    known = b.progress(0.0)
    assert known.sent_upto == NOT_LOGGED
    assert not b.missing
    assert Destination(known).is_behind


def test_the_id_of_a_transaction_names_its_content() -> None:
    rows = [transactions.ReliableEdu(7, b'{"n":1}'), transactions.ReliableEdu(9, b'{"n":2}')]

    both = transactions.make("localhost", entries(5, 8), rows, [])
    again = transactions.make("localhost", entries(5, 8), rows, [])
    others = [
        transactions.make("localhost", entries(5), rows, []),
        transactions.make("localhost", entries(5, 6, 8), rows, []),
        transactions.make("localhost", entries(5, 8), rows[:1], []),
        transactions.make("localhost", entries(5, 8), rows, [b"{}"]),
        transactions.make("localhost", entries(5, 8), rows, [b"{}"]),
    ]

    assert both.txn_id == again.txn_id == "5-8-2.e7-9"
    assert len({both.txn_id, *(it.txn_id for it in others)}) == 6


def test_a_transaction_has_a_limited_size() -> None:
    parts = [b"x" * 40, b"x" * 40, b"x" * 40]

    assert transactions.fitting(parts, 100) == 2
    assert transactions.fitting(parts, 120) == 3
    assert transactions.fitting(parts, 39) == 0


def test_a_refused_transaction_is_made_smaller_and_a_single_event_left_out(b: Destination) -> None:
    b.fall_behind(9)
    b.lacks([Missing(10, 1), Missing(11, 2)], upto=11, log_end=11)
    sizes, now_ms = [], NOW_MS
    is_left_out = False
    while not is_left_out:
        sizes.append(b.max_pdus)
        now_ms = max(now_ms, b.next_try_ts)
        b.fail(now_ms, "refused")
        is_left_out = b.refuse(transaction(10))

    assert sizes[:7] == [50, 25, 12, 6, 3, 1, 1]
    assert now_ms - NOW_MS > 1_000_000
    assert [it.position for it in b.missing] == [11]
    b.accept(transaction(11), NOW_MS)
    assert b.max_pdus == 1
    b.lacks([], upto=11, log_end=11)
    b.accept(transactions.make("localhost", [], [], [b"{}"]), NOW_MS)
    assert b.max_pdus == transactions.MAX_PDUS


def test_a_server_that_asks_to_wait_is_not_tried_before(b: Destination) -> None:
    b.fail(NOW_MS, "too many requests", 30_000)

    assert b.next_try_ts == NOW_MS + 30_000
    b.fail(NOW_MS, "too many requests", 10**15)
    assert b.next_try_ts == NOW_MS + MAX_WAIT_MS
