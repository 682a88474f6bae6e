"""heisenbridge between this server and a real IRC server, set up as docs/bridges.md says."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import server
from tests.helpers.live import Person

ENVIRONMENT = Path(__file__).parents[2] / "build" / "heisenbridge"
"""A virtual environment of its own: heisenbridge needs an older mautrix than the other tests."""
SECONDS = 60.0


@pytest.fixture(scope="session")
def python() -> Path:
    """Install heisenbridge, with which comes an IRC server; return the interpreter that has it."""
    found = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        environ = {key: it for key, it in os.environ.items() if key != "PIP_CONSTRAINT"}
        install = ["-m", "pip", "install", "--quiet", "heisenbridge>=1.15.4"]
        subprocess.run([str(found), *install], check=True, env=environ)
        (ENVIRONMENT / "installed").touch()
    return found


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a program within the block, from when it listens."""
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as it:
        try:
            until(lambda: listens(port), log.read_text)
            yield
        finally:
            it.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(look: Callable[[], Any], report: Callable[[], str]) -> Any:
    """Return the first true result of a function. Raises AssertionError with a report."""
    end = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < end, report()
        time.sleep(0.05)
    return found


class IrcUser:
    """A user of the IRC server, in one channel."""

    def __init__(self, port: int, nick: str, channel: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._file = self._socket.makefile("r", encoding="utf-8")
        self._say(f"NICK {nick}", f"USER {nick} 0 * :{nick}", f"JOIN {channel}")
        self.channel = channel

    def _say(self, *lines: str) -> None:
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def write(self, text: str) -> None:
        """Send a message to the channel."""
        self._say(f"PRIVMSG {self.channel} :{text}")

    def wait_for(self, text: str) -> str:
        """Return the next line with a text in it."""
        for line in self._file:
            if line.startswith("PING"):
                self._say(line.replace("PING", "PONG").strip())
            if text in line:
                return line.strip()
        raise AssertionError("the IRC server has closed the connection")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Chat:
    """A user of the bridge, who writes to it and reads what comes."""

    _numbers = itertools.count()

    def __init__(self, person: Person) -> None:
        self.person = person

    def say(self, room_id: str, text: str) -> None:
        path = f"/rooms/{room_id}/send/m.room.message/{next(self._numbers)}"
        self.person.ask("PUT", path, {"msgtype": "m.text", "body": text})

    def messages(self, room_id: str) -> list[str]:
        """Return what others have written, the oldest first."""
        answer = self.person.ask("GET", f"/rooms/{room_id}/messages?dir=b&limit=50")
        events = [it for it in answer["chunk"] if it["type"] == "m.room.message"]
        return [
            it["content"].get("body", "")
            for it in reversed(events)
            if it["sender"] != self.person.user_id
        ]

    def wait_for(self, room_id: str, text: str) -> str:
        """Return the first message with a text in it."""
        return str(
            until(
                lambda: next((it for it in self.messages(room_id) if text in it), None),
                lambda: f"no {text!r} among {self.messages(room_id)}",
            )
        )

    def accept_invite(self, name: str) -> str:
        """Join the room of a name to which the bridge invites; return its ID."""

        def invited() -> str | None:
            rooms = self.person.ask("GET", "/sync")["rooms"].get("invite", {})
            for room_id, room in rooms.items():
                events = room["invite_state"]["events"]
                if any(name in str(it["content"].get("name", "")) for it in events):
                    return str(room_id)
            return None

        room_id = str(until(invited, lambda: f"no invite to {name}"))
        self.person.ask("POST", f"/join/{room_id}")
        return room_id


@contextmanager
def bridged(python: Path, folder: Path) -> Iterator[tuple[server.RunningServer, int]]:
    """Run IRC server, homeserver and bridge; yield the homeserver and the port of IRC."""
    irc_port, bridge_port = server.free_port(), server.free_port()
    registration = folder / "heisenbridge.yaml"
    bridge = [str(python), "-m", "heisenbridge", "-c", str(registration)]
    subprocess.run([*bridge, "--generate-compat", "-p", str(bridge_port)], check=True)
    written = yaml.safe_load(registration.read_text())
    assert written["url"].endswith(str(bridge_port))
    irc = [str(python), "-m", "irc.server", "-a", "127.0.0.1", "-p", str(irc_port)]
    with running(irc, irc_port, folder / "irc.log"):
        homeserver = server.start(folder, appservices=f'["{registration}"]')
        try:
            command = [*bridge, "-v", "-p", str(bridge_port), homeserver.url]
            with running(command, bridge_port, folder / "bridge.log"):
                yield homeserver, irc_port
        finally:
            homeserver.stop()


def test_users_talk_with_irc(python: Path, tmp_path: Path) -> None:
    with (
        bridged(python, tmp_path) as (homeserver, irc_port),
        closing(Person(homeserver, "alice")) as person,
        closing(IrcUser(irc_port, "wizard", "#kitchen")) as wizard,
    ):
        alice = Chat(person)
        control = alice.person.create_room(invite=["@heisenbridge:localhost"], is_direct=True)
        alice.wait_for(control, "access to the IRC bridge")

        alice.say(control, "ADDNETWORK home")
        alice.wait_for(control, "Network added")
        alice.say(control, f"ADDSERVER home 127.0.0.1 {irc_port}")
        alice.say(control, "OPEN home")
        network = alice.accept_invite("home")
        alice.say(network, "NICK alice")
        alice.say(network, "CONNECT")
        alice.wait_for(network, "End of MOTD")
        alice.say(network, "JOIN #kitchen")
        channel = alice.accept_invite("#kitchen")
        alice.say(channel, "Is there tea?")
        line = wizard.wait_for("Is there tea?")
        wizard.write("There is.")
        answer = alice.wait_for(channel, "There is.")

    assert line.startswith(":alice!")
    assert answer == "There is."
