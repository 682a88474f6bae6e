"""heisenbridge between this server and a real IRC server, set up as docs/bridges.md says."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.clients.bridges import INSTALL_SECONDS, SECONDS, Chat, installed
from tests.helpers import server
from tests.helpers.live import Person
from tests.helpers.programs import running
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(INSTALL_SECONDS)


@pytest.fixture(scope="session")
def python() -> Path:
    """Install heisenbridge, with which comes an IRC server; return the interpreter that has it."""
    return installed("heisenbridge", "heisenbridge>=1.15.4")


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
            log = folder / "bridge.log"
            with running(command, bridge_port, log):
                # it listens before it can accept an invite
                wait_for(lambda: "bridge is now running" in log.read_text(), log.read_text)
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
