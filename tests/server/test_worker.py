"""What only a real server shows: raw HTTP, long lines, bodies that don't come, and the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from gunicorn.http import errors as http_errors

from homebody.server import connection as app_connection
from tests.helpers import server as real_server
from tests.helpers.server import RunningServer

LOGIN = "POST /_matrix/client/v3/login HTTP/1.1"
LAST = "Connection: close"
SECONDS = 10.0


@pytest.fixture(scope="module", params=["auto", "python"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with the HTTP parser that it takes by itself, and one with gunicorn's own."""
    arguments = {"GUNICORN_CMD_ARGS": f"--http-parser {request.param}"}
    with mock.patch.dict(os.environ, arguments):
        running = real_server.start(tmp_path_factory.mktemp("worker"), log_level="INFO")
    yield running
    running.stop()


class Connection:
    """A client that writes its HTTP by hand."""

    def __init__(self, server: RunningServer) -> None:
        port = int(server.url.rpartition(":")[2])
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self._unread = b""

    def send(self, *lines: str, body: bytes = b"") -> None:
        """A request: its lines, Host and the empty line, then the body."""
        head = "\r\n".join([lines[0], "Host: localhost", *lines[1:], "", ""])
        self.socket.sendall(head.encode() + body)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """(status, headers, JSON) of the next answer."""
        while b"\r\n\r\n" not in self._unread:
            self._receive()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in rest)
        length = int(headers["Content-Length"])
        while len(self._unread) < length:
            self._receive()
        body, self._unread = self._unread[:length], self._unread[length:]
        return int(first.split()[1]), headers, json.loads(body)

    def is_closed(self) -> bool:
        """Whether the server hangs up; waits for that."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _receive(self) -> None:
        piece = self.socket.recv(65_536)
        assert piece, "the server has hung up"
        self._unread += piece


@contextlib.contextmanager
def connection(server: RunningServer) -> Iterator[Connection]:
    client = Connection(server)
    with client.socket:
        yield client


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1"


def test_a_request_line_of_20_kilobytes_works(server: RunningServer) -> None:
    with connection(server) as client:
        client.send(get(f"/_matrix/client/versions?filter={'x' * 20_000}"), LAST)

        status, _, body = client.answer()

        assert status == 200
        assert "v1.1" in body["versions"]


@pytest.mark.parametrize(
    "lines",
    [
        (get(f"/_matrix/client/versions?filter={'x' * 2_000_000}"),),
        (get("/_matrix/client/versions"), f"X-Long: {'x' * 100_000}"),
    ],
)
def test_a_longer_line_or_header_gets_a_matrix_error(
    server: RunningServer, lines: tuple[str, ...]
) -> None:
    with connection(server) as client:
        with contextlib.suppress(ConnectionError):  # the server need not read to the end
            client.send(*lines)

        status, headers, body = client.answer()

        assert (status, body["errcode"]) == (431, "M_TOO_LARGE")
        assert headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    "raw",
    [
        b"good morning\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n" + b"line: of a body\r\n" * 300,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a port without
    ],
)
def test_what_is_no_http_gets_a_matrix_error(server: RunningServer, raw: bytes) -> None:
    with connection(server) as client:
        client.socket.sendall(raw)

        status, headers, body = client.answer()

        assert (status, body["errcode"]) == (400, "M_UNKNOWN")
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert client.is_closed()
    line = f" - INFO - {headers['X-Request-Id']} - 127.0.0.1 - - - 400 "
    assert line in server.output()


def test_a_request_may_have_a_hundred_headers_and_no_more(server: RunningServer) -> None:
    many = [f"X-{number}: x" for number in range(99)]  # and Host
    with connection(server) as client:
        client.send(get("/_matrix/client/versions"), *many)
        client.send(get("/_matrix/client/versions"), *many, "X-One-More: x")
        client.send(get("/_matrix/client/versions"), *many * 3)

        taken, refused = client.answer(), client.answer()

    assert (taken[0], refused[0], refused[2]["errcode"]) == (200, 431, "M_TOO_LARGE")


def test_a_head_may_come_byte_by_byte(server: RunningServer) -> None:
    with connection(server) as client:
        head = f"{get('/_matrix/client/versions')}\r\nHost: localhost\r\n\r\n".encode()
        for request in (head, head):
            for at in range(len(request)):
                client.socket.sendall(request[at : at + 1])
            assert client.answer()[0] == 200


@pytest.mark.parametrize("at", range(1, 5))
def test_the_next_head_may_be_cut_anywhere_in_its_end(server: RunningServer, at: int) -> None:
    head = f"{get('/_matrix/client/versions')}\r\nHost: localhost\r\n\r\n".encode()
    with connection(server) as client:
        client.socket.sendall(head + head[:-at])  # the parser has the rest of the piece
        assert client.answer()[0] == 200
        client.socket.sendall(head[-at:])

        assert client.answer()[0] == 200


def test_a_parser_gets_a_head_in_two_pieces_however_it_comes() -> None:
    ours, theirs = socket.socketpair()
    backlog = app_connection.Backlog(2**20)
    client = app_connection.Connection(ours, app_connection.ConnectionLimits(), backlog)
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 100 + b"\r\n\r\n"
    with ours, theirs:
        for at in range(len(head)):
            theirs.send(head[at : at + 1])
        pieces = [client.recv(1), client.recv(1)]

    assert b"".join(pieces) == head
    assert pieces[0] == b"GET / HTTP/1.1\r\n"


def test_a_parser_never_sees_what_can_not_be_http() -> None:
    ours, theirs = socket.socketpair()
    backlog = app_connection.Backlog(2**20)
    client = app_connection.Connection(ours, app_connection.ConnectionLimits(), backlog)
    with ours, theirs:
        theirs.send(b"\x16\x03\x01\x02")

        with pytest.raises(http_errors.ParseException):
            client.recv(100)


def test_a_body_too_large_is_refused_before_it_is_sent(server: RunningServer) -> None:
    with connection(server) as client:
        client.send(LOGIN, "Content-Length: 10000000000")

        status, headers, body = client.answer()

        assert (status, body["errcode"]) == (413, "M_TOO_LARGE")
        assert headers["Access-Control-Allow-Origin"] == "*"


def test_a_client_that_sends_all_of_it_reads_the_refusal(server: RunningServer) -> None:
    with connection(server) as client:
        size = 20_000_000
        client.send(LOGIN, f"Content-Length: {size}", body=b" " * size)
        client.send(get("/_matrix/client/versions"))

        refused, served = client.answer(), client.answer()

        assert (refused[0], served[0]) == (413, 200)


def test_a_client_that_goes_on_for_gigabytes_is_cut_off(server: RunningServer) -> None:
    with connection(server) as client:
        client.send(LOGIN, "Content-Length: 10000000000")
        sent = 0

        with contextlib.suppress(ConnectionError):
            while sent < 500_000_000:
                client.socket.sendall(b" " * 1_000_000)
                sent += 1_000_000

        assert sent < 100_000_000


def test_a_body_without_a_length_is_measured_as_it_comes(server: RunningServer) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with connection(server) as client:
        client.send(LOGIN, "Transfer-Encoding: chunked", body=chunk * 9 + b"0\r\n\r\n")

        status, _, body = client.answer()

        assert (status, body["errcode"]) == (413, "M_TOO_LARGE")


def test_a_body_in_pieces_is_put_together(server: RunningServer) -> None:
    pieces = b'9\r\n{"type":"\r\n8\r\nm.what"}\r\n0\r\n\r\n'
    with connection(server) as client:
        client.send(LOGIN, "Transfer-Encoding: chunked", body=pieces)

        status, _, body = client.answer()

        assert (status, body["errcode"]) == (400, "M_UNKNOWN")
        assert "m.what" in body["error"]


def test_a_broken_piece_is_the_clients_fault(server: RunningServer) -> None:
    with connection(server) as client:
        client.send(LOGIN, "Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n")

        status, _, body = client.answer()

        assert (status, body["errcode"]) == (400, "M_NOT_JSON")
        assert client.is_closed()


def test_two_requests_in_a_row_get_their_answers_in_order(server: RunningServer) -> None:
    with connection(server) as client:
        client.send(get("/_matrix/client/versions"))
        client.send(get("/_matrix/client/nowhere"))

        first, second = client.answer(), client.answer()

        assert "versions" in first[2]
        assert second[2]["errcode"] == "M_UNRECOGNIZED"


def test_none_of_this_is_a_fault_of_the_server(server: RunningServer) -> None:
    assert "Traceback" not in server.output()
    assert "ERROR" not in server.output()


def test_idle_connections_do_not_delay_the_end(tmp_path: Path) -> None:
    running = real_server.start(tmp_path)
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(connection(running)) for _ in range(20)]
        for client in clients[:10]:
            client.send(get("/_matrix/client/versions"))
            client.answer()
        clients[11].socket.sendall(b"GET /_matrix/client/vers")

        began = time.monotonic()
        running.stop()
        seconds = time.monotonic() - began

        assert seconds < 3
        assert all(client.is_closed() for client in clients)
    assert running.process.returncode == 0
    assert re.search(r"Traceback|ERROR", running.output()) is None


def test_a_body_that_never_comes_does_not_prevent_the_end(tmp_path: Path) -> None:
    running = real_server.start(tmp_path)
    with connection(running) as client:
        client.send(LOGIN, "Content-Length: 100", body=b"{")
        time.sleep(0.3)

        began = time.monotonic()
        running.stop()
        seconds = time.monotonic() - began

        assert seconds < 8
        assert client.is_closed()
    assert "Traceback" not in running.output()


def test_ctrl_c_ends_it_without_a_trace(tmp_path: Path) -> None:
    running = real_server.start(tmp_path)

    os.killpg(running.process.pid, signal.SIGINT)  # a terminal sends it to master and worker
    running.process.wait(SECONDS)

    assert "Traceback" not in running.output()


def test_nothing_that_gevent_replaces_is_imported_before(server: RunningServer) -> None:
    """Else it would block the event loop: gevent warns of ssl, and urllib3 brings the rest."""
    assert "MonkeyPatchWarning" not in server.output()

    script = "import sys, homebody.server.worker; print('urllib3' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert done.stdout == "False\n", done.stderr
