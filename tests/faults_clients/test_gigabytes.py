"""Bodies of a gigabyte."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import V3, Person, Process, Watch
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

GIGABYTE = 10**9
PIECE = b" " * 2**20
JSON = f"{V3}/user/@alice:localhost/account_data/org.example"
UPLOAD = "/_matrix/media/v3/upload"


def send_all(client: socket.socket, *, is_chunked: bool, reads: bool) -> int:
    """Return how many bytes the server read before it disconnected or responded."""
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if is_chunked else PIECE
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < GIGABYTE:
            if reads and select.select([client], [], [], 0)[0]:
                break
            client.sendall(piece)
            sent += len(PIECE)
    return sent


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize(("method", "path"), [("PUT", JSON), ("POST", UPLOAD)])
def test_a_body_of_a_gigabyte_is_refused_and_not_kept(
    server: RunningServer, alice: Person, method: str, path: str, is_chunked: bool, reads: bool
) -> None:
    # Protects: the limit in client_server/http.py: raw_body (max_content_length, and before it the
    # check of Content-Length), that in core/media/files.py: _copy, and MAX_DRAINED_BYTES in
    # server/worker.py: _drain, without which the server reads the whole gigabyte.
    process = Process(server)
    form = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": GIGABYTE}
    with clients.connect(server) as client, Watch(process) as watch:
        client.sendall(clients.head(method, path, alice.token, **form))

        sent = send_all(client, is_chunked=is_chunked, reads=reads)
        if reads:
            status, body = clients.answer_of(client)
            assert (status, body["errcode"]) == (413, "M_TOO_LARGE")

    assert sent < 200_000_000
    assert watch.grown_bytes < 45_000_000  # a JSON body may have 8 MiB, and is held twice


@pytest.mark.parametrize(("method", "path"), [("PUT", JSON), ("POST", UPLOAD)])
def test_a_body_that_says_how_large_it_is_is_refused_before_it_comes(
    server: RunningServer, alice: Person, method: str, path: str
) -> None:
    # Protects: max_content_length in client_server/http.py: raw_body (its check of Content-Length
    # only rejects earlier), and the check in client_server/media_upload.py: _upload.
    with clients.connect(server) as client:
        client.sendall(clients.head(method, path, alice.token, Content_Length=GIGABYTE))

        status, body = clients.answer_of(client)

        assert (status, body["errcode"]) == (413, "M_TOO_LARGE")


def test_nothing_of_them_is_left_on_the_disk(server: RunningServer, alice: Person) -> None:
    # Protects: core/media/files.py: _incoming, which deletes incomplete files.
    with clients.connect(server) as client:
        client.sendall(clients.head("POST", UPLOAD, alice.token, Transfer_Encoding="chunked"))
        send_all(client, is_chunked=True, reads=False)

    folder = server.log.parent / "media" / "incoming"
    wait_for(lambda: not list(folder.iterdir()))
