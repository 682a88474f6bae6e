"""Trying a restored server: starting it where it can reach nobody, and logging in once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from homebody.server.copies import BackupError

SECONDS_TO_START: Final = 120.0
SECONDS_TO_STOP: Final = 15.0
_NOT_PASSED_ON: Final = ("HOMEBODY_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "GUNICORN_")


def environ_for(data_dir: Path, server_name: str) -> dict[str, str]:
    """Return the environment of a server that is tried: none of its own settings are in effect."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)
    }
    settings = {
        "data_dir": str(data_dir),
        "server_name": server_name,
        "public_url": "http://localhost",
        "federation": "false",
        "registration": "closed",
        "rate_limits": "false",
        "log_level": "ERROR",
    }
    return environ | {f"HOMEBODY_{name.upper()}": value for name, value in settings.items()}


def log_in_once(environ: Mapping[str, str], log: Path, user: str, password: str) -> None:
    """Start the server, log in, sync, log out, and stop it. Raises BackupError and OSError."""
    with _running(environ, log) as port:
        who = {"type": "m.id.user", "user": user}
        login = {"type": "m.login.password", "identifier": who, "password": password}
        session = _request(port, "POST", "/_matrix/client/v3/login", login)
        token = str(session["access_token"])
        answer = _request(port, "GET", "/_matrix/client/v3/account/whoami", token=token)
        if answer["user_id"] != session["user_id"]:
            raise BackupError(f"The server takes {session['user_id']} for {answer['user_id']}")
        _request(port, "GET", "/_matrix/client/v3/sync?timeout=0", token=token)
        _request(port, "POST", "/_matrix/client/v3/logout", {}, token=token)


@contextlib.contextmanager
def _running(environ: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run the server on a free port of this machine during the with block; yield the port."""
    port = _free_port()
    command = [sys.executable, "-P", "-m", "homebody.server.isolated"]
    command += ["-c", "python:homebody.server.gunicorn_config", "homebody.server.wsgi:app"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own words
            command,
            env={**environ, "HOMEBODY_BIND": f"127.0.0.1:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its workers can be stopped with it
        )
    try:
        _wait_until_it_answers(process, port, log)
        yield port
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException, BackupError):
            _request(port, "GET", "/_matrix/client/versions")
            return
        time.sleep(0.05)
    lines = log.read_text("utf-8", "replace").splitlines() or ["it says nothing"]
    raise BackupError(f"The server does not start on the backup: {lines[-1]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _request(port: int, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
    """Send a request and return the JSON of the response. Raises BackupError and OSError."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
        client.request(method, path, None if body is None else json.dumps(body), headers)
        response = client.getresponse()
        content = response.read()
    if response.status != http.HTTPStatus.OK:
        said = content.decode("utf-8", "replace")
        raise BackupError(f"The server answers {method} {path} with {response.status}: {said:.200}")
    return json.loads(content or b"{}")
