"""Files in the data folder that a process needs for a moment, such as responses of other servers.

They may be larger than what fits into memory or a /tmp that lies in it. What a crash left is
deleted at the next start.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Final

FOLDER: Final = "scratch"


def file(data_dir: Path) -> AbstractContextManager[IO[bytes]]:
    """Return a new file that is deleted at the end of a with block; its `name` is its path."""
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return tempfile.NamedTemporaryFile(dir=folder)


def clear(data_dir: Path) -> None:
    """Delete what a crash left; only for the process that has locked the folder."""
    shutil.rmtree(data_dir / FOLDER, ignore_errors=True)
