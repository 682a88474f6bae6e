"""The API of 2014: what its document does not print, and what goes wrong.

tests/seeds/test_seed_004.py has the requests of the document itself.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.legacy import (
    ALICE,
    API,
    BOB,
    HELLO,
    become,
    bodies,
    events,
    got,
    in_room,
    member,
    message,
    say,
)
from tests.helpers.rooms import refusal, unchanged

Json = dict[str, Any]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


@pytest.fixture
def room_id(alice: Person, bob: Person) -> str:
    """A public room of Alice's, with Bob in it."""
    room_id = alice.create_room(preset="public_chat")
    assert bob.post(f"rooms/{quote(room_id)}/join").status_code == 200
    return room_id


# --- accounts


def test_where_nobody_may_register_nobody_does(make_app: MakeApp) -> None:
    app = make_app(registration="closed")

    with unchanged(app):
        answer = app.test_client().post(f"{API}/register", json={"user_id": "alice"})

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_where_a_token_is_needed_the_answer_says_so(make_app: MakeApp) -> None:
    client = make_app(registration="token").test_client()

    answer = client.post(f"{API}/register", json={"user_id": "alice"})

    assert answer.status_code == 401
    assert answer.get_json()["flows"] == [{"stages": ["m.login.registration_token"]}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user_id": "Not A Name"}, (400, "M_INVALID_USERNAME")),
        ({"user_id": "alice"}, (400, "M_USER_IN_USE")),
        ({"user_id": 5}, (400, "M_BAD_JSON")),
        ({"user_id": "carol", "password": ["x"]}, (400, "M_BAD_JSON")),
        ({"user_id": "carol", "password": ""}, (400, "M_WEAK_PASSWORD")),
    ],
)
def test_a_bad_registration_is_refused(
    app: Application, alice: Person, body: Json, expected: tuple[int, str]
) -> None:
    assert alice.user_id == ALICE

    with unchanged(app):
        answer = app.test_client().post(f"{API}/register", json=body)

    assert refusal(answer) == expected


def test_the_limits_of_today_hold(make_app: MakeApp) -> None:
    limits = {"rc_registration.burst_count": "1", "rc_message.burst_count": "1"}
    slow = {"rc_registration.per_second": "0.01", "rc_message.per_second": "0.01"}
    client = make_app(rate_limits="true", **limits, **slow).test_client()
    session = client.post(f"{API}/register", json={"user_id": "alice"}).get_json()
    alice = Person(client, ALICE, session["access_token"], session["device_id"])
    room_id = alice.post(f"{API}/rooms").get_json()["room_id"]
    say(alice, room_id, "one")

    registered = client.post(f"{API}/register", json={"user_id": "bob"})
    said = alice.put(message(room_id, "two"), json=HELLO)

    assert refusal(registered) == refusal(said) == (429, "M_LIMIT_EXCEEDED")


# --- messages


def test_nobody_speaks_for_another(app: Application, bob: Person, room_id: str) -> None:
    with unchanged(app):
        answer = bob.put(message(room_id, "1", sender=ALICE), json=HELLO)

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"body": "hello"}', (400, "M_MISSING_PARAM")),
        (b"{}", (400, "M_MISSING_PARAM")),
        (b"", (400, "M_NOT_JSON")),
        (b'{"msgtype": 5}', (400, "M_BAD_JSON")),
        (b'{"msgtype": "m.text", "body": 1.5}', (400, "M_BAD_JSON")),
        (b"[]", (400, "M_BAD_JSON")),
        (b"hello", (400, "M_NOT_JSON")),
    ],
)
def test_what_is_no_message_is_refused(
    app: Application, alice: Person, room_id: str, body: bytes, expected: tuple[int, str]
) -> None:
    with unchanged(app):
        answer = alice.put(message(room_id, "1"), data=body)

    assert refusal(answer) == expected


def test_a_message_id_has_a_limit(app: Application, alice: Person, room_id: str) -> None:
    with unchanged(app):
        answer = alice.put(message(room_id, "x" * 256), json=HELLO)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_who_is_not_in_the_room_does_not_speak(
    app: Application, login: Login, room_id: str
) -> None:
    mallory = login("mallory")

    with unchanged(app):
        answer = mallory.put(message(room_id, "1", mallory.user_id), json=HELLO)

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_the_same_request_again_sends_nothing(alice: Person, room_id: str) -> None:
    say(alice, room_id, "once")
    say(alice, room_id, "once")

    chunk = got(alice, in_room(room_id, "messages/list"))["chunk"]
    assert bodies(chunk).count("once") == 1


def test_a_message_is_read_back_by_who_is_in_the_room(
    alice: Person, bob: Person, room_id: str
) -> None:
    say(alice, room_id, "a/b c")
    say(bob, room_id, "x")

    found = got(bob, message(room_id, "a%2Fb%20c"))

    hsob_ts = found.pop("hsob_ts")
    assert abs(hsob_ts - time.time() * 1000) < 60_000
    assert found == {"msgtype": "m.text", "body": "a/b c"}


def test_a_message_of_today_has_its_event_id_for_an_address(alice: Person, room_id: str) -> None:
    answer = alice.post(f"rooms/{quote(room_id)}/send/m.room.message", json=HELLO)
    event_id = answer.get_json()["event_id"]

    assert got(alice, message(room_id, quote(event_id)))["body"] == "hello"
    assert got(alice, in_room(room_id, "messages/list"))["chunk"][-1]["msg_id"] == event_id


def test_nobody_sees_the_delay_id_of_a_message(alice: Person, bob: Person, room_id: str) -> None:
    path = f"rooms/{quote(room_id)}/delayed_event/m.room.message/t1"
    body = {"delay_ms": 3_600_000, "content": HELLO}
    delay_id = alice.put(path, json=body).get_json()["delay_id"]
    sent = alice.post(f"/_matrix/client/v1/delayed_events/{delay_id}/send")
    assert sent.status_code == 200

    found = got(bob, in_room(room_id, "messages/list"))["chunk"][-1]

    assert found["content"]["body"] == "hello"
    assert found["msg_id"] == found["event_id"]


def test_what_is_not_there_or_not_for_everybody_is_not_found(
    login: Login, alice: Person, bob: Person, room_id: str
) -> None:
    say(alice, room_id, "1")
    elsewhere = alice.create_room()
    for person, path in (
        (alice, message(room_id, "2")),
        (alice, message(room_id, "1", BOB)),
        (alice, message(elsewhere, "1")),
        (login("mallory"), message(room_id, "1")),
    ):
        assert refusal(person.get(path)) == (404, "M_NOT_FOUND")
    assert bob.get(message(room_id, "1")).status_code == 200


def test_of_two_devices_with_the_same_id_the_later_message_is_found(
    login: Login, alice: Person, room_id: str
) -> None:
    telephone = login("alice")
    alice.put(message(room_id, "1"), json={**HELLO, "body": "first"})
    telephone.put(message(room_id, "1"), json={**HELLO, "body": "second"})

    assert got(alice, message(room_id, "1"))["body"] == "second"


def test_a_redacted_message_is_empty(alice: Person, room_id: str) -> None:
    event_id = alice.send(room_id)
    alice.put(f"rooms/{quote(room_id)}/redact/{quote(event_id)}/r", json={})

    chunk = got(alice, in_room(room_id, "messages/list"))["chunk"]

    assert chunk[-1]["event_id"] == event_id
    assert chunk[-1]["content"].keys() == {"hsob_ts"}


def test_topic_and_name_keep_their_types_and_newer_events_are_left_out(
    alice: Person, room_id: str
) -> None:
    alice.set_state(room_id, "m.room.topic", {"topic": "happy hour"})
    alice.set_state(room_id, "m.room.name", {"name": "pub"})
    alice.set_state(room_id, "org.example.thing", {"a": "b"})

    chunk = got(alice, in_room(room_id, "messages/list"))["chunk"]

    told = [(event["type"], event["user_id"]) for event in chunk]
    assert told == [
        ("m.room.message", "_homeserver_"),
        ("m.room.message", "_homeserver_"),
        ("m.room.topic", ALICE),
        ("m.room.name", ALICE),
    ]
    assert chunk[-2]["content"]["topic"] == "happy hour"
    assert chunk[-1]["state_key"] == ""


# --- pages


@pytest.fixture
def long_room(alice: Person, room_id: str) -> str:
    for number in range(8):
        say(alice, room_id, str(number))
    return room_id


@pytest.mark.parametrize("is_backwards", [False, True])
def test_pages_in_both_directions_show_everything_once(
    alice: Person, long_room: str, is_backwards: bool
) -> None:
    start, stop = ("END", "START") if is_backwards else ("START", "END")
    told: list[str] = []
    for _ in range(5):
        query = {"from": start, "to": stop, "limit": 3}
        page = got(alice, in_room(long_room, "messages/list"), **query)
        told += bodies(page["chunk"])
        start = page["end"]

    everything = bodies(got(alice, in_room(long_room, "messages/list"))["chunk"])
    assert len(everything) == 10
    assert told == (everything[::-1] if is_backwards else everything)


def test_without_from_and_to_the_newest_are_told_in_the_order_of_time(
    alice: Person, long_room: str
) -> None:
    (room,) = got(alice, "im/sync", limit=3)

    assert bodies(room["messages"]["chunk"]) == ["5", "6", "7"]
    older = {"from": room["messages"]["start"], "to": "START", "limit": 2}
    assert bodies(got(alice, in_room(long_room, "messages/list"), **older)["chunk"]) == ["4", "3"]


def test_a_token_of_one_answer_fits_into_all_requests(alice: Person, long_room: str) -> None:
    end = events(alice, "END")["end"]
    say(alice, long_room, "new")

    (room,) = got(alice, "im/sync", **{"from": end})

    assert bodies(room["messages"]["chunk"]) == ["new"]
    assert bodies(events(alice, end)["chunk"]) == ["new"]
    newer = alice.sync(f"s{end}")["rooms"]["join"][long_room]["timeline"]
    assert bodies(newer["events"]) == ["new"]
    path = f"rooms/{quote(long_room)}/messages"
    pages = [alice.get(f"{path}?dir=b&from={it}") for it in (newer["prev_batch"], f"s{end}")]
    first, second = ([it["event_id"] for it in page.get_json()["chunk"]] for page in pages)
    assert first == second


@pytest.mark.parametrize("token", ["", "x", "-1", "1.5", "s5", "999999", "9" * 30, "٣", "end"])
@pytest.mark.parametrize("path", ["im/sync?from=", "im/sync?to=", "events?timeout=0&from="])
def test_a_token_that_nobody_gave_out_is_refused(alice: Person, path: str, token: str) -> None:
    answer = alice.get(f"{API}/{path}{quote(token)}")

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "query", ["im/sync?limit=-1", "im/sync?limit=x", "events?timeout=x", "events?timeout=-5"]
)
def test_numbers_have_to_be_numbers(alice: Person, query: str) -> None:
    assert refusal(alice.get(f"{API}/{query}")) == (400, "M_INVALID_PARAM")


def test_who_is_not_in_the_room_reads_nothing(login: Login, room_id: str) -> None:
    mallory = login("mallory")

    for rest in ("messages/list", "members/list", f"members/{quote(ALICE)}/state"):
        assert refusal(mallory.get(in_room(room_id, rest))) == (403, "M_FORBIDDEN")
    assert got(mallory, "im/sync") == []


def test_what_was_said_before_the_join_stays_hidden_where_the_room_wants_that(
    login: Login, alice: Person
) -> None:
    hidden = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room_id = alice.create_room(preset="public_chat", initial_state=[hidden])
    say(alice, room_id, "secret")
    carol = login("carol")
    carol.put(f"{API}/join/{quote(room_id)}", json={})
    say(alice, room_id, "open")

    chunk = got(carol, in_room(room_id, "messages/list"))["chunk"]

    assert bodies(chunk) == [
        "@alice:localhost joined the room.",  # when the room had not yet said that it hides things
        "@carol:localhost joined the room.",
        "open",
    ]
    assert bodies(events(carol, "START")["chunk"]) == bodies(chunk)
    assert refusal(carol.get(message(room_id, "secret"))) == (404, "M_NOT_FOUND")


# --- members


def test_the_list_of_members(alice: Person, bob: Person, room_id: str) -> None:
    become(alice, room_id, "@carol:localhost", "invite")

    chunk = got(bob, in_room(room_id, "members/list"))["chunk"]

    assert all(event["type"] == "m.room.member" for event in chunk)
    told = [(one["target_user_id"], one["user_id"], one["content"]["membership"]) for one in chunk]
    assert told == [
        (ALICE, ALICE, "join"),
        (BOB, BOB, "join"),
        ("@carol:localhost", ALICE, "invite"),
    ]
    assert got(bob, member(room_id, "@carol:localhost"))["membership"] == "invite"


def test_who_is_unknown_in_the_room_is_not_found(alice: Person, room_id: str) -> None:
    answer = alice.get(member(room_id, "@nobody:localhost"))

    assert refusal(answer) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("user_id", "body", "expected"),
    [
        (ALICE, {"membership": "join"}, (403, "M_FORBIDDEN")),
        (ALICE, {"membership": "leave"}, (403, "M_FORBIDDEN")),
        (BOB, {"membership": "invite"}, (403, "M_FORBIDDEN")),
        (BOB, {"membership": "friend"}, (400, "M_BAD_JSON")),
        (BOB, {"membership": 5}, (400, "M_BAD_JSON")),
        (BOB, {}, (400, "M_BAD_JSON")),
        ("bob", {"membership": "invite"}, (400, "M_INVALID_PARAM")),
    ],
)
def test_a_change_that_is_none_of_the_users_business_is_refused(
    app: Application, bob: Person, room_id: str, user_id: str, body: Json, expected: tuple[int, str]
) -> None:
    with unchanged(app):
        answer = bob.put(member(room_id, user_id), json=body)

    assert refusal(answer) == expected


def test_every_change_is_told_in_words(alice: Person, bob: Person, room_id: str) -> None:
    start = events(alice, "END")["end"]
    bob.put(f"profile/{BOB}/displayname", json={"displayname": "Bobby"})
    for person, membership in (
        (alice, "leave"),
        (alice, "invite"),
        (bob, "leave"),
        (alice, "ban"),
        (alice, "leave"),
        (bob, "join"),
        (bob, "leave"),
    ):
        become(person, room_id, BOB, membership)

    chunk = events(alice, start)["chunk"]

    assert bodies(chunk) == [
        "@bob:localhost changed their name or avatar.",
        "@alice:localhost removed @bob:localhost.",
        "@alice:localhost invited @bob:localhost.",
        "@bob:localhost left the room.",
        "@alice:localhost banned @bob:localhost.",
        "@alice:localhost unbanned @bob:localhost.",
        "@bob:localhost joined the room.",
        "@bob:localhost left the room.",
    ]
    sources = [event["content"]["membership_source"] for event in chunk]
    assert sources == [BOB, ALICE, ALICE, BOB, ALICE, ALICE, BOB, BOB]
    assert {event["content"]["membership_target"] for event in chunk} == {BOB}
    assert {event["user_id"] for event in chunk} == {"_homeserver_"}


def test_a_knock_is_told_too(alice: Person, bob: Person) -> None:
    knocking = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    room_id = alice.create_room(initial_state=knocking)
    start = events(bob, "END")["end"]

    become(bob, room_id, BOB, "knock")

    assert bodies(events(bob, start)["chunk"]) == ["@bob:localhost would like to come in."]
    assert got(bob, "im/sync") == [{"membership": "knock", "room_id": room_id}]


# --- the edge


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "rooms"),
        ("PUT", "join/%23a%3Ab"),
        ("GET", "im/sync"),
        ("GET", "events"),
        ("PUT", "rooms/!a/messages/@a:b/1"),
        ("GET", "rooms/!a/messages/@a:b/1"),
        ("GET", "rooms/!a/messages/list"),
        ("PUT", "rooms/!a/members/@a:b/state"),
        ("GET", "rooms/!a/members/@a:b/state"),
        ("GET", "rooms/!a/members/list"),
    ],
)
def test_one_needs_a_token(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(f"{API}/{path}", method=method)

    assert refusal(answer) == (401, "M_MISSING_TOKEN")


def test_what_is_not_there_is_told_in_the_form_of_an_error(client: FlaskClient) -> None:
    assert refusal(client.get(f"{API}/nothing")) == (404, "M_UNRECOGNIZED")
    assert refusal(client.delete(f"{API}/login")) == (405, "M_UNRECOGNIZED")
    assert refusal(client.post(f"{API}/login", data=b"{")) == (400, "M_NOT_JSON")
