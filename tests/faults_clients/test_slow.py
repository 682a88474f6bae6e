"""Clients that send one byte per second, or an endless head."""

from __future__ import annotations

import contextlib
import select
import socket
import time

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import V3, Process, Watch
from tests.faults_clients.impatient import SECONDS
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

BODY = clients.head("POST", f"{V3}/login", Content_Length=1000)
CHUNKED = clients.head("POST", f"{V3}/login", Transfer_Encoding="chunked") + b"3E8\r\n"
LETTERS = b"GET /_matrix/client/versions HTTP/1.1\r\n"


def drip(crowd: list[socket.socket], seconds: int) -> list[socket.socket]:
    """Send one byte per second on each connection; return those still open."""
    for number in range(seconds):
        for client in crowd:
            with contextlib.suppress(ConnectionError):
                client.send(LETTERS[number : number + 1])
        time.sleep(1)
        crowd = [client for client in crowd if not clients.is_closed(client, 0.001)]
        if not crowd:
            break
    return crowd


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(200, 10), pytest.param(2_000, 30, marks=[pytest.mark.big, pytest.mark.timeout(300)])],
)
def test_who_sends_a_byte_a_second_is_given_up_and_keeps_nobody_waiting(
    hasty: RunningServer, count: int, seconds: int
) -> None:
    # Protects: Connection._check_pace in server/connection.py, for bodies; `keepalive` in
    # server/gunicorn_config.py, which applies from the last response to the end of the next head.
    clients.raise_descriptor_limit()
    process = Process(hasty)
    wait_for(process.is_calm)
    descriptors = process.descriptors()

    with contextlib.ExitStack() as still_open:
        crowd = [still_open.enter_context(clients.connect(hasty)) for _ in range(count)]
        for client, begin in zip(crowd, [b"", BODY, CHUNKED] * count, strict=False):
            client.sendall(begin)
        with Watch(process) as watch:
            left = drip(crowd, seconds)

    assert left == []
    assert clients.median(watch.waits) < 0.05
    wait_for(process.is_calm)
    assert process.descriptors() <= descriptors + 3  # of the database's readers


@pytest.mark.parametrize("begin", [b"GET /_mat", BODY + b"{", CHUNKED + b"{"])
def test_who_stops_sending_is_given_up(hasty: RunningServer, begin: bytes) -> None:
    # Protects: the timeout in Connection.setblocking, and `keepalive` for heads.
    with clients.connect(hasty) as client:
        client.sendall(begin)
        began = time.monotonic()

        ends = clients.is_closed(client, 15)

        assert ends
        assert time.monotonic() - began < max(SECONDS, clients.HEAD_SECONDS) + 6  # while draining


def test_a_body_that_came_too_slowly_is_told_so(hasty: RunningServer) -> None:
    # Protects: Connection._check_pace.
    with clients.connect(hasty) as client:
        client.sendall(BODY)
        for _ in range(60):
            with contextlib.suppress(ConnectionError):
                client.send(b" ")
            if select.select([client], [], [], 0.1)[0]:
                break

        client.settimeout(0.1)
        status, body = clients.answer_of(client)

        assert (status, body["errcode"]) == (400, "M_NOT_JSON")


def test_a_body_that_comes_slowly_but_surely_is_read(hasty: RunningServer) -> None:
    # Protects: the limit in Connection._check_pace is a rate, not a deadline for the whole body.
    with clients.connect(hasty) as client:
        head = clients.head("POST", f"{V3}/login", Content_Length=40_002)
        client.sendall(head + b"{}")
        for _ in range(10):
            client.sendall(b" " * 4_000)
            time.sleep(0.2)

        status, body = clients.answer_of(client)

        assert (status, body["errcode"]) == (400, "M_MISSING_PARAM")


def test_a_head_of_many_long_headers_is_refused_while_it_comes(hasty: RunningServer) -> None:
    # Protects: MAX_HEAD_BYTES in Connection._recv_head. gunicorn accepts 6.5 MB, and copies all of
    # it with each piece.
    with clients.connect(hasty) as client:
        long = {f"X_Long_{number}": "x" * 60_000 for number in range(20)}

        with contextlib.suppress(ConnectionError):  # the server may stop reading
            client.sendall(clients.head("GET", "/_matrix/client/versions", **long))
        status, body = clients.answer_of(client)

        assert (status, body["errcode"]) == (431, "M_TOO_LARGE")
