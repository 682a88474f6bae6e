"""Whether upkeep is paused: a file in the data folder, which lasts until the server's next start.

Commands and the running server share it; `background/upkeep.py` looks at it between two steps.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

NAME: Final = "upkeep-paused"


def put(data_dir: Path) -> None:
    """Pause upkeep. Raises OSError."""
    path = data_dir / NAME
    path.touch()
    with contextlib.suppress(OSError):  # as root, for the server's user
        owner = data_dir.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def remove(data_dir: Path) -> None:
    """Have upkeep go on. Raises OSError."""
    (data_dir / NAME).unlink(missing_ok=True)


def is_there(data_dir: Path) -> bool:
    """Return whether upkeep is paused."""
    return (data_dir / NAME).exists()
