"""`homebody trace` with a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homebody.cli import trace as command
from homebody.core import audit
from homebody.runtime import traces
from homebody.web import tracing
from tests.helpers import server as real_server
from tests.helpers.backups import HOMEBODY, done, environ_of, homebody
from tests.helpers.live import Person
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

SECONDS = 30.0
PASSWORD = "x" * 12
SECRETS = (PASSWORD, "swordfish", "syt_secret")


class Trace:
    """A command that runs, with what it has printed in two files."""

    def __init__(self, running: RunningServer, folder: Path, *words: str) -> None:
        self._outputs = [folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        with self._outputs[0].open("wb") as out, self._outputs[1].open("wb") as err:
            self.process = subprocess.Popen(
                [HOMEBODY, "trace", *words],
                env={
                    **os.environ,
                    **environ_of(running.log.parent),
                    "HOMEBODY_PUBLIC_URL": running.url,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def printed(self) -> str:
        return self._outputs[0].read_text("utf-8")

    @property
    def said(self) -> str:
        return self._outputs[1].read_text("utf-8")

    def wait_for(self, text: str, times: int = 1) -> None:
        wait_for(lambda: (self.printed + self.said).count(text) >= times, self.__str__)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)

    def __str__(self) -> str:
        return self.printed + self.said


Follow = Callable[..., Trace]
Register = Callable[[str], Person]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningServer]:
    (tmp_path / "data").mkdir()
    running = real_server.start(tmp_path / "data", registration="open")
    yield running
    running.stop()


@pytest.fixture
def register(running: RunningServer) -> Iterator[Register]:
    people: list[Person] = []

    def add(name: str) -> Person:
        people.append(Person(running, name))
        return people[-1]

    yield add
    for it in people:
        it.close()


@pytest.fixture
def follow(running: RunningServer, tmp_path: Path) -> Iterator[Follow]:
    started: list[Trace] = []

    def start(*words: str) -> Trace:
        started.append(Trace(running, tmp_path, *words))
        started[-1].wait_for("The server reports the requests of ")
        return started[-1]

    yield start
    for it in started:
        it.process.kill()
        it.process.wait()


@pytest.fixture
def sockets(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: [it.name for it in (tmp_path / "data" / traces.FOLDER_NAME).iterdir()]


def test_requests_are_printed_as_curl_commands(
    running: RunningServer, register: Register, follow: Follow
) -> None:
    alice, bob = register("alice"), register("bob")
    room_id = alice.create_room(name="It's $HOME")
    trace = follow("alice")

    bob.create_room(name="Bob's")
    alice.ask("GET", "/account/whoami")
    alice.raw("PUT", f"/rooms/{room_id}/send/m.text/1", {"body": "it's \u202e $(id)"})
    alice.raw("GET", "/rooms/!nowhere/state")
    trace.wait_for("\n# 403")

    assert trace.interrupt() == 0
    first, ended, sent, *_ = trace.printed.splitlines()
    assert shlex.split(first)[:2] == ["curl", f"{running.url}/_matrix/client/v3/account/whoami"]
    assert first.endswith(' -H "Authorization: Bearer $TOKEN"')
    assert re.fullmatch(
        r"# 200 in 0\.\d{3} s, \d\d:\d\d:\d\d, request [0-9a-f]{8}, device \w+", ended
    )
    words = shlex.split(sent)
    assert words[1:3] == ["-X", "PUT"]
    assert json.loads(words[-1]) == {"body": "it's \u202e $(id)"}
    assert "\u202e" not in trace.printed
    assert "bob" not in str(trace).lower()
    assert alice._token not in str(trace)  # noqa: SLF001 - what must not be printed


def test_secrets_are_masked(register: Register, follow: Follow) -> None:
    alice = register("alice")
    trace = follow("@alice:localhost", "--json")
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
    }

    alice.raw("POST", "/login", login)
    alice.raw("POST", "/login", {**login, "password": "swordfish"})
    auth = {**login, "session": "swordfish"}
    alice.raw(
        "POST",
        "/account/password?access_token=syt_secret",
        {"new_password": "swordfish", "logout_devices": False, "auth": auth},
    )
    alice.raw("GET", f"/sync?access_token={alice._token}")  # noqa: SLF001 - as old clients send it
    trace.wait_for("/sync")
    trace.interrupt()

    first, refused, changed, synced = map(json.loads, trace.printed.splitlines())
    assert first["status"] == 200
    assert first["body"] == {**login, "password": "***"}
    assert (refused["status"], refused["has_token"]) == (403, False)
    assert changed["body"]["new_password"] == "***"
    assert changed["body"]["auth"] == {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "***",
        "session": "***",
    }
    assert changed["body"]["logout_devices"] is False
    assert synced["path"].endswith("/sync?access_token=***")
    assert not [it for it in (*SECRETS, alice._token) if it in str(trace)]  # noqa: SLF001 - see above


def test_bodies_can_be_left_out_and_large_ones_are(register: Register, follow: Follow) -> None:
    alice = register("alice")
    room_id = alice.create_room()
    whole, without = follow("alice"), follow("alice", "--no-bodies")

    alice.send(room_id, "a small one")
    alice.send(room_id, "large " * 5000)
    alice.raw("POST", "/_matrix/media/v3/upload", b"a file")
    for trace in (whole, without):
        trace.wait_for("\n# 200", times=2)
        trace.wait_for("/upload")

    assert "a small one" in whole.printed
    assert "large large" not in whole.printed
    assert "a file" not in whole.printed
    assert re.search(r"# and 3\d{4} bytes that are not shown\n", whole.printed)
    assert "# and 6 bytes that are not shown\n" in whole.printed
    assert "a small one" not in without.printed
    assert "--data" not in without.printed


def test_a_data_folder_may_have_a_long_path(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    data_dir.mkdir()

    with traces.listening(data_dir, "@alice:localhost") as bound:
        served = traces.Traces(data_dir)
        served.refresh()
        served.send("@alice:localhost", {"status": 200})
        received = [json.loads(bound.recv(traces.MAX_BYTES)) for _ in range(2)]

    assert served.sockets
    assert received == [{"is_greeting": True, "dropped": 0}, {"status": 200, "dropped": 0}]
    served.refresh()
    assert not served.sockets


def test_a_trace_ends_by_itself(
    register: Register,
    follow: Follow,
    sockets: Callable[[], list[str]],
    tmp_path: Path,
) -> None:
    register("alice")

    trace = follow("alice", "--for", "2s")

    assert len(sockets()) == 1
    assert trace.process.wait(SECONDS) == 0
    assert trace.said == "The server reports the requests of @alice:localhost\n"
    assert sockets() == []
    assert (tmp_path / "data" / traces.FOLDER_NAME).stat().st_mode & 0o777 == 0o700
    entry = done(tmp_path / "data", "audit")[0]
    assert (entry["actor"], entry["action"]) == (audit.COMMAND_LINE, "user.trace")
    assert (entry["subject"], entry["details"]) == ("@alice:localhost", {"for_ms": 2000})


def test_a_trace_goes_on_when_the_server_has_been_restarted(
    running: RunningServer, register: Register, follow: Follow, tmp_path: Path
) -> None:
    alice = register("alice")
    trace = follow("alice")

    running.stop()
    again = real_server.start(tmp_path / "data", registration="open")
    try:
        alice.server = again
        alice.ask("GET", "/account/whoami")
        trace.wait_for("whoami")
    finally:
        again.stop()

    assert "The server again reports the requests of @alice:localhost\n" in trace.said


def test_traces_of_two_users_are_separate(register: Register, follow: Follow) -> None:
    alice, bob = register("alice"), register("bob")
    of_alice, of_bob = follow("alice"), follow("bob")

    alice.ask("GET", "/account/whoami")
    bob.ask("GET", "/joined_rooms")
    of_alice.wait_for("whoami")
    of_bob.wait_for("joined_rooms")

    assert "joined_rooms" not in of_alice.printed
    assert "whoami" not in of_bob.printed


def test_the_socket_of_a_killed_command_is_removed(
    running: RunningServer, register: Register, follow: Follow, sockets: Callable[[], list[str]]
) -> None:
    alice = register("alice")
    killed, other = follow("alice"), follow("alice")

    killed.process.kill()
    killed.process.wait()
    wait_for(lambda: len(sockets()) == 1)
    alice.ask("GET", "/account/whoami")
    other.wait_for("whoami")

    assert other.interrupt() == 0
    assert sockets() == []
    alice.ask("GET", "/account/whoami")
    assert "ERROR" not in running.output()


def test_requests_do_not_wait_for_a_trace_that_does_not_read(
    register: Register, follow: Follow
) -> None:
    alice = register("alice")
    trace = follow("alice")

    trace.process.send_signal(signal.SIGSTOP)
    for _ in range(400):
        alice.ask("GET", "/account/whoami")
    trace.process.send_signal(signal.SIGCONT)
    trace.wait_for("whoami")
    wait_for(lambda: alice.ask("GET", "/joined_rooms") and "too quick" in trace.said, trace.__str__)

    shown = trace.printed.count("whoami")
    missed = sum(map(int, re.findall(r"(\d+) requests were too quick to be shown", trace.said)))
    assert shown + missed >= 400


def test_without_a_server_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    done(tmp_path / "data", "init")
    environ = {**os.environ, **environ_of(tmp_path / "data")}
    add = [HOMEBODY, "user", "add", "alice", "--password-stdin"]
    subprocess.run(add, env=environ, input=PASSWORD.encode(), check=True, capture_output=True)
    monkeypatch.setattr(command, "SECONDS_TO_GREET", 0.1)

    alone = homebody(tmp_path / "data", "trace", "alice", "--for", "500 ms")

    assert (alone.exit_code, alone.stdout) == (0, "")
    assert alone.stderr == "No server answers: it is not running, or has no access\n"


def test_users_and_times_that_are_wrong_are_refused(register: Register, tmp_path: Path) -> None:
    register("alice")

    unknown = homebody(tmp_path / "data", "trace", "nobody", "--json")
    wrong = homebody(tmp_path / "data", "trace", "alice", "--for", "soon")

    assert unknown.exit_code == 1
    assert json.loads(unknown.stderr)["errcode"] == "M_NOT_FOUND"
    assert wrong.exit_code != 0
    assert not (tmp_path / "data" / traces.FOLDER_NAME).exists()


def test_a_link_in_place_of_the_folder_is_refused(register: Register, tmp_path: Path) -> None:
    register("alice")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / traces.FOLDER_NAME).symlink_to(tmp_path / "elsewhere")

    refused = homebody(tmp_path / "data", "trace", "alice", "--for", "1s")

    assert refused.exit_code == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [{"refresh_token": "x"}]}, {"a": [{"refresh_token": "***"}]}),
        ({"mac": "x", "nonce": "x", "admin": True}, {"mac": "***", "nonce": "***", "admin": True}),
        ({"client_secret": ["x"], "send_attempt": 1}, {"client_secret": "***", "send_attempt": 1}),
        (
            {"messages": {"@a:b": {"D": {"secret": "x"}}}},
            {"messages": {"@a:b": {"D": {"secret": "***"}}}},
        ),
        ({"auth": {"type": "t", "response": "x"}}, {"auth": {"type": "t", "response": "***"}}),
        ({"auth": "a text"}, {"auth": "a text"}),
    ],
)
def test_values_of_secret_keys_are_masked(value: Any, shown: Any) -> None:
    assert tracing.masked(value) == shown


def test_deep_json_is_cut() -> None:
    value: Any = {}
    for _ in range(1000):
        value = {"a": [value]}

    text = json.dumps(tracing.masked(value))

    assert "***" in text
