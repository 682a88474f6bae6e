"""A push gateway in a process of its own: `python -m tests.helpers.gateway PORT FILE`.

It appends each notification to the file as a line of JSON, and rejects pushkeys that begin with
"gone".
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.server import ROOT
from tests.helpers.waiting import wait_for

SECONDS = 10.0


class Gateway:
    """The notifications received by a gateway process."""

    def __init__(self, port: int, file: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/_matrix/push/v1/notify"
        self.port = port
        self.file = file

    def told(self) -> list[dict[str, Any]]:
        """Return all notifications so far."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().splitlines(keepends=True)
        return [json.loads(line)["notification"] for line in lines if line.endswith("\n")]

    def wait(self, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Return all notifications, once `until` is true of them."""
        wait_for(lambda: until(self.told()), self.told)
        return self.told()

    def wait_for(self, event_id: str) -> dict[str, Any]:
        """Wait for the notification of an event and return it."""
        told = self.wait(lambda all_: any(it.get("event_id") == event_id for it in all_))
        return next(it for it in told if it.get("event_id") == event_id)


@contextmanager
def running(gateway: Gateway) -> Iterator[None]:
    """Run the gateway within the block."""
    command = [sys.executable, "-m", "tests.helpers.gateway", str(gateway.port), str(gateway.file)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /_matrix/push/v1/notify."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Path(sys.argv[2]).open("a") as file:
            file.write(json.dumps(body) + "\n")
        keys = [device["pushkey"] for device in body["notification"]["devices"]]
        answer = json.dumps({"rejected": [key for key in keys if key.startswith("gone")]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


if __name__ == "__main__":
    server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()
