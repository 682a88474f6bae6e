"""A real server for tests: gunicorn with gevent on a free port in a process of its own."""

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
    """A server process, with its output in `log`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def output(self) -> str:
        """Return the output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Send SIGTERM and wait for the exit."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """Send SIGKILL to master and workers at once, as in a power cut."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


def free_port() -> int:
    """Return an unused port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(data_dir: Path, **settings: str) -> RunningServer:
    """Start `homebody serve` on a free port and wait until it is ready.

    Unless the settings say otherwise, registration is open, password hashes are quick, and there
    are no rate limits: `start(tmp_path, registration="token")`.
    """
    return start_in(ROOT, data_dir, **settings)


def start_in(cwd: Path, data_dir: Path, **settings: str) -> RunningServer:
    """Start a server as `start` does, in another working folder."""
    server = launch(data_dir, cwd, **settings)
    wait_until_it_answers(server)
    return server


def launch(data_dir: Path, cwd: Path = ROOT, /, **settings: str) -> RunningServer:
    """Launch a server with the settings of `start` without waiting for it."""
    place = settings.get("bind", f"127.0.0.1:{free_port()}")
    chosen = {
        "data_dir": str(data_dir),
        "bind": place,
        "public_url": f"http://{place}",
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
    return RunningServer(process, f"http://{place}", log)


def wait_until_it_answers(server: RunningServer) -> None:
    """Wait until the server is healthy. Raises AssertionError with the log after a timeout."""
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
