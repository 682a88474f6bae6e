"""Typing notifications."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.ephemeral import typing
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.rooms import Json, refusal

Room = Callable[..., str]


def say(person: Person, room_id: str, **body: Any) -> Any:
    return person.put(f"rooms/{room_id}/typing/{person.user_id}", json=body)


def typers(sync: Json, room_id: str) -> list[str] | None:
    """The users who type, by this answer; None: it does not say."""
    room = sync["rooms"]["join"].get(room_id, {"ephemeral": {"events": []}})
    for event in room["ephemeral"]["events"]:
        if event["type"] == "m.typing":
            users: list[str] = event["content"]["user_ids"]
            return users
    return None


def test_the_room_is_told_who_starts_and_who_stops(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]

    started = say(alice, room_id, typing=True, timeout=30000)
    first = bob.sync(token)
    say(bob, room_id, typing=True)
    second = bob.sync(first["next_batch"])
    stopped = say(alice, room_id, typing=False)
    third = bob.sync(second["next_batch"])

    assert [(it.status_code, it.get_json()) for it in (started, stopped)] == [(200, {})] * 2
    assert typers(first, room_id) == [alice.user_id]
    assert typers(second, room_id) == [alice.user_id, bob.user_id]
    assert typers(third, room_id) == [bob.user_id]
    assert typers(bob.sync(third["next_batch"]), room_id) is None


def test_only_the_room_in_which_it_happens_is_told(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    here, there = room(alice, bob), room(bob, carol)
    tokens = [person.sync()["next_batch"] for person in (bob, carol)]

    say(alice, here, typing=True)

    news = [person.sync(token) for person, token in zip((bob, carol), tokens, strict=True)]
    assert [typers(it, there) for it in news] == [None, None]
    assert here not in news[1]["rooms"]["join"]


def test_a_first_sync_tells_of_rooms_where_somebody_types(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    busy, quiet = room(alice, bob), room(alice, bob)
    say(alice, busy, typing=True)
    say(alice, quiet, typing=True)
    say(alice, quiet, typing=False)

    first = bob.sync()

    assert (typers(first, busy), typers(first, quiet)) == ([alice.user_id], None)


def test_a_newcomer_learns_who_is_typing(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    say(alice, room_id, typing=True)
    token = bob.sync()["next_batch"]

    bob.post(f"rooms/{room_id}/join")
    first = bob.sync(token)

    assert typers(first, room_id) == [alice.user_id]
    assert typers(bob.sync(first["next_batch"]), room_id) is None


def test_typing_ends_by_itself_and_wakes_who_waits(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    say(alice, room_id, typing=True, timeout=300)
    first = bob.sync()
    began = time.monotonic()

    news = bob.sync(bob.sync(first["next_batch"])["next_batch"], timeout=20_000)

    assert time.monotonic() - began < 10
    assert typers(news, room_id) == []


def test_saying_it_again_is_no_news_but_lasts_longer(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    say(alice, room_id, typing=True, timeout=60_000)
    before = app.homeserver.ephemeral.position

    say(alice, room_id, typing=True, timeout=90_000)
    say(bob, room_id, typing=False)

    ephemeral = app.homeserver.ephemeral
    assert ephemeral.position == before
    left_ms = ephemeral.typing[room_id].until_ms[alice.user_id] - ephemeral.now_ms
    assert 80_000 < left_ms <= 90_000


def test_no_timeout_is_longer_than_two_minutes(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    say(alice, room_id, typing=True, timeout=2**53)

    ephemeral = app.homeserver.ephemeral
    until_ms = ephemeral.typing[room_id].until_ms[alice.user_id]
    assert until_ms - ephemeral.now_ms <= typing.MAX_MS


def test_a_waiting_sync_hears_of_it_at_once(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync(bob.sync()["next_batch"])["next_batch"]
    heard: list[Json] = []
    waiting = threading.Thread(target=lambda: heard.append(bob.sync(token, timeout=20_000)))
    waiting.start()
    while not len(app.homeserver.wakeups):
        time.sleep(0.01)

    say(alice, room_id, typing=True)

    waiting.join(10)
    assert [typers(it, room_id) for it in heard] == [[alice.user_id]]


def test_one_timer_serves_all_who_type_in_a_room(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    before = len(app.homeserver.ephemeral.timers)

    for _ in range(5):
        say(alice, room_id, typing=True)
        say(bob, room_id, typing=True)

    assert len(app.homeserver.ephemeral.timers) == before + 1


def test_one_types_for_oneself_and_in_rooms_one_is_in(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)

    answers = [
        bob.put(f"rooms/{room_id}/typing/{alice.user_id}", json={"typing": True}),
        say(bob, room_id, typing=True),
        say(bob, "!nowhere:localhost", typing=True),
    ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3
    assert typers(alice.sync(), room_id) is None


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"typing": "yes"}, "M_BAD_JSON"),
        ({"typing": True, "timeout": "long"}, "M_BAD_JSON"),
        ({"typing": True, "timeout": 1.5}, "M_BAD_JSON"),
    ],
)
def test_a_wrong_body_is_refused(login: Login, room: Room, body: Json, errcode: str) -> None:
    alice = login("alice")
    room_id = room(alice)

    answer = say(alice, room_id, **body)

    assert refusal(answer) == (400, errcode)
    assert typers(alice.sync(), room_id) is None


def heard(person: Person, room_id: str, since: str) -> list[str] | None:
    """The users who type, by the next answer that says so: it may come a moment after the write."""
    for _ in range(3):
        news = person.sync(since, timeout=5_000)
        if (found := typers(news, room_id)) is not None:
            return found
        since = news["next_batch"]
    return None


@pytest.mark.parametrize("how", ["leave", "kick", "ban"])
def test_typing_ends_when_its_user_is_no_longer_in_the_room(
    login: Login, room: Room, how: str
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(bob, alice)
    say(alice, room_id, typing=True, timeout=120_000)
    token = bob.sync()["next_batch"]

    if how == "leave":
        alice.post(f"rooms/{room_id}/leave")
    else:
        bob.post(f"rooms/{room_id}/{how}", json={"user_id": alice.user_id})

    assert heard(bob, room_id, token) == []
    assert typers(bob.sync(), room_id) is None


def test_a_new_name_does_not_end_typing(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(bob, alice)
    say(alice, room_id, typing=True, timeout=120_000)

    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice"})
    bob.post(f"rooms/{room_id}/leave")
    bob.post(f"rooms/{room_id}/join")

    assert typers(bob.sync(), room_id) == [alice.user_id]


AUTH = {
    "type": "m.login.password",
    "identifier": {"type": "m.id.user", "user": "alice"},
    "password": PASSWORD,
}
ENDS: dict[str, Callable[[Person, Person], object]] = {
    "logout": lambda typer, _: typer.post("logout"),
    "logout everywhere": lambda _, other: other.post("logout/all"),
    "device deleted": lambda typer, other: other.delete(
        f"devices/{typer.device_id}", json={"auth": AUTH}
    ),
    "devices deleted": lambda typer, other: other.post(
        "delete_devices", json={"devices": [typer.device_id], "auth": AUTH}
    ),
    "new password": lambda _, other: other.post(
        "account/password", json={"new_password": PASSWORD + "!", "auth": AUTH}
    ),
    "deactivation": lambda _, other: other.post("account/deactivate", json={"auth": AUTH}),
}


@pytest.mark.parametrize("end", ENDS)
def test_typing_ends_with_the_session_of_who_types(login: Login, room: Room, end: str) -> None:
    alice, other, bob = login("alice"), login("alice"), login("bob")
    room_id = room(bob, alice)
    say(alice, room_id, typing=True, timeout=120_000)
    token = bob.sync()["next_batch"]

    answer = ENDS[end](alice, other)

    assert getattr(answer, "status_code", None) == 200
    assert heard(bob, room_id, token) == []
    assert typers(bob.sync(), room_id) is None


def test_another_session_types_on(login: Login, room: Room) -> None:
    alice, other, bob = login("alice"), login("alice"), login("bob")
    room_id = room(bob, alice)
    say(alice, room_id, typing=True, timeout=120_000)

    other.post("logout")
    bob.send(room_id)  # a COMMIT after that of the logout, and what follows that

    assert typers(bob.sync(), room_id) == [alice.user_id]


@pytest.mark.parametrize("how", ["lock", "suspend"])
def test_typing_ends_when_the_account_is_closed_for_a_while(
    login: Login, room: Room, how: str
) -> None:
    admin, alice, bob = login("admin"), login("alice"), login("bob")
    room_id = room(bob, alice)
    say(alice, room_id, typing=True, timeout=120_000)
    token = bob.sync()["next_batch"]

    path = f"/_matrix/client/v1/admin/{how}/{alice.user_id}"
    answer = admin.put(path, json={f"{how}ed": True})

    assert answer.status_code == 200
    assert heard(bob, room_id, token) == []


@pytest.mark.parametrize("what", ["leave", "logout"])
def test_typing_ends_with_what_another_process_has_written(
    app: Application, make_app: MakeApp, login: Login, room: Room, what: str
) -> None:
    alice, carol, bob = login("alice"), login("carol"), login("bob")
    room_id = room(bob, alice, carol)
    for person in (alice, carol):
        say(person, room_id, typing=True, timeout=120_000)
    token = bob.sync()["next_batch"]
    app.homeserver.database.notice_other_writers()

    alice.client = make_app().test_client()
    alice.post(f"rooms/{room_id}/leave" if what == "leave" else "logout")
    app.homeserver.database.notice_other_writers()

    assert typers(bob.sync(token), room_id) == [carol.user_id]


def test_nobody_types_longer_than_the_access_token_is_good(make_app: MakeApp, room: Room) -> None:
    app = make_app(token_lifetime="1m")
    client = app.test_client()
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = client.post(V3 + "register", json={**body, "refresh_token": True}).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])
    room_id = room(alice)

    say(alice, room_id, typing=True, timeout=120_000)

    ephemeral = app.homeserver.ephemeral
    left_ms = ephemeral.typing[room_id].until_ms[alice.user_id] - ephemeral.now_ms
    assert session["expires_in_ms"] == 60_000
    assert 0 < left_ms <= 60_000


def test_who_typed_before_a_restart_types_no_more(
    app: Application, make_app: MakeApp, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, quiet = room(alice, bob), room(alice, bob)
    say(alice, room_id, typing=True, timeout=120_000)
    before = bob.sync()

    restarted = make_app()
    alice.client = bob.client = restarted.test_client()
    first = bob.sync(before["next_batch"])
    say(alice, quiet, typing=True)
    second = bob.sync(first["next_batch"])

    assert typers(before, room_id) == [alice.user_id]
    assert typers(first, room_id) == []
    assert (typers(second, room_id), typers(second, quiet)) == (None, [alice.user_id])


@pytest.mark.parametrize("token_of", ["this version", "an older one"])
def test_after_a_restart_rooms_in_which_nobody_typed_are_not_mentioned(
    make_app: MakeApp, login: Login, room: Room, token_of: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id, elsewhere = room(alice, bob), room(alice, carol)
    say(alice, elsewhere, typing=True, timeout=120_000)
    say(alice, room_id, typing=True)
    say(alice, room_id, typing=False)
    token = bob.sync()["next_batch"]

    bob.client = alice.client = make_app().test_client()
    if token_of == "an older one":
        token = token.removesuffix("q")
    first = bob.sync(token)
    say(alice, room_id, typing=True)
    second = bob.sync(first["next_batch"])

    assert typers(first, room_id) == (None if token_of == "this version" else [])
    assert typers(second, room_id) == [alice.user_id]


def test_after_two_restarts_a_client_that_was_away_hears_who_types_no_more(
    make_app: MakeApp, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    say(alice, room_id, typing=True, timeout=120_000)
    token = bob.sync()["next_batch"]
    make_app()

    bob.client = make_app().test_client()

    assert typers(bob.sync(token), room_id) == []
