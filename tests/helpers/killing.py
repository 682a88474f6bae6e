"""Kill a command with SIGKILL just before its n-th access to a file.

An audit hook of Python counts the files that are opened, moved or removed, so the moments are the
same in every run, however slow the machine. Nothing of homebody is replaced.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.backups import environ_of

HOW_MANY: Final = [8, pytest.param(1000, marks=[pytest.mark.big, pytest.mark.timeout(600)])]
"""Moments to test: some of them, or all in the large size."""
_PROGRAM: Final = """
import os, signal, sys
moment, folder = int(sys.argv.pop(1)), sys.argv.pop(1)
count = 0

def hook(event, args):
    global count
    if event in EVENTS and any(str(it).startswith(folder) for it in args[:2]):
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "sqlite3.connect"}
from homebody.cli import main
sys.addaudithook(hook)
try:
    main()
finally:
    print(count)
"""


def run(data_dir: Path, command: str, other: Path, moment: int, touched: Path | None = None) -> int:
    """Kill a backup or restore at this moment (0: never) and return the number of moments.

    `touched` is the folder in which accesses count, if not that which the command fills.
    """
    touched = touched or (other if command == "backup" else data_dir)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(moment), str(touched), command, str(other)],
        env=environ | environ_of(data_dir),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if moment else 0), done.stderr
    return 0 if moment else int(done.stdout.splitlines()[-1])


def moments(data_dir: Path, command: str, other: Path, scratch: Path, most: int) -> Iterator[int]:
    """Yield moments of a command, spread from the first to the last.

    The command is a backup into a copy of the folder `other`, or a restore from it into a new one.
    """
    if command == "backup":
        copy = scratch / "counted"
        shutil.copytree(other, copy)
        count = run(data_dir, command, copy, 0)
    else:
        count = run(scratch / "counted", command, other, 0)
    shutil.rmtree(scratch / "counted")
    yield from sorted({1 + round(at * (count - 1) / (most - 1)) for at in range(most)})
