"""Workers and applications that fail to start, for gunicorn to load instead of ours."""

from __future__ import annotations

from typing import NoReturn

from homebody.config.settings import ConfigError
from homebody.runtime.watchdog import Watchdog
from homebody.server import worker


class Worker(worker.Worker):
    """Fails after everything is loaded, as on a machine with too many threads."""

    def _watchdog(self) -> Watchdog:
        raise RuntimeError("can't start new thread")


def make_app() -> NoReturn:
    """Fail as create_app does if something has changed since the master's check."""
    raise ConfigError("The signing key has gone")
