"""What the doctor has found last, when and for whom: a note in the data folder.

The command writes it, by itself or for a page, and the pages of the running server show it. It
outlives the server.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from homebody.doctor.findings import Finding

NAME: Final = "last-doctor.json"


class LastFindings(msgspec.Struct, frozen=True):
    """The findings of a check that was completed."""

    ts: int
    """ms"""
    by: str
    """A user ID, or "command line" with the name of a user of the machine."""
    findings: list[Finding]

    @property
    def counts(self) -> Counter[str]:
        """How many findings there are of each severity."""
        return Counter(it.severity for it in self.findings)


def note(data_dir: Path, by: str, found: list[Finding]) -> LastFindings:
    """Note what was found just now. A note that can't be written is left out."""
    made = LastFindings(time.time_ns() // 1_000_000, by, found)
    incoming = data_dir / f"{NAME}.new"
    with contextlib.suppress(OSError):
        incoming.unlink(missing_ok=True)
        descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(made))
        with contextlib.suppress(OSError):  # as root, for the server's user
            owner = data_dir.stat()
            os.chown(incoming, owner.st_uid, owner.st_gid)
        incoming.replace(data_dir / NAME)
    return made


def read(data_dir: Path) -> LastFindings | None:
    """Return the latest findings that are known, if any."""
    try:
        return msgspec.json.decode((data_dir / NAME).read_bytes(), type=LastFindings)
    except (OSError, msgspec.DecodeError):
        return None


def command_line() -> str:
    """Return who runs a command, for a note."""
    uid = os.getuid()
    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(uid).pw_name
    except KeyError:  # as in some containers
        name = str(uid)
    return f"command line ({name})"
