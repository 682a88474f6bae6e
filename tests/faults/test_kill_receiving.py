"""A server that is killed while others send it events: what it acknowledged is there, once."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from homebody.web import Application
from tests.conftest import V3, Login
from tests.helpers import server as real_server
from tests.helpers.remote import Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

ROUNDS = 4
SECONDS_ALIVE = (0.05, 0.8)
PDUS = 5


def bodies(running: RunningServer, room_id: str, token: str) -> list[str]:
    """The texts in the room, oldest first."""
    found: list[str] = []
    url = f"{running.url}{V3}rooms/{quote(room_id)}/messages"
    query = {"dir": "f", "limit": "500"}
    while True:
        page = requests.get(
            url, params=query, headers={"Authorization": f"Bearer {token}"}, timeout=20
        ).json()
        found += [it["content"]["body"] for it in page["chunk"] if it["type"] == "m.room.message"]
        if "end" not in page or not page["chunk"]:
            return found
        query["from"] = page["end"]


@pytest.mark.timeout(180)
def test_acknowledged_events_are_there_once_and_in_order(
    app: Application, remote: Remotes, login: Login, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    alice, b = login("alice"), remote("b.test")
    room_id = alice.create_room(preset="public_chat")
    app.homeserver.database.close()
    room: RemoteRoom | None = None
    acknowledged: list[str] = []
    number = 0
    for _ in range(ROUNDS):
        running = real_server.start(tmp_path, **remote.settings)
        remote.talk_to_running(running, tmp_path, "localhost")
        if room is None:
            room = b.join(room_id)
        wait = chance.uniform(*SECONDS_ALIVE)
        killer = threading.Timer(wait, running.kill)
        killer.start()
        try:
            while killer.is_alive():
                texts = [f"{number + it}" for it in range(PDUS)]
                events = [room.message(text) for text in texts]
                number += PDUS
                outcome = b.send(*events)
                assert outcome == {it.event_id: {} for it in events}
                acknowledged += texts
        except OSError:  # killed in the middle: the remote sends them again, with the next ones
            killer.join()
            running = real_server.start(tmp_path, **remote.settings)
            remote.talk_to_running(running, tmp_path, "localhost")
            assert b.send(*events) == {it.event_id: {} for it in events}
            acknowledged += texts
            running.kill()
        killer.join()
    running = real_server.start(tmp_path, **remote.settings)
    try:
        there = bodies(running, room_id, alice.access_token)
    finally:
        running.kill()

    assert len(acknowledged) > ROUNDS * PDUS
    assert there == acknowledged


@pytest.mark.timeout(120)
def test_events_that_waited_for_others_are_taken_in_after_a_kill(
    app: Application, remote: Remotes, login: Login, tmp_path: Path
) -> None:
    alice, b = login("alice"), remote("b.test")
    room_id = alice.create_room(preset="public_chat")
    app.homeserver.database.close()
    running = real_server.start(tmp_path, **remote.settings)
    remote.talk_to_running(running, tmp_path, "localhost")
    room = b.join(room_id)
    missing = room.message("missing")
    late = room.message("late")
    b.hang("/get_missing_events/")
    b.hang("/event/")
    b.hang("/state_ids/")

    assert b.send(late) == {late.event_id: {}}
    running.kill()
    b.recover()
    running = real_server.start(tmp_path, **remote.settings)
    remote.talk_to_running(running, tmp_path, "localhost")

    try:
        wait_for(lambda: "late" in bodies(running, room_id, alice.access_token), "the late event")
        there = bodies(running, room_id, alice.access_token)
    finally:
        running.kill()
    assert there == ["missing", "late"]
    assert missing.event_id != late.event_id
