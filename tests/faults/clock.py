"""A clock that can be set, for processes that are started with its environment.

Their time of day is the machine's plus an offset in a file. Python imports the `sitecustomize`
module of its path before anything else, so that every import of `time` gets this one.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

CUSTOM = """
import mmap, os, struct, time
with open(os.environ["CLOCK_FILE"], "rb") as _file:
    _ahead = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time_ns = time.time_ns
def time_ns():
    return _time_ns() + struct.unpack("q", _ahead[:8])[0]
time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
"""


class Clock:
    """The time of day of servers that are started from now on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "clock"
        self.set(0)
        custom = folder / "custom"
        custom.mkdir()
        (custom / "sitecustomize.py").write_text(CUSTOM)
        path = [str(custom), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        monkeypatch.setenv("CLOCK_FILE", str(self._file))

    def set(self, hours: float) -> None:
        """Set the clock so many hours ahead of the machine."""
        ahead = struct.pack("q", int(hours * 3_600_000_000_000))
        if not self._file.exists():
            self._file.write_bytes(ahead)
        with self._file.open("r+b") as file:  # in its place: it is mapped
            file.write(ahead)
