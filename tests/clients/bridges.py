"""Bridges that are programs of their own, and a user who talks to them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.live import Person
from tests.helpers.waiting import wait_for

SECONDS = 60.0
INSTALL_SECONDS = 600
"""The limit of a test that installs a bridge first."""
_BUILD = Path(__file__).parents[2] / "build"


def installed(name: str, *requirements: str) -> Path:
    """Install a bridge into an environment of its own in build/; return the interpreter.

    Bridges need an older mautrix than the other tests.
    """
    environment = _BUILD / name
    found = environment / "bin" / "python"
    if not (environment / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        environ = {key: it for key, it in os.environ.items() if "CONSTRAINT" not in key}
        install = ["-m", "pip", "install", "--quiet", *requirements]
        subprocess.run([str(found), *install], check=True, env=environ)
        (environment / "installed").touch()
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
            wait_for(
                lambda: next((it for it in self.messages(room_id) if text in it), None),
                lambda: f"no {text!r} among {self.messages(room_id)}",
                SECONDS,
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

        room_id = str(wait_for(invited, f"an invite to {name}", SECONDS))
        self.person.ask("POST", f"/join/{room_id}")
        return room_id
