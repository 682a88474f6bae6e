"""Helpers for tests of simplified sliding sync: send requests and read responses."""

from __future__ import annotations

from typing import Any

from werkzeug.test import TestResponse

from tests.conftest import Person

Json = dict[str, Any]
PATH = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
STATE = [["m.room.create", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]


def request(person: Person, pos: str | None = None, timeout: int = 0, **body: Any) -> TestResponse:
    """Return the response; `lists` defaults to `window(9)`."""
    body.setdefault("lists", window(9))
    query = {"timeout": timeout} | ({"pos": pos} if pos else {})
    return person.post(PATH, query_string=query, json=body)


def ask(person: Person, pos: str | None = None, timeout: int = 0, **body: Any) -> Json:
    """Return the JSON of a successful response."""
    answer = request(person, pos, timeout, **body)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def window(last: int, limit: int = 5, **options: Any) -> Json:
    """Return a list named "all" of the rooms 0 to `last`."""
    asked = {"ranges": [[0, last]], "timeline_limit": limit, "required_state": STATE}
    return {"all": asked | options}


def bodies(answer: Json, room_id: str) -> list[str]:
    """Return the bodies of the messages in a room's timeline."""
    events = answer["rooms"][room_id]["timeline"]
    return [it["content"]["body"] for it in events if it["type"] == "m.room.message"]


def state(answer: Json, room_id: str) -> dict[tuple[str, str], Json]:
    """Return {(type, state key): content} of a room's required state."""
    events = answer["rooms"][room_id]["required_state"]
    found = {(it["type"], it["state_key"]): it["content"] for it in events}
    assert len(found) == len(events)
    return found


def members(answer: Json, room_id: str) -> set[str]:
    """Return the users whose member events are in a room's required state."""
    return {key for kind, key in state(answer, room_id) if kind == "m.room.member"}
