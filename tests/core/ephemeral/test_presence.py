"""Presence: which users are online. The clock of these tests stops until they move it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from homebody.core.ephemeral import lifetimes, presence, shown_presence
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.models.presence import ShownPresence
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import Json, refusal

Room = Callable[..., str]


class Clock:
    """Moves by hand, and makes the calls that are due then."""

    def __init__(self, app: Application) -> None:
        self.now_ms = 1_000_000
        database, wakeups = app.homeserver.database, app.homeserver.wakeups
        self.ephemeral = Ephemeral(database, wakeups.wake, lambda: self.now_ms)

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.ephemeral.timers.run_due()


@pytest.fixture
def clock(app: Application) -> Iterator[Clock]:
    clock = Clock(app)
    app.homeserver.ephemeral.close()
    app.homeserver = replace(app.homeserver, ephemeral=clock.ephemeral)
    lifetimes.follow(app.homeserver.database, clock.ephemeral)
    yield clock
    clock.ephemeral.close()


def told(sync: Json) -> dict[str, str]:
    """{user_id: presence} of an answer of /sync."""
    events = sync.get("presence", {"events": []})["events"]
    assert all(event["type"] == "m.presence" for event in events)
    return {event["sender"]: event["content"]["presence"] for event in events}


def status(asker: Person, user_id: str) -> Json:
    answer = asker.get(f"presence/{user_id}/status")
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def say(person: Person, **body: Any) -> Any:
    return person.put(f"presence/{person.user_id}/status", json=body)


def quiet(person: Person, since: str | None = None) -> Json:
    """A sync that says nothing about its user."""
    return person.sync(since, set_presence="offline")


@pytest.mark.usefixtures("clock")
def test_who_syncs_is_online_to_who_shares_a_room(login: Login, room: Room) -> None:
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    room(alice, bob)
    tokens = [quiet(person)["next_batch"] for person in (bob, mallory)]

    alice.sync()

    assert told(quiet(bob, tokens[0])) == {alice.user_id: "online"}
    assert told(quiet(mallory, tokens[1])) == {}
    assert told(quiet(bob)) == {alice.user_id: "online"}
    assert status(bob, alice.user_id) == {
        "presence": "online",
        "currently_active": True,
        "last_active_ago": 0,
    }


def test_the_next_sync_of_an_online_user_is_no_news(
    app: Application, clock: Clock, login: Login
) -> None:
    alice = login("alice")
    token = alice.sync()["next_batch"]
    position = app.homeserver.ephemeral.position

    for _ in range(5):
        clock.advance(20_000)
        token = alice.sync(token)["next_batch"]

    assert app.homeserver.ephemeral.position == position


def test_who_does_not_come_back_is_offline_after_half_a_minute(
    clock: Clock, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    alice.sync()
    token = quiet(bob)["next_batch"]

    clock.advance(presence.OFFLINE_AFTER_MS - 1)
    before = told(quiet(bob, token))
    clock.advance(1)

    assert before == {}
    assert told(quiet(bob, token)) == {alice.user_id: "offline"}
    assert told(quiet(bob)) == {}
    assert status(bob, alice.user_id)["presence"] == "offline"


def test_who_waits_for_news_stays_online_however_long(
    clock: Clock, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)

    with presence.syncing(clock.ephemeral, alice.user_id, alice.device_id):
        clock.advance(presence.IDLE_AFTER_MS - 1)
        while_waiting = status(bob, alice.user_id)["presence"]

    assert while_waiting == "online"


def test_a_session_that_ended_keeps_nobody_online(clock: Clock, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(bob, alice)
    alice.sync()
    token = quiet(bob)["next_batch"]

    alice.post("logout")
    bob.send(room_id)  # a COMMIT after that of the logout, and what follows that
    clock.advance(0)

    assert told(quiet(bob, token)) == {alice.user_id: "offline"}
    assert status(bob, alice.user_id)["presence"] == "offline"


@pytest.mark.parametrize("deed", ["send", "type", "read"])
def test_who_does_nothing_is_unavailable_until_they_do(
    clock: Clock, login: Login, room: Room, deed: str
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = bob.send(room_id)
    deeds: dict[str, Callable[[], object]] = {
        "send": lambda: alice.send(room_id),
        "type": lambda: alice.put(f"rooms/{room_id}/typing/{alice.user_id}", json={"typing": True}),
        "read": lambda: alice.post(f"rooms/{room_id}/receipt/m.read/{event_id}"),
    }

    with presence.syncing(clock.ephemeral, alice.user_id, alice.device_id):
        clock.advance(presence.IDLE_AFTER_MS)
        idle = status(bob, alice.user_id)
        alice.sync()
        still_idle = status(bob, alice.user_id)
        deeds[deed]()
        active = status(bob, alice.user_id)

    assert idle == {"presence": "unavailable", "last_active_ago": presence.IDLE_AFTER_MS}
    assert still_idle["presence"] == "unavailable"
    assert active == {"presence": "online", "currently_active": True, "last_active_ago": 0}


@pytest.mark.usefixtures("clock")
def test_a_sync_may_say_that_its_user_is_away_or_nothing(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)

    quiet(alice)
    unsaid = status(bob, alice.user_id)
    alice.sync(set_presence="unavailable")

    assert unsaid == {"presence": "offline"}
    assert status(bob, alice.user_id)["presence"] == "unavailable"


def test_of_two_devices_the_livelier_one_counts(clock: Clock, login: Login, room: Room) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")
    room(phone, bob)
    phone.sync(set_presence="unavailable")
    clock.advance(10_000)
    laptop.sync()

    both = status(bob, phone.user_id)["presence"]
    clock.advance(25_000)
    one = status(bob, phone.user_id)["presence"]
    clock.advance(5_000)

    assert (both, one) == ("online", "online")
    assert status(bob, phone.user_id)["presence"] == "offline"


@pytest.mark.usefixtures("clock")
def test_a_status_is_set_by_hand_and_told_with_its_message(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    token = quiet(bob)["next_batch"]

    answer = say(alice, presence="unavailable", status_msg="at lunch")

    expected = {"presence": "unavailable", "last_active_ago": 0, "status_msg": "at lunch"}
    assert (answer.status_code, answer.get_json()) == (200, {})
    assert quiet(bob, token)["presence"]["events"] == [
        {"type": "m.presence", "sender": alice.user_id, "content": expected}
    ]
    assert status(alice, alice.user_id) == status(bob, alice.user_id) == expected


@pytest.mark.usefixtures("clock")
def test_a_new_message_is_news_and_the_same_is_not(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    say(alice, presence="online", status_msg="here")
    first = quiet(bob)["next_batch"]

    say(alice, presence="online", status_msg="here")
    same = quiet(bob, first)
    say(alice, presence="online")

    assert told(same) == {}
    assert told(quiet(bob, first)) == {alice.user_id: "online"}
    assert "status_msg" not in status(bob, alice.user_id)


@pytest.mark.usefixtures("clock")
def test_who_hides_stays_hidden_while_active(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.sync()
    say(alice, presence="offline")

    alice.put(f"rooms/{room_id}/typing/{alice.user_id}", json={"typing": True})
    quiet(alice)

    assert status(bob, alice.user_id)["presence"] == "offline"


@pytest.mark.usefixtures("clock")
def test_who_joins_a_room_learns_who_is_online_in_it(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, carol)
    alice.sync()
    token = quiet(bob)["next_batch"]

    bob.post(f"rooms/{room_id}/join")

    assert told(quiet(bob, token)) == {alice.user_id: "online"}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"room": {"timeline": {"limit": 1}}},
        {"room": {"timeline": {"not_types": ["m.room.member"]}}},
        {"room": {"rooms": []}},
    ],
    ids=["all", "with a gap", "without members", "without rooms"],
)
def test_members_learn_that_somebody_online_has_joined(
    login: Login, room: Room, wanted: Json
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice)
    bob.sync()
    token = quiet(alice)["next_batch"]
    query: dict[str, Any] = {"set_presence": "offline", "filter": json.dumps(wanted)}

    for person in (bob, carol):
        person.post(f"rooms/{room_id}/join")
    alice.send(room_id)
    first = alice.sync(token, **query)

    assert told(first) == {bob.user_id: "online"}
    assert told(alice.sync(first["next_batch"], **query)) == {}


@pytest.mark.usefixtures("clock")
def test_a_new_name_of_somebody_online_is_no_news_of_presence(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    bob.sync()
    token = quiet(alice)["next_batch"]

    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Bob"})

    assert told(quiet(alice, token)) == {}


def restarted(make_app: MakeApp, old: Application, *people: Person, is_killed: bool) -> Clock:
    """The clock of a server that has taken the place of the old one; it begins again, too."""
    if not is_killed:
        old.homeserver.ephemeral.close()
    app = make_app()
    clock = Clock(app)
    app.homeserver.ephemeral.close()
    app.homeserver = replace(app.homeserver, ephemeral=clock.ephemeral)
    shown_presence.restore(app.homeserver.database, clock.ephemeral)
    for person in people:
        person.client = app.test_client()
    return clock


def saved(app: Application) -> set[str]:
    """The users whose presence would outlive a crash."""
    with app.homeserver.database.read() as tx:
        return set(tx.sql.execute(select(ShownPresence.user_id)).scalars())


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_who_does_not_come_back_after_a_restart_is_offline(
    app: Application, make_app: MakeApp, login: Login, room: Room, *, is_killed: bool
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room(alice, bob, carol)
    say(bob, presence="online", status_msg="here")
    carol.sync()
    while is_killed and saved(app) != {bob.user_id, carol.user_id}:
        time.sleep(0.01)
    token = quiet(alice)["next_batch"]

    clock = restarted(make_app, app, alice, bob, carol, is_killed=is_killed)
    carol.sync()
    first = quiet(alice, token)
    message = status(alice, bob.user_id)["status_msg"]
    with presence.syncing(clock.ephemeral, carol.user_id, carol.device_id):
        clock.advance(presence.OFFLINE_AFTER_MS)
        then = quiet(alice, first["next_batch"])

    assert told(first) == {bob.user_id: "online", carol.user_id: "online"}
    assert message == "here"
    assert told(then) == {bob.user_id: "offline"}
    clock.ephemeral.close()


def test_who_was_offline_before_a_restart_stays_so(
    app: Application, make_app: MakeApp, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    bob.sync()
    say(bob, presence="offline")
    token = quiet(alice)["next_batch"]

    clock = restarted(make_app, app, alice, bob, is_killed=False)

    assert told(quiet(alice, token)) == told(quiet(alice)) == {}
    clock.ephemeral.close()


@pytest.mark.usefixtures("clock")
def test_strangers_and_others_see_and_set_nothing(login: Login) -> None:
    alice, mallory = login("alice"), login("mallory")
    alice.sync()

    answers = [
        mallory.get(f"presence/{alice.user_id}/status"),
        mallory.get("presence/@nobody:localhost/status"),
        mallory.put(f"presence/{alice.user_id}/status", json={"presence": "offline"}),
    ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3
    assert status(alice, alice.user_id)["presence"] == "online"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"presence": 1}, "M_BAD_JSON"),
        ({"presence": "online", "status_msg": ["x"]}, "M_BAD_JSON"),
        ({"presence": "asleep"}, "M_INVALID_PARAM"),
        ({"presence": "online", "status_msg": "x" * 1001}, "M_INVALID_PARAM"),
    ],
)
def test_a_wrong_status_is_refused(login: Login, body: Json, errcode: str) -> None:
    alice = login("alice")

    answer = say(alice, **body)

    assert refusal(answer) == (400, errcode)
    assert status(alice, alice.user_id) == {"presence": "offline"}


def test_a_server_may_do_without_presence(make_app: MakeApp) -> None:
    client = make_app(presence="false").test_client()
    body = {"username": "alice", "password": "long enough", "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])

    first = alice.sync()
    answer = say(alice, presence="online")

    assert told(alice.sync(first["next_batch"])) == told(first) == {}
    assert answer.status_code == 200
    assert status(alice, alice.user_id) == {"presence": "offline"}


def test_thousands_who_wait_need_few_timers_and_no_new_ones(app: Application, clock: Clock) -> None:
    users = [f"@u{number}:localhost" for number in range(2000)]
    for _ in range(12):
        waiting = [presence.syncing(clock.ephemeral, user_id, "D") for user_id in users]
        for one in waiting:
            one.__enter__()
        clock.advance(30_000)
        for one in waiting:
            one.__exit__(None, None, None)

    assert len(clock.ephemeral.timers) <= 2 * len(users)
    assert len(app.homeserver.wakeups) == 0
