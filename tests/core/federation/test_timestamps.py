"""A time before the history that this server has is a question for other servers."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from homebody.core.timeline import gaps
from homebody.models.events import OUTLIER, StoredEvent
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import refusal
from tests.helpers.scripted_server import Response

ASKED = "timestamp_to_event"
NOT_FOUND = (404, "M_NOT_FOUND")


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


def near(person: Person, room_id: str, ts: int, direction: str = "f") -> TestResponse:
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/timestamp_to_event"
    return person.get(path, query_string={"ts": ts, "dir": direction})


@pytest.fixture
def room_id(alice: Person, b: Remote) -> str:
    """A room in which Carol of b.test is, too."""
    found = alice.create_room(preset="public_chat")
    b.join(found)
    return found


def lose_history(app: Application, room_id: str) -> None:
    """Have a room's events up to now in no timeline, as those from before a join are."""
    with app.homeserver.database.write() as tx:
        events = update(StoredEvent).where(StoredEvent.room_id == room_id)
        tx.sql.execute(events.values(position=None, standing=OUTLIER))
        gaps.add(tx, room_id, ["$older"], tx.next_position())


def test_a_time_before_the_history_here_is_asked_for(
    app: Application, b: Remote, alice: Person, room_id: str
) -> None:
    lose_history(app, room_id)
    alice.send(room_id)
    first, *_, last = sorted(b.rooms[room_id].events.values(), key=lambda it: it.origin_server_ts)

    forwards = near(alice, room_id, 1).get_json()
    backwards = near(alice, room_id, last.origin_server_ts, "b").get_json()

    assert forwards == {
        "event_id": first.event_id,
        "origin_server_ts": first.origin_server_ts,
    }
    assert backwards["origin_server_ts"] == last.origin_server_ts


def test_the_event_of_another_server_is_fetched_with_what_is_around_it(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    before, found = room.message("before"), room.message("found")
    assert alice.post(f"join/{quote(room.id)}?via=b.test").status_code == 200

    event_id = near(alice, room.id, found.origin_server_ts, "b").get_json()["event_id"]
    context = alice.get(f"rooms/{quote(room.id)}/context/{quote(event_id)}").get_json()

    assert event_id in {before.event_id, found.event_id}  # of the same millisecond
    around = [*context["events_before"], context["event"], *context["events_after"]]
    assert {before.event_id, found.event_id} <= {it["event_id"] for it in around}


def test_a_server_that_does_not_have_the_event_it_names_is_not_asked_for_ever(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    room.message()
    assert alice.post(f"join/{quote(room.id)}?via=b.test").status_code == 200
    named = {"event_id": "$" + "x" * 43, "origin_server_ts": 5}
    b.answer(ASKED, Response(200, named))

    assert near(alice, room.id, 1).get_json() == named
    assert len(b.received("/backfill/")) == 1


def test_the_nearer_event_is_returned(
    app: Application, b: Remote, alice: Person, room_id: str
) -> None:
    lose_history(app, room_id)
    own = alice.send(room_id)
    later = int(time.time() * 1000) + 100_000
    b.answer(ASKED, Response(200, {"event_id": "$later:b.test", "origin_server_ts": later}))

    assert near(alice, room_id, 1).get_json()["event_id"] == own
    assert len(b.received(ASKED)) == 1


def test_others_are_not_asked_about_history_that_is_here(
    app: Application, b: Remote, alice: Person, room_id: str
) -> None:
    whole = [near(alice, room_id, 1), near(alice, room_id, 1, "b")]
    lose_history(app, room_id)
    own = alice.send(room_id)
    after = near(alice, room_id, int(time.time() * 1000) + 1000, "b")

    assert [it.status_code for it in whole] == [200, 404]
    assert after.get_json()["event_id"] == own
    assert not b.received(ASKED)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"event_id": "$x", "origin_server_ts": "1"},
        {"event_id": "$x", "origin_server_ts": 11},
        {"event_id": "x", "origin_server_ts": 5},
        {"event_id": 5, "origin_server_ts": 5},
        {"event_id": "$" + "x" * 300, "origin_server_ts": 5},
    ],
)
def test_what_is_not_an_event_in_this_direction_is_none(
    app: Application, b: Remote, alice: Person, room_id: str, answer: Any
) -> None:
    lose_history(app, room_id)
    alice.send(room_id)
    b.answer(ASKED, Response(200, answer))

    assert refusal(near(alice, room_id, 10, "b")) == NOT_FOUND


def test_servers_that_fail_are_left_out(
    app: Application, b: Remote, alice: Person, room_id: str
) -> None:
    lose_history(app, room_id)
    own = alice.send(room_id)
    b.fail(ASKED)

    assert near(alice, room_id, 1).get_json()["event_id"] == own


def test_users_who_may_not_read_the_room_ask_nobody(
    app: Application, b: Remote, login: Login, room_id: str
) -> None:
    lose_history(app, room_id)

    assert refusal(near(login("mallory"), room_id, 1)) == (403, "M_FORBIDDEN")
    assert not b.received(ASKED)
