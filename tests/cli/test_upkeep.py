"""The commands `homebody upkeep …`, `homebody version`, and those about files in quarantine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest
from click.testing import Result

from homebody.core import audit
from homebody.web import Application
from tests.conftest import Login, Person

Command = Callable[..., Result]
Printed = Callable[..., Any]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def test_upkeep_is_paused_and_resumed_beside_the_server(
    app: Application, printed: Printed, command: Command, alice: Person
) -> None:
    running = app.homeserver.upkeep

    before = printed("upkeep", "status"), running.is_paused
    paused = printed("upkeep", "pause"), running.is_paused
    status = command("upkeep", "status").stdout
    resumed = printed("upkeep", "resume"), running.is_paused

    assert before == resumed == ({"is_paused": False}, False)
    assert paused == ({"is_paused": True}, True)
    assert status == "Upkeep is paused\n"
    with app.homeserver.database.read() as tx:
        found = [(it["actor"], it["action"]) for it in audit.latest(tx, 2)]
    assert found == [(audit.COMMAND_LINE, "upkeep.resume"), (audit.COMMAND_LINE, "upkeep.pause")]


def test_the_version_is_printed(printed: Printed, command: Command) -> None:
    found = printed("version")

    assert found["homebody"] == metadata.version("homebody")
    assert found["sqlite"] == sqlite3.sqlite_version
    assert command("version").stdout.startswith(f"homebody {metadata.version('homebody')}\n")


def test_files_of_a_room_and_changes_of_the_quarantine_are_printed(
    printed: Printed, command: Command, alice: Person, room: Callable[..., str]
) -> None:
    room_id = room(alice)
    answer = alice.request("POST", "/_matrix/media/v3/upload", data=b"tea")
    uri = answer.get_json()["content_uri"]
    alice.send(room_id, "tea", msgtype="m.file", url=uri)

    files = printed("media", "in-room", room_id)
    command("media", "quarantine", uri)
    command("media", "unquarantine", uri)
    changes = printed("media", "quarantine-changes")
    none = printed("media", "quarantine-changes", "--since", str(changes["next_batch"]))

    assert files == {"room_id": room_id, "files": [uri]}
    assert command("media", "in-room", room_id).stdout == f"{uri}\n"
    assert [it["quarantined"] for it in changes["changes"]] == [True, False]
    assert none == {"changes": [], "next_batch": changes["next_batch"]}
    assert command("media", "quarantine-changes").stdout.splitlines() == [
        f"quarantined  {uri}",
        f"released  {uri}",
    ]
