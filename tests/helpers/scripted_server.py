"""An HTTPS server on loopback that records its requests, and fails as a test says.

It speaks HTTP/1.1 with kept connections, each in a thread of its own. What it responds is decided
by a function; `fail`, `hang`, `delay`, `cut` and `answer` override it for requests with a text in
their path, for the next `times` requests or until `recover`.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers import waiting

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A request that was received."""

    method: str
    uri: str
    """Path and query as sent."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path, with its escapes decoded."""
        return unquote(urlsplit(self.uri).path)

    @property
    def parts(self) -> list[str]:
        """The decoded segments of the path."""
        return [unquote(part) for part in urlsplit(self.uri).path.split("/")[1:]]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.uri).query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """A response; `body` is bytes or anything that JSON can write."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body in bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Respond = Callable[[Request], Response]


@dataclass
class _Fault:
    """What happens to requests with `part` in their path, `times` of them."""

    part: str
    times: float
    response: Response | Respond | None = None
    wait_s: float = 0.0
    cut: bool = False


class ScriptedServer:
    """The listener, what it received, and the faults that it should have."""

    def __init__(self, respond: Respond, context: ssl.SSLContext | None, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.errors: list[str] = []
        """What went wrong in the script itself."""
        self._respond = respond
        self._faults: list[_Fault] = []
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._context = context
        self._connections: set[socket.socket] = set()
        self._server = _Listener(self, port)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    # faults

    def answer(self, part: str, response: Response | Respond, times: float = float("inf")) -> None:
        """Respond with this instead, or what this function returns."""
        self._add(_Fault(part, times, response))

    def fail(self, part: str, status: int = 500, times: float = float("inf"), **body: Any) -> None:
        """Respond with an error: `fail("/send/", 429, errcode="M_LIMIT_EXCEEDED")`."""
        body = {"errcode": "M_UNKNOWN", "error": "Told to fail", **body}
        self.answer(part, Response(status, body), times)

    def hang(self, part: str, times: float = float("inf")) -> None:
        """Accept requests and never respond."""
        self.delay(part, float("inf"), times)

    def delay(self, part: str, wait_s: float, times: float = float("inf")) -> None:
        """Respond late."""
        self._add(_Fault(part, times, wait_s=wait_s))

    def cut(self, part: str, times: float = float("inf")) -> None:
        """Send half of the body, then close the connection."""
        self._add(_Fault(part, times, cut=True))

    def recover(self, part: str | None = None) -> None:
        """Respond as usual again: to requests with this in their path, or to all."""
        with self._changed:
            self._faults = [it for it in self._faults if part is not None and it.part != part]

    def _add(self, fault: _Fault) -> None:
        with self._changed:
            self._faults.insert(0, fault)

    # what was received

    def received(self, part: str) -> list[Request]:
        """Return the requests with this in their path, in order."""
        with self._changed:
            return [request for request in self.requests if part in request.path]

    def wait_until(self, is_so: Callable[[], Any], what: str = "what was waited for") -> Any:
        """Return the first true result of `is_so()`. Raises AssertionError after a timeout."""
        with self._changed:
            found = self._changed.wait_for(is_so, waiting.SECONDS)
            seen = [f"{it.method} {it.path}" for it in self.requests[-20:]]
            assert found, f"{what} did not come; the last requests: {seen}"
            return found

    def note_change(self) -> None:
        """Wake tests that wait."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Close the listener and all connections."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # called by the threads of connections

    def secured(self, raw: socket.socket) -> socket.socket:
        """Return the connection after its TLS handshake."""
        secure = self._context.wrap_socket(raw, server_side=True) if self._context else raw
        self._connections.add(secure)
        return secure

    def forget(self, connection: socket.socket) -> None:
        self._connections.discard(connection)

    def handle(self, request: Request) -> tuple[Response, bool] | None:
        """Return the response, and whether to cut it; None to send nothing."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            fault = next((it for it in self._faults if it.part in request.path), None)
            if fault is not None:
                fault.times -= 1
                if fault.times < 1:
                    self._faults.remove(fault)
        if fault is None:
            return self._run(self._respond, request), False
        if fault.wait_s and self._ended.wait(min(fault.wait_s, threading.TIMEOUT_MAX)):
            return None
        if isinstance(fault.response, Response):
            return fault.response, fault.cut
        return self._run(fault.response or self._respond, request), fault.cut

    def _run(self, respond: Respond, request: Request) -> Response:
        try:
            response = respond(request)
        except Exception:  # noqa: BLE001 - shown at the end of the test
            self.errors.append(f"{request.method} {request.uri}\n{traceback.format_exc()}")
            response = Response(500, {"errcode": "M_UNKNOWN", "error": "The script has failed"})
        self.note_change()
        return response


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: ScriptedServer, port: int) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection; the handshake is here, in its thread, as it may take for ever."""
        with suppress(OSError):  # also of TLS: the test looks at what the client says
            secure = self.owner.secured(request)
            try:
                super().finish_request(secure, client_address)
            finally:
                self.owner.forget(secure)
                secure.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: connections break in these tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        listener = self.server
        assert isinstance(listener, _Listener)
        headers = {key.title(): value for key, value in self.headers.items()}
        answered = listener.owner.handle(Request(self.command, self.path, headers, body))
        if answered is None:
            self.close_connection = True
            return
        response, is_cut = answered
        content = response.content
        self.send_response(response.status)
        headers = {"Content-Type": "application/json", **response.headers}
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        self.close_connection = self.close_connection or is_cut

    do_GET = do_PUT = do_POST = do_DELETE = do  # noqa: N815 - the names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
        """Print nothing."""
