"""Servers that can't start, for gunicorn to run in place of ours; see test_serving.py."""

from __future__ import annotations

from typing import NoReturn

from homebody.config.settings import ConfigError
from homebody.runtime.watchdog import Watchdog
from homebody.server import worker


class Worker(worker.Worker):
    """Fails when everything is loaded, as on a machine that allows no more threads."""

    def _watchdog(self) -> Watchdog:
        raise RuntimeError("can't start new thread")


def make_app() -> NoReturn:
    """Fail as create_app does when something has changed since the master looked."""
    raise ConfigError("The signing key has gone")
