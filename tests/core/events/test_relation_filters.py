"""Filters by the type of an event's relation (MSC3874)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.events import paging
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, ids, refusal

Room = Callable[..., str]
REL_TYPES = "org.matrix.msc3874.rel_types"
NOT_REL_TYPES = "org.matrix.msc3874.not_rel_types"
MESSAGES = {"types": ["m.room.message", "m.room.encrypted"]}


class Said:
    """A room with a message, a reply in its thread, a reference to it and an encrypted reply."""

    def __init__(self, person: Person, room: Room) -> None:
        self.person = person
        self.room_id = room(person)
        self.plain = person.send(self.room_id)
        self.thread = self._related("m.thread")
        self.reference = self._related("m.reference")
        path = f"rooms/{quote(self.room_id)}/send/m.room.encrypted/e"
        relation = {"rel_type": "m.thread", "event_id": self.plain}
        answer = person.put(path, json={"algorithm": "x", "m.relates_to": relation})
        self.encrypted = str(answer.get_json()["event_id"])

    def _related(self, rel_type: str) -> str:
        content: Json = {"m.relates_to": {"rel_type": rel_type, "event_id": self.plain}}
        return self.person.send(self.room_id, **content)

    def page(self, wanted: Json, **query: Any) -> list[str]:
        query |= {"dir": "f", "filter": json.dumps({**MESSAGES, **wanted})}
        path = f"rooms/{quote(self.room_id)}/messages"
        answer = self.person.get(path, query_string=query)
        assert answer.status_code == 200, answer.get_json()
        return ids(answer.get_json())

    def timeline(self, wanted: Json) -> list[str]:
        room = {"timeline": {**MESSAGES, **wanted}}
        sync = self.person.sync(filter=json.dumps({"room": room}))
        events = sync["rooms"]["join"][self.room_id]["timeline"]["events"]
        return [event["event_id"] for event in events]


@pytest.fixture
def said(login: Login, room: Room) -> Said:
    return Said(login("alice"), room)


def test_events_are_filtered_by_the_types_of_their_relations(said: Said) -> None:
    threads, plain = [said.thread, said.encrypted], said.plain
    expected: list[tuple[Json, list[str]]] = [
        ({REL_TYPES: ["m.thread"]}, threads),
        ({REL_TYPES: ["m.reference"]}, [said.reference]),
        ({REL_TYPES: ["m.reference", "m.thread"]}, [said.thread, said.reference, said.encrypted]),
        ({REL_TYPES: []}, []),
        ({NOT_REL_TYPES: ["m.thread"]}, [plain, said.reference]),
        ({NOT_REL_TYPES: ["m.reference"]}, [plain, *threads]),
        ({NOT_REL_TYPES: []}, [plain, said.thread, said.reference, said.encrypted]),
        ({REL_TYPES: ["m.thread", "m.reference"], NOT_REL_TYPES: ["m.thread"]}, [said.reference]),
        ({REL_TYPES: None}, [plain, said.thread, said.reference, said.encrypted]),
    ]

    pages = [said.page(wanted) for wanted, _ in expected]
    timelines = [said.timeline(wanted) for wanted, _ in expected]

    assert pages == timelines == [event_ids for _, event_ids in expected]


def test_the_stable_names_do_not_filter_yet(said: Said) -> None:
    assert len(said.page({"rel_types": ["m.thread"], "not_rel_types": ["m.thread"]})) == 4


def test_a_filter_by_relations_goes_with_others(said: Said) -> None:
    wanted = {NOT_REL_TYPES: ["m.reference"], "not_types": ["m.room.encrypted"]}

    assert said.page(wanted) == [said.plain, said.thread]
    assert said.page({**wanted, "contains_url": True}) == []
    assert said.timeline({**wanted, "contains_url": False}) == [said.plain, said.thread]


def test_a_redacted_event_has_no_relation_any_more(said: Said) -> None:
    path = f"rooms/{quote(said.room_id)}/redact/{quote(said.thread)}/r"

    assert said.person.put(path, json={}).status_code == 200

    assert said.page({NOT_REL_TYPES: ["m.thread"]}) == [said.plain, said.thread, said.reference]


def test_what_is_behind_a_long_thread_is_reached_by_tokens(
    monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setattr(paging, "SCANNED_ROWS", 10)
    monkeypatch.setattr(paging, "_BATCH", 5)
    relation: Json = {"m.relates_to": {"rel_type": "m.thread", "event_id": said.plain}}
    for _ in range(25):
        said.person.send(said.room_id, **relation)
    last = said.person.send(said.room_id)
    query = {
        "dir": "b",
        "limit": 2,
        "filter": json.dumps({**MESSAGES, NOT_REL_TYPES: ["m.thread"]}),
    }
    found: list[str] = []
    token, pages = None, 0

    while pages == 0 or token:
        asked = query | ({"from": token} if token else {})
        path = f"rooms/{quote(said.room_id)}/messages"
        page = said.person.get(path, query_string=asked).get_json()
        found, token, pages = found + ids(page), page.get("end"), pages + 1

    assert found == [last, said.reference, said.plain]
    assert pages > 2


@pytest.mark.parametrize("value", ["m.thread", [1], {"m.thread": True}], ids=repr)
@pytest.mark.parametrize("name", [REL_TYPES, NOT_REL_TYPES])
def test_a_malformed_filter_is_refused(said: Said, name: str, value: object) -> None:
    path = f"rooms/{quote(said.room_id)}/messages"

    answer = said.person.get(path, query_string={"filter": json.dumps({name: value})})

    assert refusal(answer)[0] == 400
