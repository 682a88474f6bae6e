"""coturn, a TURN server, on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 10.0


@contextmanager
def running(folder: Path, port: int, secret: str) -> Iterator[None]:
    """Run coturn with this shared secret within the block."""
    command = ["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "-L", "127.0.0.1"]
    command += ["-E", "127.0.0.1", "-p", str(port), "--use-auth-secret", "-l", "stdout"]
    command += ["--static-auth-secret", secret, "--realm", "example.org", "--allow-loopback-peers"]
    command += ["--pidfile", str(folder / "turn.pid"), "--userdb", str(folder / "turn.db")]
    log = folder / "turn.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as it:
        try:
            _wait(it, port, log)
            yield
        finally:
            it.terminate()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until it listens. Raises AssertionError with its log after a timeout."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text(errors="replace"))
