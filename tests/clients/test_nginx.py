"""The nginx configuration in docs/proxy.md, in front of a real server."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import proxies, server
from tests.helpers.server import RunningServer


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[RunningServer]:
    """Start a server that records the addresses it gets from nginx."""
    running = server.start(tmp_path, log_level="INFO", max_upload_bytes="60 MiB")
    yield running
    running.stop()


@pytest.fixture
def nginx(behind: RunningServer, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Start nginx with the configuration in docs/proxy.md; return its two URLs.

    They are those of matrix.example.org and example.org. Only what a test machine lacks is changed:
    certificates, port 443, and the server's own port.
    """
    matrix, root = server.free_port(), server.free_port()
    text = proxies.of_page("nginx").replace("http://127.0.0.1:8008", behind.url)
    text = text.replace("listen [::]:443 ssl;", "")
    for port in (matrix, root):
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};", 1)
    with proxies.nginx_with(tmp_path, text, matrix):
        yield f"http://127.0.0.1:{matrix}", f"http://127.0.0.1:{root}"


def ask(url: str, body: Any = None, token: str = "", data: bytes | None = None) -> Any:
    """Return the JSON of a response."""
    if body is not None:
        data = json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(url, data, headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - loopback
        return json.loads(answer.read())


def register(url: str, name: str) -> str:
    body = {"username": name, "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    return str(ask(f"{url}/_matrix/client/v3/register", body)["access_token"])


def test_a_waiting_sync_and_an_escaped_slash_come_through(nginx: tuple[str, str]) -> None:
    matrix, _ = nginx
    token = register(matrix, "alice")
    v3 = f"{matrix}/_matrix/client/v3"
    room_id = ask(f"{v3}/createRoom", {}, token)["room_id"]
    since = ask(f"{v3}/sync", token=token)["next_batch"]
    answers: list[Any] = []

    def wait() -> None:
        answers.append(ask(f"{v3}/sync?timeout=20000&since={since}", token=token))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    state = f"{v3}/rooms/{room_id}/state/org.example.x/a%2Fb"
    put = urllib.request.Request(  # noqa: S310 - loopback
        state, b'{"n": 1}', {"Authorization": f"Bearer {token}"}, method="PUT"
    )
    with urllib.request.urlopen(put, timeout=10):  # noqa: S310 - loopback
        pass
    waiting.join(10)

    events = answers[0]["rooms"]["join"][room_id]["timeline"]["events"]
    assert [(event["type"], event["state_key"]) for event in events] == [("org.example.x", "a/b")]


def test_a_big_upload_comes_through_and_one_too_big_does_not(nginx: tuple[str, str]) -> None:
    matrix, _ = nginx
    token = register(matrix, "alice")
    upload = f"{matrix}/_matrix/media/v3/upload"

    kept = ask(upload, token=token, data=bytes(45 * 2**20))
    connection = http.client.HTTPConnection(matrix.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/_matrix/media/v3/upload")
    connection.putheader("Authorization", f"Bearer {token}")
    connection.putheader("Content-Length", str(55 * 2**20))
    connection.endheaders()  # refused by this alone
    refused = connection.getresponse()
    body = json.loads(refused.read())
    connection.close()

    assert kept["content_uri"].startswith("mxc://localhost/")
    assert (refused.status, body["errcode"]) == (413, "M_TOO_LARGE")
    assert refused.headers["Access-Control-Allow-Origin"] == "*"


def test_a_web_client_can_read_that_the_server_is_away(
    nginx: tuple[str, str], behind: RunningServer
) -> None:
    matrix, _ = nginx
    behind.stop()

    with pytest.raises(urllib.error.HTTPError) as raised:
        ask(f"{matrix}/_matrix/client/versions")

    answer = raised.value
    assert (answer.code, json.loads(answer.read())["errcode"]) == (502, "M_UNKNOWN")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_the_client_is_known_by_its_own_address(
    nginx: tuple[str, str], behind: RunningServer
) -> None:
    matrix, _ = nginx
    token = register(matrix, "alice")

    devices = ask(f"{matrix}/_matrix/client/v3/devices", token=token)["devices"]

    assert devices[0]["last_seen_ip"] == "127.0.0.1"
    assert " - 127.0.0.1 POST /_matrix/client/v3/register" in behind.output()


def test_the_domain_shows_clients_the_way(nginx: tuple[str, str]) -> None:
    _, root = nginx

    with urllib.request.urlopen(f"{root}/.well-known/matrix/client", timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Content-Type"] == "application/json"
        found = json.loads(answer.read())

    assert found == {"m.homeserver": {"base_url": "https://matrix.example.org"}}
