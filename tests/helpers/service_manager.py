"""What systemd does for a service: receive its notifications, and open sockets for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.server import ROOT, RunningServer

SECONDS = 20.0
_START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Notifications:
    """The datagram socket of a service manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self.received: list[dict[str, str]] = []

    def close(self) -> None:
        self._socket.close()

    def next(self, seconds: float = SECONDS) -> dict[str, str]:
        """Return the next message. Raises TimeoutError."""
        self._socket.settimeout(seconds)
        lines = self._socket.recv(4096).decode().splitlines()
        message = dict(line.split("=", 1) for line in lines)
        self.received.append(message)
        return message

    def wait_for(self, key: str, seconds: float = SECONDS) -> dict[str, str]:
        """Return the next message that has this key. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while True:
            message = self.next(max(0.01, until - time.monotonic()))
            if key in message:
                return message

    def count(self, key: str, seconds: float) -> int:
        """Return how many messages with this key come within some time."""
        found, until = 0, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                found += key in self.next(left)
            except TimeoutError:
                break
        return found


def launch(
    data_dir: Path,
    settings: Mapping[str, str],
    *,
    listeners: Sequence[socket.socket] = (),
    environ: Mapping[str, str] | None = None,
) -> RunningServer:
    """Launch a server as systemd does, which may give it listening sockets from number 3 on."""
    chosen = {"data_dir": str(data_dir), "password_hashing": "cheap", "log_level": "INFO"}
    variables = {key: it for key, it in os.environ.items() if not key.startswith("HOMEBODY_")}
    variables |= {f"HOMEBODY_{key.upper()}": it for key, it in {**chosen, **settings}.items()}
    variables |= environ or {}
    command = [str(Path(sys.executable).parent / "homebody"), "serve"]
    kept = []
    if listeners:
        # the numbers have to be 3, 4, …, where this process has other files: a shell moves them
        kept = [it.fileno() for it in listeners]
        moves = " ".join(f"{3 + number}<&{it}" for number, it in enumerate(kept))
        variables["LISTEN_FDS"] = str(len(kept))
        script = f'exec "$@" {moves}'
        command = ["bash", "-c", script, "bash", sys.executable, "-c", _START, *command]
    log = data_dir / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=variables,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=kept,
        )
    return RunningServer(process, "", log)
