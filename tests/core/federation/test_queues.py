"""Events that wait: those that lack nothing, or something else, are not held up by others."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from homebody.core import incoming
from homebody.core.federation import queues, room_requests
from homebody.core.timeline import receiving
from homebody.core.timeline.forks import Point
from homebody.models.federation import InboundPdu
from homebody.spec.events import Event
from homebody.storage.database import Tx
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import MISSING, standing, wait_until_done
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.waiting import wait_for


@pytest.fixture
def b(remote: Remotes) -> Iterator[Remote]:
    """A server that never responds to /get_missing_events."""
    b = remote("b.test")
    b.hang(MISSING)
    yield b
    b.recover()


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room(alice: Person, b: Remote) -> RemoteRoom:
    return b.join(alice.create_room(preset="public_chat"))


@pytest.fixture
def at_c(remote: Remotes, room: RemoteRoom) -> RemoteRoom:
    """The same room as another server has it, which responds."""
    return remote("c.test").join(room.id, "dave")


def is_accepted(app: Application, event: Event) -> bool:
    return standing(app, event) == "accepted"


def test_events_that_lack_something_else_are_not_held_up(
    app: Application, b: Remote, room: RemoteRoom, at_c: RemoteRoom
) -> None:
    room.message("lost")
    b.send(held_up := room.message("held up"))
    b.wait_until(lambda: b.received(MISSING), "a request")
    missed = at_c.message("missed")

    began = time.monotonic()
    at_c.remote.send(last := at_c.message("last"))
    wait_for(lambda: is_accepted(app, last))
    seconds = time.monotonic() - began

    assert is_accepted(app, missed)
    assert standing(app, held_up) is None
    assert seconds < 5


def test_events_whose_predecessors_have_come_are_not_held_up(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    start = list(room.heads)
    room.message("lost")
    b.send(held_up := room.message("held up"))
    b.wait_until(lambda: b.received(MISSING), "a request")
    first = room.message("first", prev=start)
    second = room.message("second", prev=[first])
    third = room.message("third", prev=[second])

    b.send(third, second)
    b.send(first)
    wait_for(lambda: is_accepted(app, third))

    assert is_accepted(app, second)
    assert standing(app, held_up) is None


def test_no_more_events_of_a_room_are_fetched_at_once_than_the_limit(
    app: Application, b: Remote, room: RemoteRoom, at_c: RemoteRoom
) -> None:
    start = list(room.heads)
    for number in range(10):
        lost = room.message(f"lost {number}", prev=start)
        b.send(room.message(f"{number}", prev=[lost]))
    wait_for(lambda: len(b.received(MISSING)) == queues.MAX_IN_ROOM_FROM_SERVER)
    at_c.message("missed")

    at_c.remote.send(last := at_c.message("last"))
    wait_for(lambda: is_accepted(app, last))

    assert len(b.received(MISSING)) == queues.MAX_IN_ROOM_FROM_SERVER


def test_a_server_that_hangs_has_a_limited_number_of_events_in_all_rooms(
    b: Remote, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_FROM_SERVER", 2)
    monkeypatch.setattr(room_requests, "SECONDS", 1.0)
    for _ in range(4):
        room = b.join(alice.create_room(preset="public_chat"))
        room.message("lost")
        b.send(room.message("last"))
    wait_for(lambda: len(b.received(MISSING)) == 2)
    time.sleep(0.2)
    at_first = len(b.received(MISSING))

    assert at_first == 2
    wait_for(lambda: len(b.received(MISSING)) > 2)


def test_events_of_versions_1_and_2_that_wait_for_each_other_are_dropped(
    app: Application, remote: Remotes, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = remote("b.test")
    monkeypatch.setattr(queues, "MAX_SECONDS_BETWEEN", 0.2)
    room = b.join(login("alice").create_room(preset="public_chat", room_version="2"))
    hashes = {"sha256": "A" * 43}
    first = room.message("a", prev_events=[["$b:b.test", hashes]], event_id="$a:b.test", add=False)
    second = room.message("b", prev_events=[["$a:b.test", hashes]], event_id="$b:b.test", add=False)

    b.send(first, second)
    time.sleep(0.3)
    with app.homeserver.database.write() as tx:  # they have waited for ten minutes
        tx.sql.execute(update(InboundPdu).values(received_ts=1))

    wait_for(lambda: not app.homeserver.inbound.queues.rooms())
    assert [standing(app, it) for it in (first, second)] == [None, None]


def test_one_event_that_fails_in_an_unexpected_way_holds_up_no_other(
    app: Application, remote: Remotes, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = remote("b.test")
    room = b.join(login("alice").create_room(preset="public_chat"))
    start = list(room.heads)
    sent = [room.message(f"{number}", prev=start) for number in range(3)]
    receive = receiving.receive

    def fail(tx: Tx, event: Event, *others: Any) -> str:
        if event.event_id == sent[1].event_id:
            raise ZeroDivisionError
        return receive(tx, event, *others)

    monkeypatch.setattr(receiving, "receive", fail)
    outcome = b.send(*sent)
    wait_until_done(app)
    at_first = [standing(app, it) for it in sent]
    monkeypatch.undo()
    with app.homeserver.database.write() as tx:
        incoming.try_now(tx, room.id)
    app.homeserver.inbound.queues.begin(room.id)
    wait_for(lambda: is_accepted(app, sent[1]))

    assert outcome == {it.event_id: {} for it in sent}
    assert at_first == ["accepted", None, "accepted"]


def test_an_event_waits_if_this_server_can_not_fetch_what_it_lacks(
    app: Application, remote: Remotes, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = remote("b.test")
    room = b.join(login("alice").create_room(preset="public_chat"))
    room.message("lost")
    inbound = app.homeserver.inbound
    fetch = inbound.queues.fill_gap

    def fail(*_: Any) -> Point | None:
        raise OSError(errno.ENOSPC, "No space left on device")

    inbound.queues.fill_gap = fail
    b.send(last := room.message("last"))
    wait_until_done(app)
    inbound.queues.fill_gap = fetch
    with app.homeserver.database.write() as tx:
        incoming.try_now(tx, room.id)
    inbound.queues.begin(room.id)

    wait_for(lambda: is_accepted(app, last))
