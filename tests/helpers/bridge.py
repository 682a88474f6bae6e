"""A bridge for tests: a registration file, and a real HTTP server that records its requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.helpers import waiting

Json = dict[str, Any]
AS_TOKEN = "as-secret"
HS_TOKEN = "hs-secret"


class Call:
    """A request received by the bridge."""

    def __init__(self, method: str, target: str, token: str | None, body: Json) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = unquote(parts.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.token = token
        self.body = body


class Bridge:
    """The requests received, and the responses to send: (status, body) by path, else 200 and {}."""

    def __init__(self, port: int = 0) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self._changed = threading.Condition()
        bridge = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                call = Call(self.command, self.path, token, body)
                status, answer = bridge.answer(call)
                content = json.dumps(answer).encode()
                with bridge.noting(call):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do  # noqa: N815 - the names of http.server

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, call: Call) -> tuple[int, Any]:
        if call.path in self.answers:
            return self.answers[call.path]
        kind = call.path.split("/")[4] if call.path.count("/") > 3 else call.path
        return self.answers.get(kind, (200, {}))

    @contextmanager
    def noting(self, call: Call) -> Iterator[None]:
        """Record a call before the block sends the response."""
        with self._changed:
            yield
            self.calls.append(call)
            self._changed.notify_all()

    def asked(self, part: str) -> list[Call]:
        """Return the requests with this in their path."""
        with self._changed:
            return [call for call in self.calls if part in call.path]

    def events(self, event_type: str = "m.room.message") -> list[Json]:
        """Return the events of this type in all transactions, in order."""
        told = [event for call in self.asked("/transactions/") for event in call.body["events"]]
        return [event for event in told if event["type"] == event_type]

    def ephemeral(self, event_type: str) -> list[Json]:
        calls = self.asked("/transactions/")
        told = [event for call in calls for event in call.body.get("ephemeral", ())]
        return [event for event in told if event["type"] == event_type]

    def wait_until(self, has_come: Any) -> None:
        """Wait until `has_come()`. Raises AssertionError after a timeout."""
        with self._changed:
            assert self._changed.wait_for(has_come, waiting.SECONDS), [it.path for it in self.calls]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running(port: int = 0) -> Iterator[Bridge]:
    """Run a bridge on a port of loopback."""
    bridge = Bridge(port)
    try:
        yield bridge
    finally:
        bridge.close()


def registration(url: str | None, /, **changes: Any) -> Json:
    """Return the contents of a registration file."""
    return {
        "id": "irc",
        "url": url,
        "as_token": AS_TOKEN,
        "hs_token": HS_TOKEN,
        "sender_localpart": "_irc_bot",
        "namespaces": {
            "users": [{"regex": "@_irc_.*", "exclusive": True}],
            "aliases": [{"regex": "#_irc_.*", "exclusive": True}],
            "rooms": [],
        },
        "protocols": ["irc"],
        **changes,
    }


def write(folder: Path, told: Any, name: str = "irc.yaml") -> str:
    """Write a registration file and return its path."""
    path = folder / name
    path.write_text(yaml.safe_dump(told))
    return str(path)
