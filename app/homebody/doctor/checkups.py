"""What `homebody doctor` has found last, for the pages of the running server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

from homebody import errors
from homebody.doctor import apart
from homebody.doctor.findings import Finding


class Checkups:
    """The latest findings. Only one check runs at a time."""

    def __init__(self) -> None:
        self.ts: int | None = None
        """When they were found (ms)."""
        self.findings: list[Finding] = []
        self.lock = threading.Lock()

    @property
    def is_running(self) -> bool:
        """Whether a check is running."""
        return self.lock.locked()

    @property
    def counts(self) -> Counter[str]:
        """How many findings there are of each severity."""
        return Counter(it.severity for it in self.findings)

    def run(self, environ: Mapping[str, str]) -> None:
        """Run the command, which takes up to half a minute.

        Raises M_LIMIT_EXCEEDED while another check runs, M_UNKNOWN (500) if the command fails.
        """
        if not self.lock.acquire(blocking=False):
            raise errors.limit_exceeded(10_000)
        try:
            self.findings = apart.run(environ)
            self.ts = time.time_ns() // 1_000_000
        except apart.DoctorError as error:
            raise errors.unknown(str(error), 500) from error
        finally:
            self.lock.release()
