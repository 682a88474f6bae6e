"""Clients that write their HTTP by hand, and the server's process as seen from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from tests.helpers import server as real_server
from tests.helpers.server import RunningServer

V3 = "/_matrix/client/v3"
HEAD_SECONDS = 2
"""After which the impatient server gives up waiting for a head."""
IMPATIENT = f"--worker-class tests.faults_clients.impatient.Worker --keep-alive {HEAD_SECONDS}"


def start(folder: Path, *, is_impatient: bool = True, **settings: str) -> RunningServer:
    """Start a server, by default with short time limits."""
    arguments = {"GUNICORN_CMD_ARGS": IMPATIENT if is_impatient else ""}
    with mock.patch.dict(os.environ, arguments):
        return real_server.start(folder, **settings)


def raise_descriptor_limit() -> None:
    """Allow thousands of clients in this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address(server: RunningServer) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


def connect(server: RunningServer, *, receive_bytes: int | None = None) -> socket.socket:
    """Open a connection; with a small buffer, unread data stays in the server."""
    client = socket.socket()
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(20)
    client.connect(address(server))
    return client


def head(method: str, path: str, token: str = "", **headers: object) -> bytes:
    """Build the lines of a request head; `Content_Length=3` is a header."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def is_closed(client: socket.socket, seconds: float = 20) -> bool:
    """Return whether the server closes the connection in this time, whatever it sends before."""
    client.settimeout(seconds)
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def answer_of(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return (status, JSON) of the response on a connection."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, json.loads(response.read())


class Person:
    """An account with a device."""

    def __init__(self, server: RunningServer, name: str, **headers: str) -> None:
        self.server = server
        self.headers = headers
        self.token = ""
        account = {"username": name, "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
        status, session, _ = self.ask("POST", "/register", account)
        assert status == 200, session
        self.token = session["access_token"]
        self.user_id = session["user_id"]

    def ask(
        self, method: str, path: str, body: Any = None, timeout: float = 60
    ) -> tuple[int, Any, dict[str, str]]:
        """Return (status, JSON, headers) of a response; paths are those of v3, or complete."""
        headers = {**self.headers}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        url = path if path.startswith("/_matrix") else V3 + path
        host, port = address(self.server)
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout)) as line:
            line.request(method, url, data, headers)
            response = line.getresponse()
            content = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(content) if is_json else content, dict(response.headers)


class Process:
    """The process that serves, seen from outside."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        master = server.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text("ascii").split()
        self._folder = Path("/proc") / children[0]

    def descriptors(self) -> int:
        """Return the number of open file descriptors."""
        return len(list((self._folder / "fd").iterdir()))

    def memory_bytes(self) -> int:
        """Return its proportional set size."""
        rollup = (self._folder / "smaps_rollup").read_text("ascii")
        found = re.search(r"(?m)^Pss: +(\d+) kB", rollup)
        assert found
        return int(found.group(1)) * 1024

    def cpu_seconds(self) -> float:
        """Return how long it has computed, which does not depend on what else the machine does."""
        fields = (self._folder / "stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> int:
        """Return a value of /metrics; the connection for it counts as an open one."""
        host, port = address(self.server)
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout=20)) as line:
            line.request("GET", "/metrics")
            found = re.search(rf"(?m)^homebody_{name} (\S+)$", line.getresponse().read().decode())
        assert found, name
        return int(float(found.group(1)))

    def is_calm(self) -> bool:
        """Return whether no other client is connected and no request waits."""
        return self.metric("connections") == 1 and self.metric("waiting_requests") == 0


class Watch:
    """The maximum memory of a process, and the latency of others, while the block runs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._before = process.memory_bytes()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=it) for it in (self._weigh, self._ask)]
        self.grown_bytes = 0
        self.waits: list[float] = []
        """Seconds, of one request after the other."""

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _weigh(self) -> None:
        while not self._is_over.wait(0.02):
            grown = self._process.memory_bytes() - self._before
            self.grown_bytes = max(self.grown_bytes, grown)

    def _ask(self) -> None:
        host, port = address(self._process.server)
        while not self._is_over.wait(0.02):
            began = time.monotonic()
            with contextlib.closing(http.client.HTTPConnection(host, port, timeout=60)) as line:
                line.request("GET", "/_matrix/client/versions")
                assert line.getresponse().status == 200
            self.waits.append(time.monotonic() - began)


def median(numbers: list[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


@contextlib.contextmanager
def running(server: RunningServer) -> Iterator[RunningServer]:
    """Run a server, stop it at the end, and check that its log has no errors."""
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
    assert re.search(r"Traceback|ERROR|CRITICAL", server.output()) is None, server.output()
