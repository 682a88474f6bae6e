"""Profiles: fields, their limits, and name and avatar in the user's rooms."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core.profiles import profiles
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.rooms import refusal

Rooms = Callable[..., str]
ALICE = "profile/@alice:localhost"
AVATAR = "mxc://localhost/picture"


def member(person: Person, room_id: str, user_id: str = "@alice:localhost") -> dict[str, Any]:
    path = f"rooms/{quote(room_id)}/state/m.room.member/{user_id}"
    content: dict[str, Any] = person.get(path).get_json()
    return content


def member_event_id(person: Person, room_id: str) -> str:
    path = f"rooms/{quote(room_id)}/state/m.room.member/{person.user_id}?format=event"
    return str(person.get(path).get_json()["event_id"])


def test_everybody_may_read_what_a_user_has_set(login: Login, client: FlaskClient) -> None:
    alice = login("alice")
    zone = {"m.tz": "Europe/London"}
    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})
    alice.put(f"{ALICE}/avatar_url", json={"avatar_url": AVATAR})
    alice.put(f"{ALICE}/m.tz", json=zone)
    alice.put(f"{ALICE}/org.example.pets", json={"org.example.pets": [{"cat": 1.5}, None]})

    whole = client.get(f"/_matrix/client/v3/{ALICE}")
    one = client.get(f"/_matrix/client/r0/{ALICE}/m.tz")

    assert whole.get_json() == {
        "displayname": "Alice",
        "avatar_url": AVATAR,
        "org.example.pets": [{"cat": 1.5}, None],
        **zone,
    }
    assert (one.status_code, one.get_json()) == (200, zone)


def test_a_new_user_is_called_by_the_localpart_and_nothing_else(login: Login) -> None:
    alice = login("alice")

    assert alice.get(ALICE).get_json() == {"displayname": "alice"}
    assert refusal(alice.get(f"{ALICE}/avatar_url")) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("user_id", ["@nobody:localhost", "@alice:elsewhere.example", "alice", "@"])
def test_an_unknown_user_has_no_profile(login: Login, user_id: str) -> None:
    alice = login("alice")

    for path in (f"profile/{user_id}", f"profile/{user_id}/displayname"):
        assert refusal(alice.get(path)) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("url", ["https://example.org/a.png", "http://localhost/a", "picture"])
def test_an_avatar_need_not_be_an_mxc_uri(login: Login, room: Rooms, url: str) -> None:
    alice = login("alice")
    room_id = room(alice)

    answer = alice.put(f"{ALICE}/avatar_url", json={"avatar_url": url})

    assert answer.status_code == 200
    assert alice.get(f"{ALICE}/avatar_url").get_json() == {"avatar_url": url}
    assert member(alice, room_id)["avatar_url"] == url


def test_a_closed_account_has_no_profile(login: Login, client: FlaskClient) -> None:
    alice = login("alice")
    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})
    auth = {"type": "m.login.password", "user": "alice", "password": PASSWORD}

    alice.post("account/deactivate", json={"auth": auth})

    assert refusal(client.get(f"/_matrix/client/v3/{ALICE}")) == (404, "M_NOT_FOUND")


def test_nobody_changes_the_profile_of_another_user(login: Login, client: FlaskClient) -> None:
    login("alice")
    bob = login("bob")
    path = f"{ALICE}/displayname"

    assert refusal(bob.put(path, json={"displayname": "Bob"})) == (403, "M_FORBIDDEN")
    assert refusal(bob.delete(path)) == (403, "M_FORBIDDEN")
    stranger = client.put(f"/_matrix/client/v3/{path}", json={"displayname": "Bob"})
    assert refusal(stranger) == (401, "M_MISSING_TOKEN")
    assert bob.get(ALICE).get_json() == {"displayname": "alice"}


@pytest.mark.parametrize(
    ("name", "body", "errcode"),
    [
        ("displayname", {}, "M_MISSING_PARAM"),
        ("displayname", {"avatar_url": AVATAR}, "M_MISSING_PARAM"),
        ("displayname", {"displayname": None}, "M_BAD_JSON"),
        ("displayname", {"displayname": 17}, "M_BAD_JSON"),
        ("displayname", {"displayname": "a" * 257}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": {"url": AVATAR}}, "M_BAD_JSON"),
        ("avatar_url", {"avatar_url": f"mxc://localhost/{'a' * 1000}"}, "M_INVALID_PARAM"),
        ("m.tz", {"m.tz": ["Europe/London"]}, "M_BAD_JSON"),
        ("Colour", {"Colour": "blue"}, "M_INVALID_PARAM"),
        ("org.exämple", {"org.exämple": "blue"}, "M_INVALID_PARAM"),
        ("org/example", {"org/example": "blue"}, "M_INVALID_PARAM"),
        ("o" * 256, {"o" * 256: "blue"}, "M_KEY_TOO_LARGE"),
        ("org.example.big", {"org.example.big": "x" * 65_536}, "M_PROFILE_TOO_LARGE"),
    ],
)
def test_a_field_that_cannot_be_kept_is_refused(
    login: Login, name: str, body: dict[str, Any], errcode: str
) -> None:
    alice = login("alice")

    answer = alice.put(f"{ALICE}/{quote(name, safe='')}", json=body)

    assert refusal(answer) == (400, errcode)
    assert alice.get(ALICE).get_json() == {"displayname": "alice"}


def test_all_fields_together_stay_below_64_kib(login: Login) -> None:
    alice = login("alice")
    alice.delete(f"{ALICE}/displayname")
    # {"org.example.a":"…"} with 21 bytes besides the text
    fits = "x" * (65_536 - len('{"org.example.a":""}'))
    alice.put(f"{ALICE}/org.example.a", json={"org.example.a": fits})

    kept = alice.get(f"{ALICE}/org.example.a")
    one_more = alice.put(f"{ALICE}/displayname", json={"displayname": "A"})
    replaced = alice.put(f"{ALICE}/org.example.a", json={"org.example.a": "small"})

    assert kept.get_json() == {"org.example.a": fits}
    assert refusal(one_more) == (400, "M_PROFILE_TOO_LARGE")
    assert replaced.status_code == 200


@pytest.mark.parametrize("name", ["displayname", "org.example.colour"])
def test_a_deleted_field_is_gone_and_may_be_deleted_twice(login: Login, name: str) -> None:
    alice = login("alice")
    alice.put(f"{ALICE}/{name}", json={name: "blue"})

    answers = [alice.delete(f"{ALICE}/{name}") for _ in range(2)]

    assert [(answer.status_code, answer.get_json()) for answer in answers] == [(200, {})] * 2
    assert refusal(alice.get(f"{ALICE}/{name}")) == (404, "M_NOT_FOUND")
    assert refusal(alice.delete(f"{ALICE}/Not-A-Name")) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("name", ["displayname", "avatar_url"])
def test_an_empty_name_or_avatar_is_how_older_clients_delete_it(login: Login, name: str) -> None:
    alice = login("alice")
    alice.put(f"{ALICE}/{name}", json={name: AVATAR})

    answer = alice.put(f"{ALICE}/{name}", json={name: ""})

    assert answer.status_code == 200
    assert name not in alice.get(ALICE).get_json()


def test_name_and_avatar_reach_all_rooms_before_the_answer(login: Login, room: Rooms) -> None:
    alice, bob = login("alice"), login("bob")
    rooms = [room(bob, alice) for _ in range(3)]
    left = room(bob, alice)
    alice.post(f"rooms/{quote(left)}/leave")

    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})
    alice.put(f"{ALICE}/avatar_url", json={"avatar_url": AVATAR})

    for room_id in rooms:
        assert member(bob, room_id) == {
            "membership": "join",
            "displayname": "Alice",
            "avatar_url": AVATAR,
        }
    assert "displayname" not in member(bob, left)


def test_deleting_a_name_takes_it_out_of_the_rooms(login: Login, room: Rooms) -> None:
    alice = login("alice")
    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})
    room_id = room(alice)
    before = member(alice, room_id)

    alice.delete(f"{ALICE}/displayname")

    assert before["displayname"] == "Alice"
    assert member(alice, room_id) == {"membership": "join"}


def test_the_rest_of_the_member_event_stays(login: Login, room: Rooms) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.set_state(
        room_id,
        "m.room.member",
        {"membership": "join", "displayname": "Al", "org.example.mood": "sunny"},
        alice.user_id,
    )

    alice.put(f"{ALICE}/avatar_url", json={"avatar_url": AVATAR})

    assert member(alice, room_id) == {
        "membership": "join",
        "displayname": "Al",
        "org.example.mood": "sunny",
        "avatar_url": AVATAR,
    }


def test_what_does_not_change_sends_no_event(login: Login, room: Rooms) -> None:
    alice = login("alice")
    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})
    room_id = room(alice)
    before = member_event_id(alice, room_id)

    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})
    alice.put(f"{ALICE}/org.example.colour", json={"org.example.colour": "blue"})
    alice.delete(f"{ALICE}/avatar_url")

    assert member_event_id(alice, room_id) == before


def test_a_room_that_refuses_does_not_stop_the_others(login: Login, room: Rooms) -> None:
    alice = login("alice")
    full, other = room(alice), room(alice)
    nearly_an_event = {"membership": "join", "org.example.long": "x" * 64_500}
    alice.set_state(full, "m.room.member", nearly_an_event, alice.user_id)
    before = member_event_id(alice, full)

    answer = alice.put(f"{ALICE}/displayname", json={"displayname": "🍋" * 256})

    assert answer.status_code == 200
    assert member_event_id(alice, full) == before
    assert member(alice, other)["displayname"] == "🍋" * 256


def test_many_rooms_are_told_in_several_writes(app: Application, login: Login, room: Rooms) -> None:
    alice = login("alice")
    rooms = [room(alice) for _ in range(25)]
    after_each_commit: list[int] = []

    def look(_writes: int, _seconds: float) -> None:
        with app.homeserver.database.read() as tx:
            count = "SELECT count(*) FROM events WHERE pdu LIKE '%Queen of Hearts%'"
            after_each_commit.append(tx.sql.raw.execute(count).fetchone()[0])

    app.homeserver.database.writer.committed = look

    alice.put(f"{ALICE}/displayname", json={"displayname": "Queen of Hearts"})

    told = [later - before for before, later in itertools.pairwise([0, *after_each_commit])]
    assert sum(told) == 25
    assert max(told) <= 10
    assert {member(alice, room_id)["displayname"] for room_id in rooms} == {"Queen of Hearts"}


def test_of_several_changes_at_once_all_rooms_get_the_same(
    app: Application, login: Login, room: Rooms
) -> None:
    alice = login("alice")
    rooms = [room(alice) for _ in range(30)]
    names = ["White Rabbit", "March Hare", "Mad Hatter"]

    def choose(name: str) -> int:
        device = Person(app.test_client(), alice.user_id, alice.access_token, alice.device_id)
        return device.put(f"{ALICE}/displayname", json={"displayname": name}).status_code

    with ThreadPoolExecutor() as pool:
        statuses = set(pool.map(choose, names))

    assert statuses == {200}

    chosen = alice.get(f"{ALICE}/displayname").get_json()["displayname"]
    assert {member(alice, room_id)["displayname"] for room_id in rooms} == {chosen}


def test_a_change_that_was_interrupted_is_finished_when_it_is_repeated(
    app: Application, login: Login, room: Rooms
) -> None:
    alice = login("alice")
    rooms = [room(alice) for _ in range(3)]
    with app.homeserver.database.write() as tx:  # as far as a server comes that ends then
        profiles.put(tx, alice.user_id, "displayname", "Queen of Hearts")

    alice.put(f"{ALICE}/displayname", json={"displayname": "Queen of Hearts"})

    assert {member(alice, room_id)["displayname"] for room_id in rooms} == {"Queen of Hearts"}


def test_who_joins_later_brings_the_profile_along(login: Login, room: Rooms) -> None:
    alice, bob = login("alice"), login("bob")
    alice.put(f"{ALICE}/displayname", json={"displayname": "Alice"})

    room_id = room(bob, alice)

    assert member(bob, room_id) == {"membership": "join", "displayname": "Alice"}
