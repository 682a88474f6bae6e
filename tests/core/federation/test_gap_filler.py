"""Gaps that are filled in the background."""

from __future__ import annotations

import time

import pytest

from homebody.core.federation import gap_filler
from homebody.core.federation.gap_filler import GapFiller
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import MISSING, gaps, leave_gap, page, timeline
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.waiting import wait_for

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
    monkeypatch.setattr(gap_filler, "SECONDS_AFTER_START", 0.05)
    monkeypatch.setattr(gap_filler, "SECONDS_AFTER_JOIN", 0.05)
    app.homeserver.gap_filler.start()
    return b.join(alice.create_room(preset="public_chat"))


def wait_until_idle(app: Application) -> None:
    wait_for(app.homeserver.gap_filler.is_idle)


def restarted(app: Application) -> GapFiller:
    """Return one that has started on the same database."""
    filler = GapFiller(app.homeserver.database, app.homeserver.backfill)
    filler.start()
    return filler


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


def test_what_is_missing_at_the_start_is_fetched(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    missed = [room.message(f"{number}").event_id for number in range(150)]
    app.homeserver.gap_filler.stop()
    last = leave_gap(app, b, room)
    wait_until_idle(app)
    assert timeline(app, room.id)[-2:] != [missed[-1], last.event_id]

    filler = restarted(app)

    wait_for(filler.is_idle)
    assert timeline(app, room.id)[-151:] == [*missed, last.event_id]
    assert gaps(app) == {}


def test_restarts_do_not_fetch_more_than_the_limit(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_filler, "MAX_RESPONSES", 2)
    missed = [room.message(f"{number}").event_id for number in range(350)]
    last = leave_gap(app, b, room)
    wait_for(lambda: len(b.received(BACKFILL)) == 1)
    app.homeserver.gap_filler.stop()  # with one response of two
    wait_until_idle(app)

    for _ in range(3):
        wait_for(restarted(app).is_idle)

    assert timeline(app, room.id)[-201:] == [*missed[-200:], last.event_id]
    assert len(b.received(BACKFILL)) == 2


def test_some_history_before_a_join_is_fetched(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    other = b.room("11")
    history = [other.message(f"{number}").event_id for number in range(150)]
    alice.post(f"join/{other.id}", query_string={"server_name": "b.test"})

    wait_for(lambda: b.received(BACKFILL))
    wait_until_idle(app)
    wait_for(restarted(app).is_idle)

    assert timeline(app, other.id)[-101:-1] == history[-100:]
    assert len(b.received(BACKFILL)) == 1


def test_a_join_waits_for_its_turn_behind_events(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_filler, "SECONDS_AFTER_JOIN", 60)
    other = b.room("11")
    before = other.message("before")
    alice.post(f"join/{other.id}", query_string={"server_name": "b.test"})
    room.message("missed")

    leave_gap(app, b, room)

    wait_for(lambda: gaps(app).keys() == {before.event_id})
    assert len(b.received(BACKFILL)) == 1
    assert not app.homeserver.gap_filler.is_idle()
    app.homeserver.gap_filler.stop()


def test_rooms_that_nobody_is_in_any_more_are_left_out(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    app.homeserver.gap_filler.stop()
    room.message("missed")
    leave_gap(app, b, room)
    alice.post(f"rooms/{room.id}/leave")

    wait_for(restarted(app).is_idle)

    assert b.received(BACKFILL) == []


def test_events_that_come_without_a_gap_are_no_reason_to_ask(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    missed = [room.message(f"{number}") for number in range(15)]

    b.send(missed[-1])
    wait_for(lambda: timeline(app, room.id)[-1] == missed[-1].event_id)

    assert b.received(MISSING)
    assert b.received(BACKFILL) == []
    assert app.homeserver.gap_filler.is_idle()
