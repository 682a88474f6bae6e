"""SIGKILL under load: every acknowledged event is there afterwards, and there once."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tests import server
from tests.server import RunningServer

ROUNDS = 10
SENDERS = 4
V3 = "/_matrix/client/v3"


def request(
    running: RunningServer, method: str, path: str, token: str = "", body: Any = None
) -> Any:
    """The JSON of an answer; OSError or HTTPException when the server is gone."""
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, V3 + path, json.dumps(body or {}), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return found
    finally:
        connection.close()


class Sender(threading.Thread):
    """Sends message after message until the server dies, and then tries the last one again."""

    def __init__(self, running: RunningServer, token: str, room_id: str, name: str) -> None:
        super().__init__(daemon=True)
        self.running = running
        self.token = token
        self.path = f"/rooms/{quote(room_id)}/send/m.room.message/"
        self.name = name
        self.acknowledged: dict[str, str] = {}
        """{transaction id: event id}"""
        self.in_doubt = ""

    def run(self) -> None:
        for number in range(100_000):
            transaction = f"{self.name}-{number}"
            try:
                self.send(self.running, transaction)
            except (OSError, http.client.HTTPException, ValueError):
                self.in_doubt = transaction
                return

    def send(self, running: RunningServer, transaction: str) -> None:
        body = {"msgtype": "m.text", "body": transaction}
        answer = request(running, "PUT", self.path + transaction, self.token, body)
        self.acknowledged[transaction] = answer["event_id"]


def history(running: RunningServer, token: str, room_id: str) -> list[tuple[str, str]]:
    """(event id, body) of every message in the room."""
    found: list[tuple[str, str]] = []
    start = ""
    while True:
        path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=500{start}"
        page = request(running, "GET", path, token)
        found += [
            (event["event_id"], event["content"]["body"])
            for event in page["chunk"]
            if event["type"] == "m.room.message"
        ]
        if "end" not in page:
            return found
        start = f"&from={page['end']}"


def test_no_acknowledged_event_is_lost_or_doubled_by_ten_kills(tmp_path: Path) -> None:
    running = server.start(tmp_path)
    account = request(
        running,
        "POST",
        "/register",
        body={"username": "alice", "password": "x" * 12, "auth": {"type": "m.login.dummy"}},
    )
    token = account["access_token"]
    room_id = request(running, "POST", "/createRoom", token)["room_id"]
    acknowledged: dict[str, str] = {}

    for number in range(ROUNDS):
        senders = [
            Sender(running, token, room_id, f"round{number}-{sender}") for sender in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - any moment will do
        running.kill()
        for sender in senders:
            sender.join(20)
        running = server.start(tmp_path)
        for sender in senders:
            assert sender.in_doubt
            sender.send(running, sender.in_doubt)  # as a client does that got no answer
            acknowledged |= sender.acknowledged

    messages = history(running, token, room_id)
    running.stop()

    assert len(acknowledged) > ROUNDS * SENDERS
    assert sorted(messages) == sorted((event, body) for body, event in acknowledged.items())
