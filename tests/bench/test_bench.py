"""The growth benchmark: what it fills in, how it measures, and what it takes for a fault."""

from __future__ import annotations

import itertools
from pathlib import Path

import click
import pytest

from homebody.core.events import state
from tests.bench import __main__ as bench
from tests.bench import fill, measure, storage, table
from tests.bench.fill import Sizes, Step
from tests.bench.storage import Used
from tests.bench.table import Row

TINY = Sizes(rooms=10, events=600, members=41, steps=(20, 100))


def used(size: int, state_bytes: int) -> Used:
    return Used(events=0, bytes=size, state_rows=100, state_bytes=state_bytes)


def step(percent: int, sizes: tuple[int, int, int], state_bytes: tuple[int, int, int]) -> Step:
    moments = [used(*both) for both in zip(sizes, state_bytes, strict=True)]
    return Step(percent, 0, 100, 10, *moments)


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


@pytest.mark.parametrize(("percents", "limit"), [((10, 100), 1.5), ((1, 10, 100), 1.75)])
def test_a_row_may_grow_by_the_logarithm_of_the_history(
    percents: tuple[int, ...], limit: float
) -> None:
    allowed = table.may_grow_to(percents)

    assert allowed == pytest.approx(limit)
    assert Row("send", "ms", [1.0, limit - 0.01], allowed).fault() is None


def test_a_row_that_grows_with_the_history_is_a_fault() -> None:
    row = Row("send", "ms", [2.0, 3.5, 20.0], table.may_grow_to((1, 10, 100)))

    fault = row.fault()

    assert fault is not None
    assert fault.startswith("send: grows to")
    assert "10.00" in fault


def test_a_row_that_only_tells_is_no_fault() -> None:
    assert Row("events", "", [10, 1000]).fault() is None


def test_a_change_of_state_that_takes_too_much_is_a_fault() -> None:
    first = step(10, (0, 1000, 9000), (0, 0, 4000))
    last = step(100, (9000, 9000, 20_000), (4000, 4000, 8020))

    found = table.faults(table.storage_rows([first, last]))

    assert found == ["of that for state: 401 bytes, and may be 400"]


def test_messages_and_changes_of_membership_are_told_apart() -> None:
    first = step(10, (0, 150_000, 165_000), (1000, 1000, 3000))
    last = step(100, (165_000, 325_000, 340_000), (3000, 3000, 6000))

    rows = by_name(table.storage_rows([first, last]))

    assert rows["a message takes"].values == [1500, 1600]
    assert rows["a change of membership takes"].values == [1500, 1500]
    assert rows["of that for state"].values == [200, 250]


def test_the_table_shows_values_growth_and_limits() -> None:
    rows = [Row("send", "ms", [1.234, 1.5], 1.5), Row("state", "bytes", [200, 300.4], most=400)]

    lines = table.markdown(rows, (10, 100)).splitlines()

    assert lines[0] == "| row | unit | 10 % | 100 % | growth | at most |"
    assert [line.replace("\N{MULTIPLICATION SIGN}", "*") for line in lines[2:]] == [
        "| send | ms | 1.23 | 1.5 | *1.22 | *1.50 |",
        "| state | bytes | 200 | 300 | *1.50 | 400 bytes |",
    ]


def test_scripts_get_the_same_with_the_faults() -> None:
    told = table.as_json([Row("send", "ms", [1.0, 4.0], 1.5)], (10, 100))

    assert told["rows"][0]["growth"] == 4.0
    assert len(told["faults"]) == 1


def test_all_are_measured_in_each_round_and_none_is_always_first() -> None:
    asked = []

    def take(subject: str) -> float:
        asked.append(subject)
        return float(len(asked))

    times = measure.take_turns(["small", "large"], take, 3)

    assert asked == ["small", "large", *["large", "small"], *["small", "large"], "large", "small"]
    assert times == [4.0, 3.0]


def test_noise_is_measured_again_and_growth_remains() -> None:
    noisy = itertools.chain([0.0] * 2, [9.0, 1.0], itertools.repeat(1.0))

    passed = measure.without_noise(["small", "large"], lambda _: next(noisy), 1, 1.5)
    grown = measure.without_noise([1.0, 10.0], lambda subject: subject, 1, 1.5)

    assert passed == [1.0, 1.0]
    assert grown == [1.0, 10.0]


def test_the_history_is_what_was_asked_for_and_all_are_back_in_the_end(tmp_path: Path) -> None:
    with fill.opened(tmp_path) as db:
        home = fill.move_in(db, TINY)
        steps = [fill.live(db, tmp_path / storage.NAME, home, TINY, at) for at in range(2)]
        with db.read() as tx:
            joined = state.joined(tx, home.big_room).local
            name = state.membership_of(tx, home.rooms[0], home.narrow.user_id)

    assert TINY.events - 2 * fill.BURST <= steps[-1].after.events <= TINY.events
    assert [it.changes for it in steps] == [8, 32]
    assert joined == {home.host.user_id, *home.members}
    assert len(joined) == TINY.members
    assert name == "join"
    assert len(home.said) == steps[-1].said > steps[0].said
    assert steps[-1].after.state_bytes > steps[0].before.state_bytes > 0


def test_a_change_of_state_takes_no_more_than_it_may_where_the_server_has_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "SERVER_NAME", "synapse.matrix.my-family.example.org")
    sizes = Sizes(rooms=1, events=2000, members=601, steps=(10, 100))

    with fill.opened(tmp_path) as db:
        home = fill.move_in(db, sizes)
        steps = [fill.live(db, tmp_path / storage.NAME, home, sizes, at) for at in range(2)]

    rows = by_name(table.storage_rows(steps))
    for row in (rows["of that for state"], rows["a change of state, for state, all rooms"]):
        assert row.fault() is None
        assert 100 < row.values[-1] <= 400


def test_more_rooms_than_events_are_refused(tmp_path: Path) -> None:
    few = Sizes(rooms=10, events=100, members=41, steps=(20, 100))

    with fill.opened(tmp_path) as db:
        home = fill.move_in(db, few)
        with pytest.raises(click.UsageError, match="before anything is said"):
            fill.live(db, tmp_path / storage.NAME, home, few, 0)


@pytest.mark.parametrize("text", ["", "100", "10,5,100", "0,100", "1,10", "1,x,100"])
def test_steps_that_do_not_rise_to_all_are_refused(text: str) -> None:
    with pytest.raises(click.UsageError):
        bench.percents(text)


def test_steps_are_read() -> None:
    assert bench.percents("1,10,100") == (1, 10, 100)
