"""What the server says to systemd, and the sockets that it takes from it."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homebody.server import systemd
from tests.helpers import service_manager
from tests.helpers.server import ROOT, RunningServer
from tests.helpers.service_manager import Notifications


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Notifications]:
    notifications = Notifications(tmp_path)
    yield notifications
    notifications.close()


@pytest.fixture
def launched(tmp_path: Path, manager: Notifications) -> Iterator[RunningServer]:
    """A server that systemd watches, with 600 ms between two signs of life at most."""
    (tmp_path / "data").mkdir()
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "600000"}
    settings = {"bind": "127.0.0.1:0", "hub_stall": "10 s"}
    running = service_manager.launch(tmp_path / "data", settings, environ=environ)
    yield running
    running.stop()


def port_in(status: str) -> int:
    found = re.search(r"127\.0\.0\.1:(\d+)", status)
    assert found is not None, status
    return int(found[1])


def get(port: int, path: str = "/health") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def test_it_is_ready_when_it_answers_and_not_before(
    launched: RunningServer, manager: Notifications
) -> None:
    before = manager.next()
    ready = manager.wait_for("READY")

    assert before == {"STATUS": "Checking the data, and bringing the database up to date"}
    assert ready["STATUS"].startswith("Serving localhost on 127.0.0.1:")
    assert get(port_in(ready["STATUS"])) == 200
    assert [it for it in manager.received if "READY" in it] == [ready]


def test_it_says_that_it_stops(launched: RunningServer, manager: Notifications) -> None:
    manager.wait_for("READY")

    launched.stop()

    assert manager.wait_for("STOPPING") == {"STOPPING": "1", "STATUS": "Finishing requests"}
    assert launched.process.returncode == 0


def test_a_reload_is_announced_and_ended(launched: RunningServer, manager: Notifications) -> None:
    manager.wait_for("READY")

    launched.process.send_signal(signal.SIGHUP)

    reloading = manager.wait_for("RELOADING")
    assert int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.wait_for("READY")["STATUS"].startswith("Serving ")
    assert launched.process.poll() is None


def test_signs_of_life_come_while_the_event_loop_turns(
    launched: RunningServer, manager: Notifications
) -> None:
    manager.wait_for("READY")

    assert 4 <= manager.count("WATCHDOG", 2.0) <= 11


def test_and_none_while_it_is_blocked(tmp_path: Path, manager: Notifications) -> None:
    (tmp_path / "data").mkdir()
    environ = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": "300000",
        "GUNICORN_CMD_ARGS": "--worker-class tests.helpers.blocked_worker.LongBlockedWorker",
        "PYTHONPATH": str(ROOT),
    }
    running = service_manager.launch(tmp_path / "data", {"bind": "127.0.0.1:0"}, environ=environ)
    try:
        port = port_in(manager.wait_for("READY")["STATUS"])
        assert manager.count("WATCHDOG", 1.0) >= 3

        blocked = threading.Thread(target=get, args=(port, "/_matrix/client/versions"))
        blocked.start()
        manager.count("WATCHDOG", 0.5)

        assert manager.count("WATCHDOG", 1.0) == 0
        blocked.join()
        assert manager.count("WATCHDOG", 2.0) >= 3
    finally:
        running.stop()


def test_sockets_of_systemd_are_served_in_place_of_the_setting(
    tmp_path: Path, manager: Notifications
) -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "homebody.socket"))
        for listener in (tcp, unix):
            listener.listen()
        port = tcp.getsockname()[1]
        (tmp_path / "data").mkdir()

        environ = {"NOTIFY_SOCKET": str(manager.path)}
        running = service_manager.launch(
            tmp_path / "data", {"bind": "127.0.0.1:1"}, listeners=[tcp, unix], environ=environ
        )
        try:
            status = manager.wait_for("READY")["STATUS"]
            answer = get(port)
        finally:
            running.stop()

    assert status == f"Serving localhost on 127.0.0.1:{port}, unix:{tmp_path}/homebody.socket"
    assert answer == 200
    assert (tmp_path / "homebody.socket").is_socket(), "it is systemd's"


def test_requests_wait_in_a_socket_of_systemd_until_the_server_is_there(
    tmp_path: Path, manager: Notifications
) -> None:
    (tmp_path / "data").mkdir()
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        early = http.client.HTTPConnection("127.0.0.1", tcp.getsockname()[1], timeout=20)
        with contextlib.closing(early):
            early.request("GET", "/health")

            running = service_manager.launch(tmp_path / "data", {}, listeners=[tcp])
            try:
                assert early.getresponse().status == 200
            finally:
                running.stop()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, systemd.Notifier()),
        ({"NOTIFY_SOCKET": "@x"}, systemd.Notifier("\0x")),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, systemd.Notifier("/x")),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "often"}, systemd.Notifier("/x")),
        (
            {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"},
            systemd.Notifier("/x"),
        ),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9000000"}, systemd.Notifier("/x", 3.0)),
    ],
)
def test_the_variables_of_systemd_are_taken_out_of_the_environment(
    environ: dict[str, str], expected: systemd.Notifier
) -> None:
    environ["PATH"] = "/bin"

    notifier = systemd.take_over(environ)

    assert notifier == expected
    assert environ == {"PATH": "/bin"}


def test_a_service_manager_that_has_gone_is_no_fault(tmp_path: Path) -> None:
    notifier = systemd.Notifier(str(tmp_path / "nobody"))

    notifier.ready("Serving")
    notifier.alive()


def test_the_database_of_a_stopped_service_is_whole(
    launched: RunningServer, manager: Notifications, tmp_path: Path
) -> None:
    manager.wait_for("READY")

    launched.stop()

    with sqlite3.connect(tmp_path / "data" / "homebody.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
