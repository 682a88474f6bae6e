"""The commands that print events and spaces: what they print is what the admin API answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import Result

from tests.conftest import Login, Person

ADMIN = "/_synapse/admin/v1"
Command = Callable[..., Result]
Printed = Callable[..., Any]
MakeRoom = Callable[..., str]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def say(person: Person, room_id: str, *texts: str) -> list[str]:
    """Send messages, and return their event IDs."""
    return [person.send(room_id, text) for text in texts]


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [it["event_id"] for it in events]


def test_the_state_of_a_room_is_that_of_the_api(
    printed: Printed, command: Command, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice, name="Tea", room_alias_name="tea")
    by_api = alice.get(f"{ADMIN}/rooms/{quote(room_id)}/state").get_json()["state"]

    whole = printed("rooms", "state", "#tea:localhost")
    (name,) = printed("rooms", "state", room_id, "--type", "m.room.name")

    assert ids(whole) == ids(by_api)
    assert name["content"] == {"name": "Tea"}
    text = command("rooms", "state", room_id, "--type", "m.room.member").stdout
    assert f"m.room.member {alice.user_id}" in text
    assert text.count("\n") == 1


def test_the_messages_of_a_room_are_printed_by_pages(
    printed: Printed, command: Command, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    first, second, third = say(alice, room_id, "one", "two", "three")

    page = printed("rooms", "messages", room_id, "--limit", "2", "--type", "m.room.message")
    rest = printed(
        *("rooms", "messages", room_id, "--from", page["end"], "--type", "m.room.message")
    )
    oldest = printed("rooms", "messages", room_id, "--oldest-first", "--limit", "1")

    assert ids(page["chunk"]) == [third, second]
    assert ids(rest["chunk"]) == [first]
    assert rest["end"] is None
    assert oldest["chunk"][0]["type"] == "m.room.create"
    assert printed("rooms", "messages", room_id, "--sender", "@b:localhost")["chunk"] == []
    text = command("rooms", "messages", room_id, "--limit", "1").stdout
    assert '"body":"three"' in text
    assert f"More: --from {printed('rooms', 'messages', room_id, '--limit', '1')['end']}" in text


def test_an_event_is_printed_with_those_around_it(
    printed: Printed, command: Command, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    first, second, third = say(alice, room_id, "one", "two", "three")

    alone = printed("rooms", "event", second)
    around = printed("rooms", "event", second, "--context", "2")

    assert alone["event"]["content"]["body"] == "two"
    assert (ids(around["events_before"]), ids(around["events_after"])) == ([first], [third])
    assert "m.room.create" in {it["type"] for it in around["state"]}
    lines = command("rooms", "event", second, "--context", "2").stdout.splitlines()
    assert [line[:2] for line in lines] == ["  ", "> ", "  "]
    assert json.loads(command("rooms", "event", second).stdout)["event_id"] == second


def test_the_event_at_a_time_is_found(printed: Printed, alice: Person, room: MakeRoom) -> None:
    room_id = room(alice)
    (last,) = say(alice, room_id, "one")

    before = printed("rooms", "event-at", room_id, "1 ms", "--before")
    since = printed("rooms", "event-at", room_id, "1 d")

    assert before["event_id"] == last
    assert printed("rooms", "event", since["event_id"])["event"]["type"] == "m.room.create"


def test_the_rooms_of_a_space_are_printed_as_a_tree(
    printed: Printed, command: Command, alice: Person, room: MakeRoom
) -> None:
    inner, leaf = room(alice, creation_content={"type": "m.space"}), room(alice, name="Leaf")
    space = room(alice, creation_content={"type": "m.space"}, name="Space")
    for parent, child in ((space, inner), (inner, leaf)):
        answer = alice.set_state(parent, "m.space.child", {"via": ["localhost"]}, child)
        assert answer.status_code == 200

    found = printed("rooms", "hierarchy", space)
    flat = printed("rooms", "hierarchy", space, "--max-depth", "1")

    by_api = alice.get(f"{ADMIN}/rooms/{quote(space)}/hierarchy").get_json()["rooms"]
    assert found["rooms"] == by_api
    assert [it["room_id"] for it in flat["rooms"]] == [space, inner]
    lines = command("rooms", "hierarchy", space).stdout.splitlines()
    assert [len(it) - len(it.lstrip()) for it in lines] == [0, 2, 4]
    assert f"{leaf}  Leaf  1 member" in lines[2]


@pytest.mark.parametrize(
    ("words", "errcode"),
    [
        (("state", "!no:localhost"), "M_NOT_FOUND"),
        (("hierarchy", "!no:localhost"), "M_NOT_FOUND"),
        (("event", "$no"), "M_NOT_FOUND"),
        (("event-at", "!no:localhost", "1 d"), "M_NOT_FOUND"),
        (("messages", "!no:localhost", "--from", "x"), "M_INVALID_PARAM"),
    ],
)
def test_what_does_not_exist_is_an_error(
    command: Command, alice: Person, words: tuple[str, ...], errcode: str
) -> None:
    result = command("rooms", *words, "--json")

    assert result.exit_code == 1
    assert json.loads(result.stderr)["errcode"] == errcode


def test_a_time_needs_a_unit(command: Command, alice: Person, room: MakeRoom) -> None:
    result = command("rooms", "event-at", room(alice), "7")

    assert result.exit_code == 2
    assert 'TIME needs a unit, such as "7 d"' in result.stderr
