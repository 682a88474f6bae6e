"""Signed requests to a real server: gunicorn passes on the path and headers as they were sent."""

from __future__ import annotations

import http.client
import json
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers import server
from tests.helpers.remote import Remote, Remotes
from tests.helpers.server import RunningServer

PATH = "/_matrix/federation/v1/query/profile"
QUERY = "user_id=%40nobody%3Alocalhost"


@pytest.fixture
def running(remote: Remotes, tmp_path: Path) -> Iterator[RunningServer]:
    started = server.start(tmp_path, **remote.settings)
    remote.talk_to_running(started, tmp_path, "localhost")
    yield started
    started.stop()


def send(running: RunningServer, target: str, *headers: str, body: bytes = b"") -> tuple[int, Any]:
    """Send a request whose line and headers are exactly these."""
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    connection.putrequest("POST" if body else "GET", target)
    for value in headers:
        connection.putheader("Authorization", value)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_requests_are_authenticated_however_they_are_written(
    running: RunningServer, remote: Remotes
) -> None:
    b = remote("b.test")

    def sign(uri: str, content: Any = None) -> str:
        method = "GET" if content is None else "POST"
        return b.authorization(method, uri, content, "localhost")

    plain, escaped = f"{PATH}?{QUERY}", f"/_matrix/federation/v1/%71uery/profile?{QUERY}&a=%7e&&b"
    unknown = sign(plain).replace(b.key.key_id, "ed25519:none")
    body = {"filter": {"generic_search_term": "ü"}}
    found = [
        send(running, plain, sign(plain))[0],
        send(running, escaped, sign(escaped))[0],
        send(running, f"https://localhost{plain}", sign(plain))[0],
        send(running, plain, unknown, sign(plain))[0],
        send(running, plain, sign(plain).replace('"', "").replace("X-Matrix ", "x-matrix   "))[0],
        send(
            running,
            "/_matrix/federation/v1/publicRooms",
            sign("/_matrix/federation/v1/publicRooms", body),
            body=json.dumps(body).encode(),
        )[0],
        send(running, escaped, sign(plain))[0],
        send(running, plain)[0],
    ]

    assert found == [404, 404, 404, 404, 404, 200, 401, 401]
    assert len(b.received("/_matrix/key/v2/server")) == 1


def test_a_server_whose_keys_come_late_delays_nobody_else(
    running: RunningServer, remote: Remotes
) -> None:
    slow: Remote = remote("c.test")
    slow.delay("/_matrix/key/v2/server", 2)
    target = f"{PATH}?{QUERY}"
    waiting = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    header = slow.authorization("GET", target, None, "localhost")
    waiting.request("GET", target, headers={"Authorization": header})
    slow.wait_until(lambda: slow.received("/_matrix/key/v2/server"), "the request for keys")

    answer = remote("b.test").get("v1", "query", "profile", query={"user_id": "@x:localhost"})
    is_slow_one_waiting = not select.select([waiting.sock], [], [], 0)[0]
    response = waiting.getresponse()

    assert answer.status == 404
    assert is_slow_one_waiting
    assert (response.status, json.loads(response.read())["errcode"]) == (404, "M_NOT_FOUND")
    waiting.close()
