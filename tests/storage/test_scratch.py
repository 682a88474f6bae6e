"""Files that are needed for a moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from homebody.application import create_app
from homebody.config import settings
from homebody.storage import scratch

CRASH = """
import os, sys
from pathlib import Path
from homebody.storage import scratch
with scratch.file(Path(sys.argv[1])) as file:
    file.write(b"half a response")
    file.flush()
    os._exit(9)
"""


def left_in(data_dir: Path) -> list[bytes]:
    return [it.read_bytes() for it in (data_dir / scratch.FOLDER).glob("*")]


def test_a_file_is_gone_at_the_end_of_its_block(tmp_path: Path) -> None:
    with scratch.file(tmp_path) as file:
        file.write(b"a response")
        file.flush()
        within = Path(file.name).read_bytes()

    assert within == b"a response"
    assert left_in(tmp_path) == []


def test_what_a_crash_left_is_gone_at_the_next_start(stopped: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, str(stopped)], check=False)
    before = left_in(stopped)

    create_app(settings.load(None, {}, {"data_dir": str(stopped)}))

    assert before == [b"half a response"]
    assert left_in(stopped) == []
