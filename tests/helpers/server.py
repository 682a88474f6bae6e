"""A real server for tests: gunicorn with gevent on a free port, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class RunningServer:
    """A server process. Its whole output is in `log`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """SIGKILL to master and workers at once, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(data_dir: Path, **settings: str) -> RunningServer:
    """`homebody serve` on a free port, ready to answer.

    Open registration, quick password hashes and no rate limits, unless the settings say otherwise:
    `start(tmp_path, registration="token")`.
    """
    return start_in(ROOT, data_dir, **settings)


def start_in(cwd: Path, data_dir: Path, **settings: str) -> RunningServer:
    """Start a server as `start` does, with a working folder of its own."""
    server = launch(data_dir, cwd, **settings)
    wait_until_it_answers(server)
    return server


def launch(data_dir: Path, cwd: Path = ROOT, /, **settings: str) -> RunningServer:
    """Begin to start a server, with the settings of `start`."""
    port = free_port()
    chosen = {
        "data_dir": str(data_dir),
        "bind": f"127.0.0.1:{port}",
        "public_url": f"http://127.0.0.1:{port}",
        "password_hashing": "cheap",
        "rate_limits": "false",
        "log_level": "WARNING",
        **settings,
    }
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= {f"HOMEBODY_{key.upper()}": value for key, value in chosen.items()}
    log = data_dir / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "homebody"), "serve"],
            env=environ,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that kill() reaches its workers too
        )
    return RunningServer(process, f"http://127.0.0.1:{port}", log)


def wait_until_it_answers(server: RunningServer) -> None:
    """Return once /versions answers; AssertionError with the log when it doesn't in time."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=2):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if server.process.poll() is not None:
                break
            time.sleep(0.02)
    ended = server.process.poll()
    if ended is None:
        server.kill()
    raise AssertionError(f"the server did not start (exit code {ended}):\n{server.output()}")
