"""Notify systemd of what the server does, if it runs as a service with `Type=notify`.

The worker says when it is ready, reloading and stopping, and sends a sign of life from a greenlet:
there is none while the event loop is blocked, and systemd restarts the server. As that is not the
main process, the unit needs `NotifyAccess=all`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

LOG = logging.getLogger(__name__)

_PINGS_PER_LIMIT: Final = 3
"""How often the server says that it is alive in the time after which it counts as dead."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """The socket of the service manager; does nothing where there is none."""

    address: str | None = None
    ping_seconds: float | None = None
    """How often `alive` is expected, if it is."""

    def starting(self, what: str) -> None:
        """Say what is done before the server is ready."""
        self._send(f"STATUS={what}")

    def ready(self, status: str) -> None:
        """Say that the server answers requests, or that it has reloaded its settings."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that the settings are being read."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that requests are being finished."""
        self._send("STOPPING=1\nSTATUS=Finishing requests")

    def alive(self) -> None:
        """Say that the event loop turns."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)  # noqa: FBT003 - a socket's method
            try:
                channel.sendto(message.encode(), self.address)
            except OSError as problem:
                LOG.debug("can't notify systemd: %s", problem)


def take_over(environ: MutableMapping[str, str]) -> Notifier:
    """Return the notifier for this environment, and remove it from there.

    gunicorn would say that the server is ready before it is, and so might commands that it runs.
    """
    address = environ.pop("NOTIFY_SOCKET", None)
    limit_us = environ.pop("WATCHDOG_USEC", "")
    is_meant = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    is_watched = address is not None and is_meant and limit_us.isdecimal() and int(limit_us) > 0
    ping_seconds = int(limit_us) / 1e6 / _PINGS_PER_LIMIT if is_watched else None
    if address is not None and address.startswith("@"):
        address = f"\0{address[1:]}"
    return Notifier(address, ping_seconds)
