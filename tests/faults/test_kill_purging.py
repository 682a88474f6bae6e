"""A server that is killed while it deletes a room, or the history of one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from sqlalchemy import select

from homebody.core.events import search_index, state
from homebody.core.rooms import membership
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.models.events import StoredEvent
from homebody.storage.database import Database
from homebody.storage.expressions import batches
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import server as real_server
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
ADMIN = "/_synapse/admin"
MESSAGES = 3000
MEMBERS = 60
KILLED_AFTER_S = [0.0, 0.05, 0.1, 0.2, 0.3]
WAIT_SECONDS = 60


class Tool:
    """An administration tool that talks to a running server."""

    def __init__(self, running: RunningServer, admin: Person) -> None:
        self._url = running.url
        self._headers = {"Authorization": f"Bearer {admin.access_token}"}

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON of a successful response."""
        answer = requests.request(
            method, self._url + path, headers=self._headers, json=body, timeout=WAIT_SECONDS
        )
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def ended(self, path: str) -> Json:
        """Return the status of a task that has ended."""
        ends = {"complete", "failed"}
        wait_for(lambda: self.ask("GET", path)["status"] in ends, path, WAIT_SECONDS)
        return self.ask("GET", path)


def say(database: Database, room_id: str, sender: str, count: int) -> list[str]:
    """Send messages, and return their event IDs."""
    sent = []
    for some in batches(range(count), 100):
        with database.write() as tx:
            for number in some:
                content = {"msgtype": "m.text", "body": f"needle {number}"}
                sent.append(sending.send(tx, Draft(room_id, sender, "m.room.message", content)))
    search_index.catch_up(database)
    return sent


def killed_often(data_dir: Path) -> RunningServer:
    """Start the server, kill it after ever longer times, and let the last one run."""
    for seconds in KILLED_AFTER_S:
        running = real_server.start(data_dir)
        time.sleep(seconds)
        running.kill()
    return real_server.start(data_dir)


@pytest.mark.timeout(300)
def test_the_next_process_goes_on_with_a_purge(
    app: Application, make_app: MakeApp, login: Login, tmp_path: Path
) -> None:
    admin = login("owner")
    room_id = admin.create_room(name="Tea")
    sent = say(app.homeserver.database, room_id, admin.user_id, MESSAGES)
    app.homeserver.database.close()
    running = real_server.start(tmp_path)
    tool = Tool(running, admin)
    path = f"{ADMIN}/v1/purge_history/{quote(room_id)}/{quote(sent[-2])}"
    purge_id = tool.ask("POST", path, {"delete_local_events": True})["purge_id"]
    running.kill()

    running = killed_often(tmp_path)

    try:
        tool = Tool(running, admin)
        status = tool.ended(f"{ADMIN}/v1/purge_history_status/{purge_id}")
        page = tool.ask("GET", f"{ADMIN}/v1/rooms/{quote(room_id)}/messages?dir=b&limit=999")
        state_events = tool.ask("GET", f"{ADMIN}/v1/rooms/{quote(room_id)}/state")["state"]
    finally:
        running.kill()
    assert status == {"status": "complete"}
    assert [it["event_id"] for it in page["chunk"]] == sent[:-3:-1]
    assert "m.room.name" in {it["type"] for it in state_events}
    database = make_app().homeserver.database
    with database.read() as tx:
        events = select(StoredEvent.event_id).where(StoredEvent.room_id == room_id)
        stored = set(tx.sql.execute(events).scalars())
        indexed = {row[0] for row in tx.sql.raw.execute("SELECT rowid FROM search_index")}
        numbers = set(tx.sql.execute(select(StoredEvent.number)).scalars())
        (checked,) = tx.sql.raw.execute("PRAGMA integrity_check").fetchone()
    assert not stored & set(sent[:-2])
    assert indexed <= numbers
    assert checked == "ok"


@pytest.mark.timeout(300)
def test_the_next_process_goes_on_with_the_deletion_of_a_room(
    app: Application, make_app: MakeApp, login: Login, tmp_path: Path
) -> None:
    admin, alice = login("owner"), login("alice")
    room_id = alice.create_room(preset="public_chat", room_alias_name="tea")
    say(app.homeserver.database, room_id, alice.user_id, MESSAGES // 3)
    users = [login(f"user{number}").user_id for number in range(MEMBERS)]
    with app.homeserver.database.write() as tx:
        for user_id in users:
            membership.join(tx, room_id, user_id)
    app.homeserver.database.close()
    running = real_server.start(tmp_path)
    wanted = {"new_room_user_id": admin.user_id}
    delete_id = Tool(running, admin).ask("DELETE", f"{ADMIN}/v2/rooms/{quote(room_id)}", wanted)
    running.kill()

    running = killed_often(tmp_path)

    try:
        tool = Tool(running, admin)
        status = tool.ended(f"{ADMIN}/v2/rooms/delete_status/{delete_id['delete_id']}")
        rooms = tool.ask("GET", f"{ADMIN}/v1/rooms")
    finally:
        running.kill()
    done = status["shutdown_room"]
    assert status["status"] == "complete"
    assert done["kicked_users"] == sorted([alice.user_id, *users])
    assert done["local_aliases"] == ["#tea:localhost"]
    assert [it["room_id"] for it in rooms["rooms"]] == [done["new_room_id"]]
    database = make_app().homeserver.database
    with database.read() as tx:
        there = state.joined(tx, done["new_room_id"]).local
        left = select(StoredEvent.event_id).where(StoredEvent.room_id == room_id)
        assert tx.sql.execute(left).first() is None
    assert there == {admin.user_id, alice.user_id, *users}
