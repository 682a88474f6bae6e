"""Simplified sliding sync in tests: asking, and taking answers apart."""

from __future__ import annotations

from typing import Any

from werkzeug.test import TestResponse

from tests.conftest import Person

Json = dict[str, Any]
PATH = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
STATE = [["m.room.create", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]


def request(person: Person, pos: str | None = None, timeout: int = 0, **body: Any) -> TestResponse:
    """The answer as it comes; without lists in the body, those of `window(9)`."""
    body.setdefault("lists", window(9))
    query = {"timeout": timeout} | ({"pos": pos} if pos else {})
    return person.post(PATH, query_string=query, json=body)


def ask(person: Person, pos: str | None = None, timeout: int = 0, **body: Any) -> Json:
    """The same, as it should be."""
    answer = request(person, pos, timeout, **body)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def window(last: int, limit: int = 5, **options: Any) -> Json:
    """One list, named "all", of the rooms 0 to `last`."""
    asked = {"ranges": [[0, last]], "timeline_limit": limit, "required_state": STATE}
    return {"all": asked | options}


def bodies(answer: Json, room_id: str) -> list[str]:
    """What was said in the room, as the answer shows it."""
    events = answer["rooms"][room_id]["timeline"]
    return [it["content"]["body"] for it in events if it["type"] == "m.room.message"]


def state(answer: Json, room_id: str) -> dict[tuple[str, str], Json]:
    """{(type, state key): content} of the required state that the answer shows."""
    events = answer["rooms"][room_id]["required_state"]
    found = {(it["type"], it["state_key"]): it["content"] for it in events}
    assert len(found) == len(events)
    return found


def members(answer: Json, room_id: str) -> set[str]:
    """Whose membership the answer shows."""
    return {key for kind, key in state(answer, room_id) if kind == "m.room.member"}
