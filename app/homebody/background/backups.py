"""Make the scheduled backups, in a process of its own with a low priority.

When the next one is due follows from the files in the folder, so a restart changes nothing, and a
backup that was due while the server was stopped is made soon after the start. One that fails is
tried again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Final

from homebody.config.tables import Backup
from homebody.runtime import event_loop
from homebody.runtime.metrics import Metrics
from homebody.storage import backup_folder

LOG = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-P", "-m", "homebody.server.unhurried", "backup", "run")
SECONDS_AFTER_THE_START: Final = 10.0
SECONDS_AFTER_A_FAILURE: Final = 600.0
_MOST_SECONDS_BETWEEN_LOOKS: Final = 60.0
"""As the clock of the machine may be set, and somebody may delete files."""
_SECONDS_BETWEEN_POLLS: Final = 0.1
_SECONDS_TO_STOP: Final = 2.0
_SKEW_MS: Final = 3_600_000


class FailedError(Exception):
    """What the command said when it failed."""


class Backups:
    """The greenlet for it. `start` after fork; `stop` ends a backup that is being made."""

    def __init__(
        self,
        settings: Backup,
        metrics: Metrics,
        command: tuple[str, ...] = COMMAND,
        first_s: float = SECONDS_AFTER_THE_START,
        retry_s: float = SECONDS_AFTER_A_FAILURE,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._command = command
        self._first_s = first_s
        self._retry_s = retry_s
        self._stopping = threading.Event()
        self._greenlet: threading.Thread | None = None

    def start(self) -> None:
        """Make backups from now on, if the settings name a folder for them."""
        if self._settings.folder is not None:
            arguments = (self._settings.folder,)
            self._greenlet = threading.Thread(target=self._run_all, args=arguments, daemon=True)
            self._greenlet.start()

    def stop(self) -> None:
        """End the running backup, which removes what it has written, and begin no more."""
        self._stopping.set()
        if self._greenlet is not None:
            self._greenlet.join(_SECONDS_TO_STOP)

    def _run_all(self, folder: Path) -> None:
        wait_s = self._first_s
        while not self._stopping.wait(wait_s):
            try:
                wait_s = self._seconds_until_due(folder)
                if wait_s <= 0:
                    self._make()
            except (FailedError, OSError) as problem:
                if not self._stopping.is_set():
                    LOG.warning(
                        "the backup failed, and is tried again in %d s: %s", self._retry_s, problem
                    )
                wait_s = self._retry_s
            wait_s = max(0.0, wait_s)

    def _seconds_until_due(self, folder: Path) -> float:
        # In a thread, as the disk may be one that sleeps, or a network's
        found = event_loop.offload(backup_folder.archives, folder)
        now_ms = time.time_ns() // 1_000_000
        # One from the future was made while the clock was wrong
        made = [it.created_ts for it in found if it.created_ts < now_ms + _SKEW_MS]
        due_ms = made[0] + self._settings.every_ms if made else now_ms
        return min((due_ms - now_ms) / 1000, _MOST_SECONDS_BETWEEN_LOOKS)

    def _make(self) -> None:
        """Run the command and wait for it. Raises FailedError and OSError."""
        with tempfile.TemporaryFile() as output, self._metrics.backups.timed():
            status = self._wait(self._spawn(output))
            output.seek(0)
            lines = output.read().decode("utf-8", "replace").splitlines() or ["no output"]
            if status:
                raise FailedError(lines[-1].removeprefix("homebody: "))
        LOG.info("backup: %s", lines[-1])

    def _spawn(self, output: IO[bytes]) -> int:
        """Start the command without fork, which would copy the tables of this process's memory."""
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
        ]
        defaults = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
        return os.posix_spawn(
            self._command[0],
            self._command,
            os.environ,
            file_actions=actions,
            setsigdef=defaults,
            setsigmask=(),
        )

    def _wait(self, process: int) -> int:
        """Return the exit status of a process, which is ended when the server stops."""
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if self._stopping.wait(_SECONDS_BETWEEN_POLLS):
                os.kill(process, signal.SIGTERM)
                time.sleep(_SECONDS_BETWEEN_POLLS)
        return ended[1]
