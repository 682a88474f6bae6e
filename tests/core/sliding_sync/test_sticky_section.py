"""The extension of sliding sync for sticky events."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from homebody.core.timeline import sticky_events
from tests.conftest import Login, Person
from tests.helpers.rooms import act, refusal
from tests.helpers.sliding import Json, ask, request, window

Room = Callable[..., str]
NAME = "org.matrix.msc4354.sticky_events"
MEMBER = "org.matrix.msc4143.rtc.member"


def stick(person: Person, room_id: str, txn_id: str) -> str:
    path = f"rooms/{quote(room_id)}/send/{MEMBER}/{txn_id}"
    parameter = {"org.matrix.msc4354.sticky_duration_ms": 600_000}
    return str(person.put(path, json={}, query_string=parameter).get_json()["event_id"])


def asked(person: Person, pos: str | None = None, shown: int = 1, **one: object) -> Json:
    extensions = {NAME: {"enabled": True, **one}}
    return ask(person, pos, lists=window(9, shown), extensions=extensions)


def ids(answer: Json, room_id: str) -> list[str]:
    rooms = answer["extensions"].get(NAME, {}).get("rooms", {})
    return [it["event_id"] for it in rooms.get(room_id, {}).get("events", ())]


def test_a_client_gets_all_at_first_and_then_new_ones_once(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    some = [stick(alice, room_id, "t1"), stick(alice, room_id, "t2")]
    alice.send(room_id)

    first = asked(bob)
    since = first["extensions"][NAME]["next_batch"]
    nothing = asked(bob, first["pos"], since=since)
    new = stick(alice, room_id, "t3")
    for _ in range(3):
        alice.send(room_id)
    second = asked(bob, nothing["pos"], since=since)

    assert ids(first, room_id) == some
    event = first["extensions"][NAME]["rooms"][room_id]["events"][0]
    assert event["unsigned"]["msc4354_sticky_duration_ttl_ms"] > 0
    assert NAME not in nothing["extensions"]
    assert ids(second, room_id) == [new]


def test_what_is_in_the_timeline_is_not_in_the_extension(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    stick(alice, room_id, "t1")
    first = asked(bob, shown=5)
    stick(alice, room_id, "t2")

    second = asked(bob, first["pos"], 5, since=first["extensions"][NAME]["next_batch"])

    assert ids(first, room_id) == []
    assert ids(second, room_id) == []


def test_the_rest_comes_with_the_next_request(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    some = [stick(alice, room_id, f"t{number}") for number in range(5)]
    alice.send(room_id)

    found: list[str] = []
    pos = since = None
    for _ in range(3):
        answer = asked(bob, pos, limit=2, since=since)
        found += ids(answer, room_id)
        pos, since = answer["pos"], answer["extensions"][NAME]["next_batch"]

    assert found == some


def test_a_client_cannot_have_very_many_at_once(
    monkeypatch: pytest.MonkeyPatch, login: Login, room: Room
) -> None:
    monkeypatch.setattr(sticky_events, "MAX_AT_ONCE", 2)
    alice = login("alice")
    room_id = room(alice)
    some = [stick(alice, room_id, f"t{number}") for number in range(3)]
    alice.send(room_id)

    answer = asked(alice, limit=1_000_000)

    assert ids(answer, room_id) == some[:2]


def test_a_room_that_is_joined_later_comes_with_all_of_them(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    other = room(bob)
    event_id = stick(alice, room_id, "t1")
    mine = stick(bob, other, "t1")
    bob.send(other)
    alice.send(room_id)
    first = asked(bob)
    act(bob, room_id, "join")
    since = first["extensions"][NAME]["next_batch"]

    second = asked(bob, first["pos"], since=since)

    assert ids(first, other) == [mine]
    assert ids(second, room_id) == [event_id]
    assert ids(second, other) == []


def test_without_the_extension_nothing_is_sent_and_a_bad_token_is_refused(
    login: Login, room: Room
) -> None:
    alice = login("alice")
    stick(alice, room(alice), "t1")

    plain = ask(alice, lists=window(9, 1))
    bad = [
        request(alice, extensions={NAME: {"enabled": True, **it}})
        for it in ({"since": "x"}, {"since": "s999999999999999"}, {"limit": 0}, {"limit": "x"})
    ]

    assert NAME not in plain["extensions"]
    assert {refusal(it)[0] for it in bad} == {400}
