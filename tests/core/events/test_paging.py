"""Pages of events end at a bound of work, and say where to go on: wherever they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.events import paging, threads
from tests.conftest import Login, Person

Json = dict[str, Any]
Room = Callable[..., str]
Read = Callable[[Person, str, str, Json], Json]


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that reads six rows for a page, three at a time."""
    monkeypatch.setattr(paging, "SCANNED_ROWS", 6)
    monkeypatch.setattr(paging, "_BATCH", 3)
    monkeypatch.setattr(threads, "_BATCH", 3)


def reply(person: Person, room_id: str, root: str, number: int) -> str:
    """Reply in the thread of an event."""
    relation = {"rel_type": "m.thread", "event_id": root}
    content = {"msgtype": "m.text", "body": str(number), "m.relates_to": relation}
    path = f"rooms/{room_id}/send/m.room.message/reply{number}"
    return str(person.put(path, json=content).get_json()["event_id"])


def messages(person: Person, room_id: str, _root: str, query: Json) -> Json:
    page = person.get(f"rooms/{room_id}/messages", query_string={"dir": "b", **query})
    found: Json = page.get_json()
    return {"chunk": found["chunk"], "next_batch": found.get("end")}


def relations(person: Person, room_id: str, root: str, query: Json) -> Json:
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/relations/{quote(root)}"
    found: Json = person.get(path, query_string=query).get_json()
    return found


def all_below(person: Person, room_id: str, root: str, query: Json) -> Json:
    return relations(person, room_id, root, {"recurse": "true", **query})


def roots(person: Person, room_id: str, _root: str, query: Json) -> Json:
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/threads"
    found: Json = person.get(path, query_string=query).get_json()
    return found


@pytest.mark.parametrize("read", [messages, relations, all_below, roots])
def test_what_is_behind_many_hidden_events_is_reached_by_tokens(
    login: Login, room: Room, read: Read
) -> None:
    alice, mallory, bob = login("alice"), login("mallory"), login("bob")
    room_id = room(alice, mallory, bob)
    root = alice.send(room_id, "root")
    wanted = {reply(alice, room_id, root, 0), root}
    for number in range(1, 14):
        reply(mallory, room_id, root, number)
    path = f"user/{bob.user_id}/account_data/m.ignored_user_list"
    bob.put(path, json={"ignored_users": {mallory.user_id: {}}})

    first = read(bob, room_id, root, {"limit": 2})
    page, pages = first, 1
    while not page["chunk"]:
        page = read(bob, room_id, root, {"limit": 2, "from": page["next_batch"]})
        pages += 1

    assert (first["chunk"], pages > 2) == ([], True)
    assert {event["event_id"] for event in page["chunk"]} <= wanted
