"""Gaps that are filled in the background."""

from __future__ import annotations

import time

import pytest

from homebody.core.federation import gap_filler
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import MISSING, gaps, leave_gap, page, timeline, wait_for
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom

BACKFILL = "/backfill/"


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room(app: Application, alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch) -> RemoteRoom:
    monkeypatch.setattr(gap_filler, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(gap_filler, "SECONDS_BETWEEN", 0.01)
    app.homeserver.gap_filler.start()
    return b.join(alice.create_room(preset="public_chat"))


def wait_until_idle(app: Application) -> None:
    wait_for(app.homeserver.gap_filler.is_idle)


def test_a_user_who_was_away_finds_what_was_missed(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    missed = [room.message(f"{number}").event_id for number in range(150)]

    last = leave_gap(app, b, room)
    wait_for(lambda: gaps(app) == {})
    wait_until_idle(app)

    assert timeline(app, room.id)[-151:] == [*missed, last.event_id]
    b.fail(BACKFILL, 500)
    assert len(page(alice, room.id, limit=100)["chunk"]) == 100


def test_no_more_is_fetched_than_the_limit(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_filler, "MAX_RESPONSES", 2)
    missed = [room.message(f"{number}").event_id for number in range(250)]

    last = leave_gap(app, b, room)
    wait_for(lambda: len(timeline(app, room.id)) >= 200)
    wait_until_idle(app)

    assert timeline(app, room.id)[-201:] == [*missed[-200:], last.event_id]
    assert len(b.received(BACKFILL)) == 2
    assert list(gaps(app)) == [missed[-201]]


def test_a_server_that_has_nothing_is_asked_once(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    b.fail(BACKFILL, 404)
    room.message("lost")

    leave_gap(app, b, room)
    wait_for(lambda: b.received(BACKFILL))
    wait_until_idle(app)
    b.send(room.message("next"))
    time.sleep(0.2)

    assert len(b.received(BACKFILL)) == 1
    assert len(gaps(app)) == 1


def test_the_history_before_a_join_is_left_to_readers(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    other = b.room("11")
    for number in range(5):
        other.message(f"{number}")
    alice.post(f"join/{other.id}", query_string={"server_name": "b.test"})
    time.sleep(0.2)

    assert b.received(BACKFILL) == []
    assert app.homeserver.gap_filler.is_idle()


def test_events_that_come_without_a_gap_are_no_reason_to_ask(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    missed = [room.message(f"{number}") for number in range(15)]

    b.send(missed[-1])
    wait_for(lambda: timeline(app, room.id)[-1] == missed[-1].event_id)

    assert b.received(MISSING)
    assert b.received(BACKFILL) == []
    assert app.homeserver.gap_filler.is_idle()
