"""A server that is killed before it knows the members of a room that a user has joined."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from homebody.web import Application
from tests.conftest import V3, Login
from tests.helpers import server as real_server
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
LARGE = 1500
KILLED_AFTER_S = [0.0, 0.3, 0.8, 1.2, 2.0]
"""After the request for the state: while it is checked, stored, and made the room's."""
WAIT_SECONDS = 60


class Client:
    """Alice's client of a running server."""

    def __init__(self, running: RunningServer, token: str) -> None:
        self._url = running.url + V3
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON of a successful response."""
        answer = requests.request(
            method, self._url + path, headers=self._headers, json=body, timeout=WAIT_SECONDS
        )
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def has_room(self, room_id: str) -> bool:
        """Return whether /sync shows the room with all members."""
        return room_id in self.ask("GET", "sync?timeout=0")["rooms"]["join"]

    def members(self, room_id: str) -> dict[str, str]:
        """Return {user_id: event_id} of all members."""
        chunk = self.ask("GET", f"rooms/{quote(room_id)}/members")["chunk"]
        assert len({it["state_key"] for it in chunk}) == len(chunk)
        return {it["state_key"]: it["event_id"] for it in chunk}


def start(remote: Remotes, data_dir: Path) -> RunningServer:
    running = real_server.start(data_dir, **remote.settings)
    remote.talk_to_running(running, data_dir, "localhost")
    return running


def members_of(room: RemoteRoom) -> dict[str, str]:
    return {key[1]: it.event_id for key, it in room.state.items() if key[0] == "m.room.member"}


@pytest.mark.timeout(300)
def test_the_next_process_learns_the_members(
    app: Application, remote: Remotes, login: Login, tmp_path: Path
) -> None:
    alice, b = login("alice"), remote("b.test")
    b.omits_members = True
    room = b.room()
    room.crowd(LARGE)
    room.message("the last before the join")
    app.homeserver.database.close()
    b.hang("/state/")
    running = start(remote, tmp_path)
    client = Client(running, alice.access_token)
    client.ask("POST", f"join/{quote(room.id)}?via=b.test", {})
    b.wait_until(lambda: b.received("/state/"))
    message = room.message("meanwhile", sender="user7")
    assert b.send(message) == {message.event_id: {}}
    assert not client.has_room(room.id)
    running.kill()
    b.recover()

    for seconds in KILLED_AFTER_S:
        running = kill_after(remote, b, tmp_path, seconds)

    running = start(remote, tmp_path)
    client = Client(running, alice.access_token)
    try:
        wait_for(lambda: client.has_room(room.id), "the room", WAIT_SECONDS)
        assert client.members(room.id) == members_of(room)
        page = client.ask("GET", f"rooms/{quote(room.id)}/messages?dir=b&limit=1")["chunk"]
        assert [it["content"].get("body") for it in page] == ["meanwhile"]
    finally:
        running.kill()


def kill_after(remote: Remotes, b: Remote, data_dir: Path, seconds: float) -> RunningServer:
    """Start the server and kill it a time after it has asked for the state, if it does."""
    asked = len(b.received("/state/"))
    running = start(remote, data_dir)
    until = time.monotonic() + 5
    while len(b.received("/state/")) == asked and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(seconds)
    running.kill()
    return running
