"""The benchmark of sliding sync runs."""

from __future__ import annotations

from pathlib import Path

from tests.bench import sliding


def test_each_row_is_measured(tmp_path: Path) -> None:
    rows = dict(sliding.measure(tmp_path, rooms=24))

    assert len(rows) == 6
    assert all(taken_ms > 0 for taken_ms in rows.values())
