"""A client of sliding sync goes on after a real server was stopped while the client waited."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from tests.helpers import server as real_server
from tests.helpers.live import Person

PATH = "/_matrix/client/v4/sync"


def ask(person: Person, pos: str | None, timeout: int = 0) -> Any:
    """Return a response about all rooms."""
    everything = {"timeline_limit": 5, "required_state": {"include": [{}]}}
    body = {"pos": pos, "timeout": timeout, "lists": {"all": everything}}
    return person.ask("POST", PATH, body)


def test_a_client_that_waits_when_the_server_stops_goes_on(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    room_id, other = alice.create_room(), alice.create_room()
    pos = ask(alice, None)["pos"]
    waiting, answers = alice.again(), []
    thread = threading.Thread(target=lambda: answers.append(ask(waiting, pos, 60_000)))
    thread.start()
    alice.send(other)
    thread.join(20)
    thread = threading.Thread(
        target=lambda: answers.append(ask(waiting, answers[0]["pos"], 60_000))
    )
    thread.start()
    time.sleep(0.5)

    running.stop()
    thread.join(20)
    alice.server = real_server.start(data_dir)
    alice.send(room_id, "good morning")
    found = ask(alice, answers[1]["pos"])
    alice.close()
    waiting.close()
    alice.server.stop()

    assert list(answers[0]["rooms"]) == [other]
    assert answers[1]["rooms"] == {}
    assert list(found["rooms"]) == [room_id]
    assert [it["content"]["body"] for it in found["rooms"][room_id]["timeline"]] == ["good morning"]
    assert "initial" not in found["rooms"][room_id]
