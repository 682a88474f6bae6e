"""Helpers for tests of rooms: check errors, and that they have changed nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sqlalchemy import select
from werkzeug.test import TestResponse

from homebody import models
from homebody.core.sync import state_sections
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.web import Application
from tests.conftest import Person

Json = dict[str, Any]
WHOLE_TABLES = {
    table.name: select(table)
    for table in models.all_tables().sorted_tables
    # a failed write may use up positions, and presence is written by a timer
    if table.name not in {"clock", "shown_presence"}
}


def refusal(answer: TestResponse) -> tuple[int, str]:
    """Return (status, errcode) of an error response, which must also have a message."""
    body = answer.get_json()
    assert isinstance(body["error"], str), body
    assert body["error"], body
    return answer.status_code, body["errcode"]


@contextmanager
def unchanged(app: Application) -> Iterator[None]:
    """Fail if the block has changed anything in the database."""
    before = everything(app)
    yield
    assert everything(app) == before


def everything(app: Application) -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    with app.homeserver.database.read() as tx:
        return {
            name: [tuple(row) for row in tx.sql.execute(whole_table)]
            for name, whole_table in WHOLE_TABLES.items()
        }


def state_of(person: Person, room_id: str) -> dict[tuple[str, str], Json]:
    """Return {(type, state_key): content} as visible to the person, oldest event first."""
    answer = person.get(f"rooms/{quote(room_id)}/state")
    assert answer.status_code == 200, answer.get_json()
    return {(event["type"], event["state_key"]): event["content"] for event in answer.get_json()}


def state_at(tx: Reader, room_id: str, position: int) -> dict[tuple[str, str], ClientEvent]:
    """Return {(type, state_key): event} of a room's state after a position."""
    events = state_sections.at(tx, room_id, position, None)
    return {(event.type, event.state_key or ""): event for event in events}


def membership(person: Person, room_id: str, user_id: str) -> Json:
    """Return the content of a user's member event as visible to the person."""
    answer = person.get(f"rooms/{quote(room_id)}/state/m.room.member/{user_id}")
    assert answer.status_code == 200, answer.get_json()
    content: Json = answer.get_json()
    return content


def ids(page: Json) -> list[str]:
    """Return the ids of the events in the chunk of a response, in order."""
    return [event["event_id"] for event in page["chunk"]]


def read(person: Person, room_id: str, event_id: str) -> None:
    """Send a read receipt of the person."""
    path = f"rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}"
    assert person.post(path).status_code == 200


def in_thread(person: Person, room_id: str, root: str) -> str:
    """Send a message in the thread of an event and return its event ID."""
    content: Json = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    return person.send(room_id, **content)


def act(person: Person, room_id: str, verb: str, **body: Any) -> TestResponse:
    """Send a POST below /rooms/{roomId}, such as `act(alice, room_id, "invite", user_id=…)`."""
    return person.post(f"rooms/{quote(room_id)}/{verb}", json=body)
