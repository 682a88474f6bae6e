"""When this server was last backed up, and to where: a note in its data folder.

Whatever makes a backup writes it; `homebody doctor` and administrators read it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "last-backup.json"
MAX_DAYS: Final = 8
"""A week, and a day for the one that is due."""


class LastBackup(msgspec.Struct, frozen=True):
    """A backup that was completed."""

    ts: int
    """ms"""
    place: str
    """The path of its folder or file."""

    @property
    def is_old(self) -> bool:
        """Whether there should be a newer one by now."""
        return time.time() - self.ts / 1000 > MAX_DAYS * 86_400


def note(data_dir: Path, place: Path) -> None:
    """Note that a backup was completed just now. A note that can't be written is left out."""
    made = LastBackup(time.time_ns() // 1_000_000, str(place.absolute()))
    incoming = data_dir / f"{NAME}.new"
    with contextlib.suppress(OSError):  # the backup itself is complete
        incoming.write_bytes(msgspec.json.encode(made))
        with contextlib.suppress(OSError):  # as root, for the server's user
            owner = data_dir.stat()
            os.chown(incoming, owner.st_uid, owner.st_gid)
        incoming.replace(data_dir / NAME)


def read(data_dir: Path) -> LastBackup | None:
    """Return the latest backup that is known, if any."""
    try:
        return msgspec.json.decode((data_dir / NAME).read_bytes(), type=LastBackup)
    except (OSError, msgspec.DecodeError):
        return None
