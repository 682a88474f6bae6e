"""Helpers for tests of the API of 2014: its paths and requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.conftest import Person

Json = dict[str, Any]
API = "/matrix/client/api/v1"
ALICE, BOB = "@alice:localhost", "@bob:localhost"
HELLO = {"msgtype": "m.text", "body": "hello"}


def in_room(room_id: str, rest: str) -> str:
    return f"{API}/rooms/{quote(room_id, safe='')}/{rest}"


def message(room_id: str, msg_id: str, sender: str = ALICE) -> str:
    return in_room(room_id, f"messages/{quote(sender, safe='')}/{msg_id}")


def member(room_id: str, user_id: str) -> str:
    return in_room(room_id, f"members/{quote(user_id, safe='')}/state")


def say(person: Person, room_id: str, text: str) -> None:
    """Send a message, with its text as its id."""
    path = message(room_id, quote(text, safe=""), person.user_id)
    answer = person.put(path, json={"msgtype": "m.text", "body": text})
    assert (answer.status_code, answer.get_json()) == (200, {})


def become(person: Person, room_id: str, user_id: str, membership: str) -> None:
    answer = person.put(member(room_id, user_id), json={"membership": membership})
    assert (answer.status_code, answer.get_json()) == (200, {})


def got(person: Person, path: str, **query: Any) -> Any:
    answer = person.get(path if path.startswith("/") else f"{API}/{path}", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    return answer.get_json()


def events(person: Person, start: str, **query: Any) -> Json:
    """Return the response of GET /events without waiting."""
    found: Json = got(person, "events", **{"from": start, "timeout": 0, **query})
    return found


def bodies(chunk: list[Json]) -> list[str]:
    return [event["content"]["body"] for event in chunk]
