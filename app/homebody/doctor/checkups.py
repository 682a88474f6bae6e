"""What the doctor has found last, for the pages of the running server."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from homebody import errors
from homebody.doctor import apart, last_findings
from homebody.doctor.last_findings import LastFindings


class Checkups:
    """The latest findings. Only one check of the pages runs at a time."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._own: LastFindings | None = None
        """What was found for a page; it may not be on the disk if that is full."""
        self.lock = threading.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a check is running."""
        return self.lock.locked()

    def latest(self) -> LastFindings | None:
        """Return the latest findings, also those of the command and of before the start."""
        noted, own = last_findings.read(self._data_dir), self._own
        return own if noted is None or (own is not None and own.ts > noted.ts) else noted

    def run(self, environ: Mapping[str, str], by: str) -> None:
        """Run the command for an administrator, which takes up to half a minute.

        Raises M_LIMIT_EXCEEDED while another check runs, M_UNKNOWN (500) if the command fails.
        """
        if not self.lock.acquire(blocking=False):
            raise errors.limit_exceeded(10_000)
        try:
            self._own = last_findings.note(self._data_dir, by, apart.run(environ))
        except apart.DoctorError as error:
            raise errors.unknown(str(error), 500) from error
        finally:
            self.lock.release()
