"""Setting and reading a room's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login
from tests.helpers.rooms import Json, act, refusal, state_of, unchanged

Room = Callable[..., str]
ALICE, BOB = "@alice:localhost", "@bob:localhost"


@pytest.mark.parametrize(
    ("event_type", "state_key"),
    [
        ("m.room.topic", ""),
        ("org.example.slashes", "a/b//c"),
        ("org.example/with/slashes", "x"),
        ("org.example.percent", "100%2F and %"),
        ("org.example.unicode", "größe 👍"),
        ("org.example.space", " "),
        ("org.example.query", "a?b#c"),
    ],
)
def test_what_is_set_is_read_whatever_its_key(
    login: Login, room: Room, event_type: str, state_key: str
) -> None:
    alice = login("alice")
    room_id = room(alice)
    path = f"rooms/{room_id}/state/{quote(event_type, safe='')}/{quote(state_key, safe='')}"

    answer = alice.put(path, json={"value": state_key})

    assert answer.status_code == 200
    assert alice.get(path).get_json() == {"value": state_key}
    assert state_of(alice, room_id)[event_type, state_key] == {"value": state_key}


def test_an_empty_key_needs_no_slash(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    assert alice.put(f"rooms/{room_id}/state/m.room.name", json={"name": "x"}).status_code == 200

    for path in ("m.room.name", "m.room.name/"):
        assert alice.get(f"rooms/{room_id}/state/{path}").get_json() == {"name": "x"}


def test_the_whole_event_can_be_asked_for(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice, name="x")
    set_ = alice.set_state(room_id, "m.room.name", {"name": "y"}).get_json()

    event = alice.get(f"rooms/{room_id}/state/m.room.name?format=event").get_json()

    assert event["event_id"] == set_["event_id"]
    assert (event["type"], event["state_key"], event["room_id"]) == ("m.room.name", "", room_id)
    assert (event["sender"], event["content"]) == (ALICE, {"name": "y"})
    assert event["unsigned"]["prev_content"] == {"name": "x"}
    content = alice.get(f"rooms/{room_id}/state/m.room.name?format=content").get_json()
    assert content == {"name": "y"}
    wrong = alice.get(f"rooms/{room_id}/state/m.room.name?format=xml")
    assert refusal(wrong) == (400, "M_INVALID_PARAM")


def test_setting_the_same_again_changes_nothing(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    first = alice.set_state(room_id, "m.room.name", {"name": "x"}).get_json()

    with unchanged(app):
        again = alice.set_state(room_id, "m.room.name", {"name": "x"}).get_json()

    assert again == first


def test_all_of_the_state_are_whole_events(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    events = alice.get(f"rooms/{room_id}/state").get_json()

    assert events[0]["type"] == "m.room.create"
    for event in events:
        assert {"event_id", "sender", "origin_server_ts", "unsigned", "content"} <= event.keys()
        assert event["room_id"] == room_id


def test_a_missing_entry_is_told_so(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    answers = [alice.get(f"rooms/{room_id}/state/{path}") for path in ("m.room.name", "x/y")]

    assert [refusal(answer) for answer in answers] == [(404, "M_NOT_FOUND")] * 2


def test_who_has_left_sees_the_state_of_then(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="then")
    act(bob, room_id, "leave")
    alice.set_state(room_id, "m.room.name", {"name": "now"})
    alice.set_state(room_id, "m.room.topic", {"topic": "news"})

    state = state_of(bob, room_id)

    assert state["m.room.name", ""] == {"name": "then"}
    assert state["m.room.member", BOB] == {"membership": "leave"}
    assert ("m.room.topic", "") not in state
    assert bob.get(f"rooms/{room_id}/state/m.room.name").get_json() == {"name": "then"}
    assert refusal(bob.get(f"rooms/{room_id}/state/m.room.topic")) == (404, "M_NOT_FOUND")


def test_who_is_invited_or_a_stranger_sees_nothing(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = alice.create_room(invite=[BOB], preset="public_chat")

    answers = [who.get(f"rooms/{room_id}/{path}") for who in (bob, carol) for path in PATHS]
    nowhere = alice.get("rooms/!nowhere:localhost/state")

    assert [refusal(answer) for answer in [*answers, nowhere]] == [(403, "M_FORBIDDEN")] * 5


PATHS = ("state", "state/m.room.create")


def test_a_world_readable_room_shows_its_state_to_all(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(name="open")
    content = {"history_visibility": "world_readable"}
    alice.set_state(room_id, "m.room.history_visibility", content)

    assert state_of(bob, room_id)["m.room.name", ""] == {"name": "open"}


@pytest.mark.parametrize(
    ("event_type", "state_key", "content", "expected"),
    [
        ("m.room.create", "", {"room_version": "1"}, (400, "M_BAD_JSON")),
        ("m.room.power_levels", "", {"users": {ALICE: "100"}}, (400, "M_BAD_JSON")),
        ("m.room.power_levels", "", {"users": [ALICE]}, (400, "M_BAD_JSON")),
        ("m.room.power_levels", "", {"users": {ALICE: 101}}, (403, "M_FORBIDDEN")),
        ("m.room.power_levels", "", {"users": {"alice": 50}}, (400, "M_BAD_JSON")),
        ("m.room.power_levels", "", {"events": {"x": None}}, (400, "M_BAD_JSON")),
        ("m.room.power_levels", "", {"ban": 1.5}, (400, "M_BAD_JSON")),
        ("m.room.member", ALICE, {}, (400, "M_BAD_JSON")),
        ("m.room.member", "", {"membership": "join"}, (400, "M_INVALID_PARAM")),
        ("org.example.x", BOB, {}, (403, "M_FORBIDDEN")),
        ("org.example.x", "k" * 256, {}, (413, "M_TOO_LARGE")),
        ("m.room.canonical_alias", "", {"alias": 5}, (400, "M_BAD_JSON")),
        ("m.room.canonical_alias", "", {"alt_aliases": "#a:localhost"}, (400, "M_BAD_JSON")),
        ("m.room.canonical_alias", "", {"alt_aliases": [5]}, (400, "M_INVALID_PARAM")),
        ("m.room.canonical_alias", "", {"alt_aliases": [{}]}, (400, "M_INVALID_PARAM")),
        ("m.room.canonical_alias", "", {"alias": "cats"}, (400, "M_INVALID_PARAM")),
        ("m.room.canonical_alias", "", {"alias": "#no:localhost"}, (400, "M_BAD_ALIAS")),
        ("m.room.canonical_alias", "", {"alt_aliases": ["#a:b.example"]}, (400, "M_BAD_ALIAS")),
        ("m.room.canonical_alias", "", {"alias": "#other:localhost"}, (400, "M_BAD_ALIAS")),
    ],
)
def test_state_that_the_room_can_not_have_is_refused(
    app: Application,
    login: Login,
    event_type: str,
    state_key: str,
    content: Json,
    expected: tuple[int, str],
) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    alice.create_room(room_alias_name="other")

    with unchanged(app):
        answer = alice.set_state(room_id, event_type, content, state_key)

    assert refusal(answer) == expected


def test_strangers_learn_nothing_of_a_rooms_aliases_by_setting_them(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(room_alias_name="here")
    assert alice.delete("directory/room/%23here:localhost").status_code == 200
    known, unknown = {"alias": "#here:localhost"}, {"alias": "#there:localhost"}

    answers = [
        bob.set_state(room_id, "m.room.canonical_alias", content)
        for content in (known, unknown, {"alias": 5})
    ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3


def test_members_without_power_set_nothing(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)

    with unchanged(app):
        answers = [
            bob.set_state(room_id, "m.room.name", {"name": "mine"}),
            bob.set_state(room_id, "m.room.power_levels", {"users": {BOB: 100}}),
        ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2


def test_a_ban_takes_effect_on_the_very_next_request(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    more: Json = {**levels, "users": {ALICE: 100, BOB: 50}}
    assert alice.set_state(room_id, "m.room.power_levels", more).status_code == 200
    assert bob.set_state(room_id, "m.room.name", {"name": "x"}).status_code == 200
    assert alice.set_state(room_id, "m.room.power_levels", levels).status_code == 200

    with unchanged(app):
        demoted = bob.set_state(room_id, "m.room.name", {"name": "y"})
    act(alice, room_id, "ban", user_id=BOB)
    with unchanged(app):
        banned = bob.put(f"rooms/{room_id}/send/m.room.message/t", json={})

    assert [refusal(answer) for answer in (demoted, banned)] == [(403, "M_FORBIDDEN")] * 2


def test_state_paths_take_no_post(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answer: Any = alice.post(f"rooms/{room_id}/state/m.room.name", json={"name": "x"})

    assert refusal(answer) == (405, "M_UNRECOGNIZED")
