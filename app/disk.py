"""What has to outlive a loss of power, beyond what a file's own fsync brings to the disk."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a file just made or renamed is lost without that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> list[Path]:
    """The folders that have a new entry now that this one is there, and this one itself.

    What was missing is made, for the owner alone. They are to be synced when the files are in them.
    """
    missing = [folder]
    while not missing[-1].exists():
        missing.append(missing[-1].parent)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return missing
