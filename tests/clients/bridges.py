"""Bridges that are programs of their own, and a user who talks to them."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.live import Person

SECONDS = 60.0
_BUILD = Path(__file__).parents[2] / "build"


def installed(name: str, *requirements: str) -> Path:
    """Install a bridge into an environment of its own in build/; return the interpreter.

    Bridges need an older mautrix than the other tests.
    """
    environment = _BUILD / name
    found = environment / "bin" / "python"
    if not (environment / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        environ = {key: it for key, it in os.environ.items() if key != "PIP_CONSTRAINT"}
        install = ["-m", "pip", "install", "--quiet", *requirements]
        subprocess.run([str(found), *install], check=True, env=environ)
        (environment / "installed").touch()
    return found


@contextmanager
def running(command: list[str], port: int, log: Path, cwd: Path | None = None) -> Iterator[None]:
    """Run a program within the block, from when it listens."""
    with (
        log.open("ab") as output,
        subprocess.Popen(command, stdout=output, stderr=output, cwd=cwd) as it,
    ):
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
