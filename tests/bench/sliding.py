"""`python -m tests.bench.sliding`: the time of sliding sync for a user in many rooms.

Times are those of the processor, of requests without a network, so that they say something on a
busy machine as well.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from flask.testing import FlaskClient

from homebody.application import create_app
from homebody.config import settings as config
from homebody.core.sliding_sync import kept_states
from homebody.storage import migrations
from homebody.web import Application
from tests.conftest import PASSWORD, V3
from tests.helpers.sliding import PATH

Json = dict[str, Any]
_STATE = [
    *([kind, ""] for kind in ("m.room.create", "m.room.encryption", "m.room.topic")),
    *([kind, ""] for kind in ("m.room.avatar", "m.room.power_levels", "m.room.join_rules")),
    *(["m.room.member", key] for key in ("$LAZY", "$ME")),
]
_NAMES = ("to_device", "e2ee", "account_data", "receipts", "typing")
_EXTENSIONS = {name: {"enabled": True} for name in _NAMES}


class Phone:
    """A client of a user, which does what Element X does."""

    def __init__(self, client: FlaskClient, name: str) -> None:
        self.client = client
        account = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        session = client.post(V3 + "register", json=account).get_json()
        self._headers = {"Authorization": f"Bearer {session['access_token']}"}
        self.pos: str | None = None
        self.name = "main"
        """Of its connection."""

    def ask(self, method: str, path: str, body: Json) -> Json:
        """Return the response to a request."""
        answer = self.client.open(V3 + path, method=method, headers=self._headers, json=body)
        assert answer.status_code == 200, answer.get_json()
        found: Json = answer.get_json()
        return found

    def look(self, last: int, *, rooms: int | None = None) -> float:
        """Send a request for a window, go on with its pos, and return how many ms it took."""
        a_list = {"ranges": [[0, last]], "timeline_limit": 1, "required_state": _STATE}
        a_list["filters"] = {"not_room_types": ["m.space"]}
        body = {"conn_id": self.name, "lists": {"all": a_list}, "extensions": _EXTENSIONS}
        url = PATH if self.pos is None else f"{PATH}?pos={self.pos}"
        began = time.process_time()
        answer = self.client.post(url, headers=self._headers, json=body)
        taken_ms = 1000 * (time.process_time() - began)
        found = answer.get_json()
        assert rooms is None or len(found["rooms"]) == rooms
        self.pos = found["pos"]
        return taken_ms


@contextmanager
def started(folder: Path) -> Iterator[Application]:
    """Start a server in this folder."""
    options = {"data_dir": str(folder), "password_hashing": "cheap", "rate_limits": "false"}
    app = create_app(config.load(None, {}, options))
    app.homeserver.database.writer.raw.execute("PRAGMA synchronous = OFF")
    yield app
    app.homeserver.ephemeral.close()
    app.homeserver.database.close()


def median(times: int, action: Callable[[], float]) -> float:
    """Return the median of what an action returns."""
    return statistics.median(action() for _ in range(times))


def measure(folder: Path, rooms: int) -> Iterator[tuple[str, float]]:
    """Yield (what was measured, ms)."""
    migrations.create(folder / "homebody.db")
    with started(folder) as app:
        alice, bob = (Phone(app.test_client(), name) for name in ("alice", "bob"))
        ids: list[str] = []
        for number in range(rooms):
            wishes = {"preset": "public_chat", "name": f"Room {number}"}
            ids.append(alice.ask("POST", "createRoom", wishes)["room_id"])
            bob.ask("POST", f"join/{quote(ids[-1])}", {})
            _say(alice, ids[-1])

        def first() -> float:
            bob.pos = None
            return bob.look(19, rooms=min(20, rooms))

        def event() -> float:
            ids.append(ids.pop(0))
            _say(alice, ids[-1])
            return bob.look(rooms, rooms=1)

        yield "first window of 20", median(15, first)
        yield "nothing new, window of 20", median(50, lambda: bob.look(19))
        bob.look(rooms)
        yield "nothing new, all rooms", median(50, lambda: bob.look(rooms))
        yield "one event, all rooms", median(50, event)
        parts = app.homeserver
        kept_states.write(parts.database, parts.sliding_connections, is_last=True)
        for _ in range(9):
            event()
        yield "first request after a kill, 9 rooms in full", _resumed(folder, bob, rooms)
        bob.look(rooms)
        kept_states.write(parts.database, parts.sliding_connections, is_last=True)
        yield "first request after a stop", _resumed(folder, bob, rooms)


def _say(person: Phone, room_id: str) -> None:
    path = f"rooms/{quote(room_id)}/send/m.room.message/{time.monotonic_ns()}"
    person.ask("PUT", path, {"msgtype": "m.text", "body": "hello"})


def _resumed(folder: Path, person: Phone, rooms: int) -> float:
    pos, client = person.pos, person.client

    def look() -> float:
        with started(folder) as app:
            person.client, person.pos, person.name = app.test_client(), None, "other"
            person.look(0)  # what each server does once is not measured
            person.pos, person.name = pos, "main"
            return person.look(rooms)

    taken = median(9, look)
    person.pos, person.client = pos, client
    return taken


@click.command(help=__doc__)
@click.option("--rooms", default=1000, type=click.IntRange(20))
def main(rooms: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, taken_ms in measure(Path(folder), rooms):
            click.echo(f"{name:45} {taken_ms:6.2f} ms")


if __name__ == "__main__":
    main()
