"""Files over the real server: what a test client can't show."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import server
from tests.helpers.server import RunningServer

MEDIA = "/_matrix/client/v1/media"
UPLOAD = "/_matrix/media/v3/upload"
LIMIT = 8_000_000


class Client:
    """A connection and a token."""

    def __init__(self, running: RunningServer) -> None:
        host, port = running.url.removeprefix("http://").split(":")
        self.address = (host, int(port))
        self.connection = http.client.HTTPConnection(*self.address, timeout=20)
        self.headers: dict[str, str] = {}

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, self.headers | named)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def upload(self, data: Any, **headers: str) -> str:
        answer, body = self.ask("POST", UPLOAD, data, **headers)
        assert answer.status == 200, body
        return str(json.loads(body)["content_uri"]).removeprefix("mxc://")

    def head_of(self, *lines: str) -> bytes:
        """A request's head, for a socket of one's own."""
        return "\r\n".join(
            [*lines, "Host: x", f"Authorization: {self.headers['Authorization']}", "", ""]
        ).encode()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media-server")


@pytest.fixture(scope="module")
def running(data_dir: Path) -> Iterator[RunningServer]:
    started = server.start(data_dir, max_upload_bytes=str(LIMIT))
    yield started
    started.stop()


@pytest.fixture
def client(running: RunningServer) -> Iterator[Client]:
    made = Client(running)
    body = json.dumps({"auth": {"type": "m.login.dummy"}, "password": "x" * 20})
    answer, raw = made.ask("POST", "/_matrix/client/v3/register", body)
    assert answer.status == 200, raw
    made.headers["Authorization"] = f"Bearer {json.loads(raw)['access_token']}"
    yield made
    made.connection.close()


def bytes_that_differ(size: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") for n in range(size // 4))


def is_empty(folder: Path) -> bool:
    """Whether a folder is empty soon: the server notices a closed connection by itself."""
    until = time.monotonic() + 10
    while any(folder.iterdir()):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_a_large_file_goes_up_and_down_on_one_connection(client: Client) -> None:
    data = bytes_that_differ(LIMIT)
    media = client.upload(data)

    for _ in range(2):
        answer, body = client.ask("GET", f"{MEDIA}/download/{media}")
        assert (answer.status, body == data) == (200, True)
    head, nothing = client.ask("HEAD", f"{MEDIA}/download/{media}")

    assert head.headers["Content-Length"] == str(LIMIT)
    assert nothing == b""


def test_what_comes_together_with_a_body_is_the_next_request(client: Client) -> None:
    asks = client.head_of("GET /_matrix/client/versions HTTP/1.1", "Connection: close")
    head = client.head_of(f"POST {UPLOAD} HTTP/1.1", "Content-Length: 5")

    with socket.create_connection(client.address, 10) as raw, raw.makefile("rb") as answers:
        raw.sendall(head + b"hello" + asks)
        told = answers.read()

    assert told.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert told.index(b"content_uri") < told.index(b'"versions"')


def test_ranges_over_the_edges_of_what_is_read_at_once(client: Client) -> None:
    data = bytes_that_differ(3_000_000)
    media = client.upload(data)

    for start, stop in ((0, 1), (262_143, 262_145), (100, 2_000_000), (2_999_999, 3_000_000)):
        answer, body = client.ask(
            "GET", f"{MEDIA}/download/{media}", Range=f"bytes={start}-{stop - 1}"
        )
        assert (answer.status, body == data[start:stop]) == (206, True)
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/3000000"
    refused, _ = client.ask("GET", f"{MEDIA}/download/{media}", Range="bytes=3000000-")
    whole, body = client.ask("GET", f"{MEDIA}/download/{media}")

    assert refused.status == 416
    assert (whole.status, body == data) == (200, True)


def test_the_client_s_copy_is_enough(client: Client) -> None:
    media = client.upload(b"text")
    first, _ = client.ask("GET", f"{MEDIA}/download/{media}")

    again, body = client.ask(
        "GET", f"{MEDIA}/download/{media}", If_None_Match=first.headers["ETag"]
    )
    other, text = client.ask("GET", f"{MEDIA}/download/{media}")

    assert (again.status, body) == (304, b"")
    assert (other.status, text) == (200, b"text")


def test_a_body_in_chunks_is_taken(client: Client) -> None:
    data = bytes_that_differ(3_000_000)
    chunks = (data[start : start + 70_001] for start in range(0, len(data), 70_001))

    media = client.upload(chunks)

    assert client.ask("GET", f"{MEDIA}/download/{media}")[1] == data


def test_a_body_that_says_it_is_too_large_is_refused_unread(client: Client) -> None:
    with socket.create_connection(client.address, timeout=5) as connection:
        connection.sendall(client.head_of(f"POST {UPLOAD} HTTP/1.1", "Content-Length: 9000000000"))

        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"M_TOO_LARGE" in answer


def test_a_body_in_chunks_is_refused_once_it_is_too_large(client: Client, data_dir: Path) -> None:
    with socket.create_connection(client.address, timeout=20) as connection:
        connection.sendall(client.head_of(f"POST {UPLOAD} HTTP/1.1", "Transfer-Encoding: chunked"))
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        for _ in range(LIMIT // 2**20 + 2):
            connection.sendall(chunk)

        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert is_empty(data_dir / "media/incoming")


@pytest.mark.parametrize("line", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_breaks_off_leaves_nothing(
    client: Client, data_dir: Path, line: str
) -> None:
    kept = len(list((data_dir / "media").rglob("*")))
    connection = socket.create_connection(client.address, timeout=5)
    connection.sendall(client.head_of(f"POST {UPLOAD} HTTP/1.1", line) + b"100\r\n" + b"x" * 100)
    until = time.monotonic() + 10
    while not any((data_dir / "media/incoming").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.01)

    connection.close()

    assert is_empty(data_dir / "media/incoming")
    assert len(list((data_dir / "media").rglob("*"))) == kept


def test_a_malformed_chunk_is_the_client_s_fault(client: Client) -> None:
    with socket.create_connection(client.address, timeout=5) as connection:
        connection.sendall(client.head_of(f"POST {UPLOAD} HTTP/1.1", "Transfer-Encoding: chunked"))
        connection.sendall(b"not a number\r\n")

        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_download_waits_for_its_content_and_others_go_on(running: RunningServer) -> None:
    client, other = Client(running), Client(running)
    body = json.dumps({"auth": {"type": "m.login.dummy"}, "password": "x" * 20})
    token = json.loads(client.ask("POST", "/_matrix/client/v3/register", body)[1])["access_token"]
    client.headers["Authorization"] = other.headers["Authorization"] = f"Bearer {token}"
    made = json.loads(client.ask("POST", "/_matrix/media/v1/create")[1])
    media = made["content_uri"].removeprefix("mxc://")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.ask, "GET", f"{MEDIA}/download/{media}?timeout_ms=15000")
        time.sleep(0.2)
        began = time.monotonic()
        filled, _ = client.ask("PUT", f"{UPLOAD}/{media}", b"at last")
        answer, text = waiting.result(15)
    client.connection.close()
    other.connection.close()

    assert filled.status == 200
    assert (answer.status, text) == (200, b"at last")
    assert time.monotonic() - began < 5


def test_slow_downloads_do_not_hold_up_others(client: Client, running: RunningServer) -> None:
    data = bytes_that_differ(LIMIT)
    media = client.upload(data)
    slow = [socket.create_connection(client.address, timeout=20) for _ in range(20)]
    for connection in slow:
        connection.sendall(client.head_of(f"GET {MEDIA}/download/{media} HTTP/1.1"))

    answer, body = client.ask("GET", f"{MEDIA}/download/{media}")
    received: list[int] = []

    def drain(connection: socket.socket) -> None:
        size = 0
        while size < LIMIT and (piece := connection.recv(2**20)):
            size += len(piece)
        received.append(size)
        connection.close()

    threads = [threading.Thread(target=drain, args=(connection,)) for connection in slow]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert (answer.status, body == data) == (200, True)
    assert len([size for size in received if size >= LIMIT]) == 20
    assert running.process.poll() is None
