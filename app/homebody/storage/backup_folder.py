"""The folder of scheduled backups: how archives are named, which are there, which are too many."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_FORMAT: Final = "homebody-%Y%m%dT%H%M%SZ.tar"
_NAME: Final = re.compile(r"homebody-\d{8}T\d{6}Z\.tar")


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A complete archive in the folder."""

    path: Path
    created_ts: int
    """ms"""
    size_bytes: int


def name_of(ts: int) -> str:
    """Return the name of the archive of this time in ms."""
    return f"{datetime.fromtimestamp(ts / 1000, UTC):{_FORMAT}}"


def archives(folder: Path) -> list[ArchiveFile]:
    """Return the archives in a folder, the latest first. Other files are not looked at."""
    found = []
    for path in folder.glob("homebody-*.tar"):
        if not _NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(ValueError, FileNotFoundError):  # no such day; deleted meanwhile
            made = datetime.strptime(path.name, _FORMAT).replace(tzinfo=UTC)
            found.append(ArchiveFile(path, int(made.timestamp()) * 1000, path.stat().st_size))
    return sorted(found, key=lambda it: it.created_ts, reverse=True)


def delete_old(folder: Path, keep: int) -> list[Path]:
    """Delete all archives but the latest ones, and return what was deleted."""
    deleted = [it.path for it in archives(folder)[keep:]]
    for path in deleted:
        path.unlink(missing_ok=True)
    return deleted
