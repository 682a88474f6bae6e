"""Events whose predecessors are missing, while servers hang, lie, or fail themselves."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from homebody.core import incoming
from homebody.core.federation import missing_events, queues, room_requests
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import MISSING, ends, standing, wait_until_done
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import state_at, state_of
from tests.helpers.scripted_server import Response


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room(alice: Person, b: Remote) -> RemoteRoom:
    """A room of Alice's in which Carol of b.test may do everything."""
    levels = {"users": {alice.user_id: 100, "@carol:b.test": 100}}
    room_id = alice.create_room(preset="public_chat", power_level_content_override=levels)
    return b.join(room_id)


def test_a_server_that_hangs_does_not_hold_up_other_rooms(
    app: Application,
    b: Remote,
    alice: Person,
    room: RemoteRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room_requests, "SECONDS", 1.0)
    other = b.join(alice.create_room(preset="public_chat"))
    b.hang(MISSING)
    room.message("lost")
    b.send(last := room.message())

    began = time.monotonic()
    assert b.send(elsewhere := other.message()) == {elsewhere.event_id: {}}
    seconds = time.monotonic() - began
    wait_until_done(app)
    b.recover()

    assert seconds < 0.5
    assert standing(app, elsewhere) == "accepted"
    assert standing(app, last) is None  # it is tried again later


def test_an_event_waits_if_there_was_no_time_to_ask_all_servers(
    app: Application,
    b: Remote,
    remote: Remotes,
    room: RemoteRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(missing_events, "MAX_SECONDS", 0.5)
    c = remote("c.test")
    c.join(room.id, "dora")
    for server in (b, c):
        server.hang("/_matrix/federation/v1/")
    room.message("lost")

    b.send(last := room.message())
    wait_until_done(app)
    for server in (b, c):
        server.recover()

    with app.homeserver.database.read() as tx:
        assert list(incoming.rooms(tx)) == [room.id]
    assert standing(app, last) is None


def test_no_more_events_are_taken_than_were_asked_for(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    sent = [room.message(f"{number}") for number in range(300)]
    b.answer(MISSING, Response(200, {"events": [it.pdu for it in reversed(sent[:-1])]}))
    b.fail("/state_ids/", 404)

    b.send(sent[-1])
    wait_until_done(app)

    assert standing(app, sent[-1]) is None
    assert standing(app, sent[0]) is None
    assert len(b.received(MISSING)) <= missing_events.MAX_ROUNDS


def test_a_room_has_a_limited_number_of_events_that_wait_of_which_no_server_may_take_all(
    app: Application, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "MAX_WAITING", 16)
    pdus_in = [(f"$event{number}", "{}") for number in range(40)]

    with app.homeserver.database.write() as tx:
        for event_id, pdu in pdus_in[:12]:
            incoming.keep(tx, "b.test", "!other:b.test", [(event_id, pdu)])
        incoming.keep(tx, "c.test", "!other:b.test", pdus_in[20:])
        incoming.keep(tx, "b.test", "!other:b.test", pdus_in[12:20])
        waiting = incoming.due(tx, "!other:b.test", 0, 100)

    assert [it.event_id for it in waiting if it.origin == "b.test"] == [it[0] for it in pdus_in[:8]]
    assert [it.event_id for it in waiting if it.origin == "c.test"] == [
        it[0] for it in pdus_in[20:24]
    ]


def test_a_circle_of_events_is_left_out(app: Application, b: Remote, alice: Person) -> None:
    levels = {"users": {alice.user_id: 100, "@carol:b.test": 100}}
    room_id = alice.create_room(
        preset="public_chat", room_version="2", power_level_content_override=levels
    )
    room = b.join(room_id)
    hashes = {"sha256": "A" * 43}
    first = room.message("a", prev_events=[["$b:b.test", hashes]], event_id="$a:b.test", add=False)
    second = room.message("b", prev_events=[["$a:b.test", hashes]], event_id="$b:b.test", add=False)
    last = room.message("c", prev_events=[["$a:b.test", hashes]], add=False)
    b.answer(MISSING, Response(200, {"events": [first.pdu, second.pdu]}))

    b.send(last)
    wait_until_done(app)

    assert [standing(app, it) for it in (first, second, last)] == [None] * 3


def test_a_database_that_fails_meanwhile_stops_nothing(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "PAUSE_SECONDS", 0.05)
    b.delay(MISSING, 0.3)
    lost, last = room.message("lost"), room.message("last")
    b.send(last)

    app.homeserver.database.writer.raw.execute("PRAGMA query_only = ON")
    b.wait_until(lambda: b.received(MISSING))
    time.sleep(0.6)
    app.homeserver.database.writer.raw.execute("PRAGMA query_only = OFF")
    wait_until_done(app)

    assert [standing(app, it) for it in (lost, last)] == ["accepted"] * 2


def test_nobody_undoes_what_is_known_by_an_event_that_follows_it_and_something_unknown(
    app: Application, b: Remote, alice: Person
) -> None:
    room_id = alice.create_room(preset="public_chat")
    room = b.join(room_id, "mallory")
    with app.homeserver.database.read() as tx:
        earlier = state_at(tx, room_id, tx.position)
    alice.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"})
    alice.set_state(room_id, "m.room.topic", {"topic": "tea"})
    alice.post(f"rooms/{quote(room_id)}/ban", json={"user_id": "@dave:b.test"})
    known = state_of(alice, room_id)
    claimed = [it.event_id for it in earlier.values()]
    b.answer(MISSING, Response(200, {"events": []}))
    b.answer("/state_ids/", Response(200, {"pdu_ids": claimed, "auth_chain_ids": []}))

    event = room.message(prev_events=[*ends(app, room), "$" + "x" * 43], add=False)
    b.send(event)
    wait_until_done(app)

    assert standing(app, event) == "accepted"
    assert state_of(alice, room_id) == known
