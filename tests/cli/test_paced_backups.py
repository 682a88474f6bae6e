"""Scheduled backups leave the disk to the server for half of the time."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress

import pytest

from homebody.background import backups
from homebody.cli import backup
from homebody.server import unhurried


def test_after_each_piece_the_backup_rests_as_long_as_that_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    rests: list[float] = []
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", rests.append)
    show = backup.paced(lambda done, total: shown.append((done, total)))

    for seconds in (0.02, 0.1, 30.0):
        now[0] += seconds
        show(1, 2)

    assert rests == pytest.approx([0.02, 0.1, backup.MAX_REST_S])
    assert shown == [(1, 2)] * 3


def test_a_command_has_the_lowest_priority_from_the_beginning() -> None:
    assert backups.COMMAND[2:4] == ("-m", "homebody.server.unhurried")
    seen = set()

    with subprocess.Popen(
        [*backups.COMMAND[:4], "--version"], stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            with suppress(ProcessLookupError):
                seen.add(os.getpriority(os.PRIO_PROCESS, process.pid))
            time.sleep(0.002)
        output = process.stdout.read() if process.stdout else ""

    assert process.returncode == 0
    assert output.startswith("homebody")
    assert unhurried.NICENESS in seen
