"""The benchmark of waits runs."""

from __future__ import annotations

from pathlib import Path

from tests.bench import waits


def test_each_kind_of_work_is_measured(tmp_path: Path) -> None:
    lines = list(waits.measure(tmp_path, members=100, events=64, files=2, idle_s=0.1))

    names = [line.split()[0] for line in lines]
    assert names == ["back_up", "delete_room", "purge_history", "delete_files", "shorten"]
