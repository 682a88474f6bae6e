"""coturn, a TURN server, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import programs


@contextmanager
def running(folder: Path, port: int, secret: str) -> Iterator[None]:
    """Run coturn with this shared secret within the block."""
    command = ["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "-L", "127.0.0.1"]
    command += ["-E", "127.0.0.1", "-p", str(port), "--use-auth-secret", "-l", "stdout"]
    command += ["--static-auth-secret", secret, "--realm", "example.org", "--allow-loopback-peers"]
    command += ["--pidfile", str(folder / "turn.pid"), "--userdb", str(folder / "turn.db")]
    with programs.running(command, port, folder / "turn.log"):
        yield
