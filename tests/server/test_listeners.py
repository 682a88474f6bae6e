"""Where the server listens: addresses, ports, Unix sockets, and an address for metrics."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homebody.server import listeners
from homebody.storage.data_folder import StartError
from tests.helpers import server as real_server
from tests.helpers import service_manager
from tests.helpers.server import RunningServer
from tests.server.test_startup import complaint


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def get(
    connection: http.client.HTTPConnection, path: str = "/health", **headers: str
) -> tuple[int, bytes]:
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def at(host: str, port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(host, port, timeout=10)


def line_of(server: RunningServer, text: str) -> str:
    """Return the first line of the log that contains a text."""
    until = time.monotonic() + real_server.START_SECONDS
    while time.monotonic() < until:
        for line in server.output().splitlines():
            if text in line:
                return line
        time.sleep(0.05)
    raise AssertionError(server.output())


@contextlib.contextmanager
def serving(data_dir: Path, **settings: str) -> Iterator[tuple[RunningServer, str]]:
    """Start a server; yield it and its line about addresses."""
    data_dir.mkdir(exist_ok=True)
    running = service_manager.launch(data_dir, settings)
    try:
        yield running, line_of(running, "homebody serves")
    finally:
        running.stop()


def ports_in(line: str) -> list[int]:
    return [int(it) for it in re.findall(r":(\d+)(?=,)", line.partition(" on ")[2])]


def test_several_addresses_of_both_families(tmp_path: Path) -> None:
    with serving(tmp_path / "data", bind="127.0.0.1:0,[::1]:0") as (_, line):
        old, new = ports_in(line)

        answers = get(at("127.0.0.1", old)), get(at("::1", new))

    assert f"on 127.0.0.1:{old}, [::1]:{new}, and" in line
    assert answers == ((200, b"OK"), (200, b"OK"))


def test_all_addresses_of_both_families_with_one_port(tmp_path: Path) -> None:
    port = real_server.free_port()

    with serving(
        tmp_path / "data", bind=f"0.0.0.0:{port},[::]:{port}", password_hashing="argon2id"
    ):
        answers = get(at("127.0.0.1", port)), get(at("::1", port))

    assert answers == ((200, b"OK"), (200, b"OK"))


def test_what_port_0_has_become_is_in_the_log_and_in_the_servers_url(tmp_path: Path) -> None:
    with serving(tmp_path / "data", bind="127.0.0.1:0") as (_, line):
        (port,) = ports_in(line)

        _, body = get(at("127.0.0.1", port), "/.well-known/matrix/client")

    assert json.loads(body)["m.homeserver"]["base_url"] == f"http://localhost:{port}"
    assert f"sends clients to http://localhost:{port} (public_url)" in line


def test_a_unix_socket_that_everybody_in_its_folder_may_use(tmp_path: Path) -> None:
    path = tmp_path / "homebody.sock"

    with serving(tmp_path / "data", bind=f"unix:{path}") as (_, line):
        answer = get(UnixConnection(path))
        mode = stat.S_IMODE(path.stat().st_mode)

    assert f"on unix:{path}, and sends clients to http://localhost (public_url)" in line
    assert answer == (200, b"OK")
    assert mode == 0o666
    assert not path.exists(), "it is removed at the end"


def test_a_proxy_at_a_unix_socket_names_the_client(tmp_path: Path) -> None:
    path = tmp_path / "homebody.sock"
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Request-Id": "from-the-proxy"}

    with serving(tmp_path / "data", bind=f"unix:{path}") as (running, _):
        get(UnixConnection(path), "/_matrix/client/versions", **headers)
        line = line_of(running, "GET /_matrix/client/versions")

    assert " - from-the-proxy - 192.0.2.7 GET /_matrix/client/versions - 200 " in line


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "homebody.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))

    with serving(tmp_path / "data", bind=f"unix:{path}"):
        assert get(UnixConnection(path)) == (200, b"OK")


def test_a_socket_that_is_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "homebody.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        sentence = complaint(tmp_path, bind=f"unix:{path}")

        assert sentence == f"Can't listen on unix:{path}: Address already in use"
        assert path.is_socket()


def test_and_neither_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "homebody.sock"
    path.write_text("a shopping list")

    with pytest.raises(StartError, match="Address already in use"):
        listeners.open_all([f"unix:{path}"])

    assert path.read_text() == "a shopping list"


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, bind=f"unix:{tmp_path}/run/homebody.sock")

    assert sentence.endswith("homebody.sock: No such file or directory")


@pytest.fixture(scope="module")
def with_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of a server and of its metrics."""
    settings = {"bind": "127.0.0.1:0", "metrics_bind": "127.0.0.1:0"}
    data_dir = tmp_path_factory.mktemp("metrics")
    with serving(data_dir, **settings, metrics_token="s3cret") as (running, line):
        metrics = line_of(running, "metrics are on")
        yield ports_in(line)[0], int(metrics.rpartition(":")[2])


def test_metrics_have_an_address_of_their_own(with_metrics: tuple[int, int]) -> None:
    main, metrics = with_metrics

    status, body = get(at("127.0.0.1", metrics), "/metrics")
    through_proxy = get(at("127.0.0.1", metrics), "/metrics", **{"X-Forwarded-For": "192.0.2.7"})
    elsewhere = get(at("127.0.0.1", main), "/metrics", Authorization="Bearer s3cret")

    assert (status, b"homebody_uptime_seconds" in body) == (200, True)
    assert through_proxy[0] == 200
    assert (elsewhere[0], json.loads(elsewhere[1])["errcode"]) == (404, "M_UNRECOGNIZED")


def test_only_metrics_and_health_are_served_there(with_metrics: tuple[int, int]) -> None:
    main, metrics = with_metrics

    answers = {
        path: (get(at("127.0.0.1", main), path)[0], get(at("127.0.0.1", metrics), path)[0])
        for path in ("/health", "/_matrix/client/versions", "/", "//metrics", "/metrics?a=b")
    }

    assert answers == {
        "/health": (200, 200),
        "/_matrix/client/versions": (200, 404),
        "/": (200, 404),
        "//metrics": (404, 404),
        "/metrics?a=b": (404, 200),
    }


@pytest.mark.parametrize("path", ["/%6Detrics", "/metrics/", "http://x/metrics", "/metric%73"])
def test_no_other_spelling_reaches_them_at_the_main_address(
    with_metrics: tuple[int, int], path: str
) -> None:
    status, body = get(at("127.0.0.1", with_metrics[0]), path)

    assert status == 404, body


def test_a_port_of_metrics_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"

        sentence = complaint(tmp_path, metrics_bind=address)

    assert sentence == f"Can't listen on {address}: Address already in use"


@pytest.mark.parametrize(
    "value", ["", "127.0.0.1:1,127.0.0.1:1", "unix:", "unix:/" + "x" * 107, "8008,127.0.0.1:1"]
)
def test_wrong_values(tmp_path: Path, value: str) -> None:
    sentence = complaint(tmp_path, bind=value)

    assert "HOMEBODY_BIND: must be an address and a port" in sentence


def test_the_sockets_of_another_process_are_not_taken() -> None:
    environ: dict[str, Any] = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}

    assert listeners.activated(environ) == []
