"""State resolution that takes too long for a write, and is done before it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote

import pytest

from homebody.core import incoming
from homebody.core.events import state
from homebody.core.federation import inbound, resolver
from homebody.core.federation.pdus import Received
from homebody.core.timeline import forks, limits, plans, receiving
from homebody.core.timeline.forks import Point
from homebody.core.timeline.plans import Plan
from homebody.runtime import event_loop
from homebody.spec.events import Event
from homebody.storage.database import Database, Reader, Tx
from homebody.web import Application
from tests.conftest import Login, Person
from tests.core.federation.test_missing_events import graph, has_all
from tests.helpers.gaps import standing, wait_until_done
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.waiting import wait_for


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room(alice: Person, b: Remote) -> RemoteRoom:
    levels = {"users": {alice.user_id: 100, "@carol:b.test": 100}}
    room_id = alice.create_room(preset="public_chat", power_level_content_override=levels)
    return b.join(room_id)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no resolution be short enough for a write."""
    monkeypatch.setattr(inbound, "SECONDS_TO_RESOLVE", -1.0)
    monkeypatch.setattr(resolver, "SECONDS_IN_WRITE", -1.0)
    monkeypatch.setattr(forks, "MAX_KEYS", 0)


def fork(room: RemoteRoom, count: int) -> tuple[list[str], list[str]]:
    """Let users join in two branches; return the ids of the events of each."""
    start = list(room.heads)
    branches = []
    for name in ("left", "right"):
        prev: list[str] = list(start)
        ids = []
        for number in range(count):
            event = room.member(f"{name}{number}", "join", prev=prev)
            prev = [event.event_id]
            ids.append(event.event_id)
        branches.append(ids)
    return branches[0], branches[1]


def now(app: Application, room: RemoteRoom) -> dict[tuple[str, str], str]:
    """Return the current state that the server has."""
    with app.homeserver.database.read() as tx:
        numbers = forks.whole(tx, room.id, forks.current(tx))
        ids = forks.ids(tx, room.id, numbers.values())
        keys = list(numbers)
        cached = state.current_many(tx, room.id, keys)
    assert {key: ids[number] for key, number in numbers.items()} == {
        key: event.event_id for key, event in cached.items()
    }
    return {key: ids[number] for key, number in numbers.items()}


def state_of(room: RemoteRoom, *ids: str) -> dict[tuple[str, str], str]:
    return {key: it.event_id for key, it in room.state_after(ids).items()}


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("seed", range(4))
def test_the_state_is_the_same_as_if_it_was_resolved_in_the_write(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    sent = graph(room, chance)

    for event in sent:
        b.send(event)
    wait_until_done(app)

    has_all(app, alice, room, sent)
    assert now(app, room) == state_of(room, sent[-1].event_id)


@pytest.mark.usefixtures("no_time")
def test_two_branches_are_merged(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "CHANGES_AT_ONCE", 2)
    left, right = fork(room, 8)
    for event_id in (*left, *right):
        b.send(room.events[event_id])
    wait_until_done(app)
    forked = now(app, room)

    b.send(last := room.message("last", prev=[left[-1], right[-1]]))
    wait_until_done(app)

    assert forked == state_of(room, left[-1], right[-1])
    assert now(app, room) == state_of(room, last.event_id)
    assert standing(app, last) == "accepted"


@pytest.mark.usefixtures("no_time")
def test_a_state_of_many_changes_comes_before_its_event(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "CHANGES_AT_ONCE", 3)
    b.fail("/get_missing_events/", 404)
    for number in range(20):
        room.member(f"user{number}", "join")
    room.set_state("m.room.topic", {"topic": "tea"})

    b.send(last := room.message("last"))
    wait_until_done(app)

    assert standing(app, last) == "accepted"
    assert now(app, room) == state_of(room, last.event_id)


@pytest.mark.usefixtures("no_time")
def test_an_event_that_is_soft_failed_changes_nothing(
    app: Application,
    b: Remote,
    alice: Person,
    room: RemoteRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plans, "CHANGES_AT_ONCE", 3)
    b.send(dave := room.member("dave", "join"))
    alice.post(f"rooms/{quote(room.id)}/ban", json={"user_id": dave.sender})
    before = now(app, room)
    b.fail("/get_missing_events/", 404)
    for number in range(20):
        room.member(f"user{number}", "join", prev=[dave] if not number else None)

    b.send(last := room.message("last", sender="dave"))
    wait_until_done(app)

    assert standing(app, last) == "soft_failed"
    assert now(app, room) == before


@pytest.mark.usefixtures("no_time")
def test_messages_of_users_of_this_server_hold_up_no_resolution(
    app: Application,
    b: Remote,
    alice: Person,
    room: RemoteRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, right = fork(room, 4)
    b.send(*(room.events[it] for it in left))
    make = receiving.plan

    def plan(tx: Reader, event: Event, before: Point | None) -> Plan:
        made = make(tx, event, before)
        alice.send(room.id)
        return made

    monkeypatch.setattr(receiving, "plan", plan)
    b.send(*(room.events[it] for it in right))
    wait_until_done(app)

    assert standing(app, right[-1]) == "accepted"
    assert now(app, room) == state_of(room, left[-1], right[-1])


@pytest.mark.usefixtures("no_time")
def test_the_room_of_an_event_whose_state_never_resolves_rests(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "LONG_SECONDS", -1.0)
    left, right = fork(room, 2)
    b.send(*(room.events[it] for it in left))
    rests: list[float] = []
    monkeypatch.setattr(resolver.Resolver, "_rest", lambda _, spent: rests.append(spent))
    monkeypatch.setattr(limits, "MAX_SECONDS", -1.0)

    b.send(*(room.events[it] for it in right))
    wait_until_done(app)

    assert standing(app, right[-1]) != "accepted"
    assert rests


@pytest.mark.usefixtures("no_time")
def test_a_room_that_waits_for_its_turn_is_not_locked(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    server = app.homeserver
    left, right = fork(room, 2)
    b.send(*(room.events[it] for it in left))

    with server.inbound.resolver.turns.turn("!other:b.test"):
        b.send(*(room.events[it] for it in right))
        wait_for(server.inbound.resolver.turns.waiting)
        began = time.monotonic()
        with server.locks.own("room", room.id):
            seconds = time.monotonic() - began
    wait_until_done(app)

    assert seconds < 1
    assert standing(app, right[-1]) == "accepted"


@pytest.mark.usefixtures("no_time")
def test_a_server_with_many_such_rooms_holds_up_its_own(
    app: Application,
    alice: Person,
    b: Remote,
    remote: Remotes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    c, turns = remote("c.test"), app.homeserver.inbound.resolver.turns
    made = [(it, it.join(alice.create_room(preset="public_chat"))) for it in (b, b, b, c)]
    order: list[str] = []
    receive = resolver.Resolver._receive_slowly  # noqa: SLF001 - to see the order

    def note(self: resolver.Resolver, it: Received, before: Point | None) -> str:
        order.append(it.event.room_id)
        return receive(self, it, before)

    def has_waiting(count: int) -> bool:
        return turns.waiting() == count

    monkeypatch.setattr(resolver.Resolver, "_receive_slowly", note)
    with turns.turn("other.test"):
        for number, (server, room) in enumerate(made):
            left, right = fork(room, 1)
            server.send(room.events[left[0]])
            server.send(room.events[right[0]])
            wait_for(partial(has_waiting, number + 1))
    wait_until_done(app)

    rooms = [room.id for _, room in made]
    assert list(dict.fromkeys(order)) == [rooms[0], rooms[3], rooms[1], rooms[2]]


@pytest.mark.usefixtures("no_time")
def test_an_event_whose_state_never_resolves_waits(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SECONDS", -1.0)
    left, right = fork(room, 3)
    for event_id in (*left, *right):
        b.send(room.events[event_id])
    wait_until_done(app)

    at_first = standing(app, right[-1])
    monkeypatch.undo()
    with app.homeserver.database.write() as tx:
        incoming.try_now(tx, room.id)
    app.homeserver.inbound.queues.begin(room.id)
    wait_for(lambda: standing(app, right[-1]) == "accepted")

    assert at_first != "accepted"
    assert now(app, room) == state_of(room, left[-1], right[-1])


def test_a_conflict_of_a_thousand_members_holds_up_nobody_for_long(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.fail("/get_missing_events/", 404)
    left, right = fork(room, 600)
    for at in range(0, len(left), 50):
        b.send(*(room.events[it] for it in left[at : at + 50]))
    blocked = Blocked(monkeypatch)

    b.send(last := room.message("last", prev=[right[-1]]))
    wait_for(lambda: standing(app, last) == "accepted")

    assert now(app, room) == state_of(room, left[-1], last.event_id)
    assert blocked.pauses > 30, "it was 63"
    assert blocked.in_write < 0.05, "it was 6 ms; 120 ms where it is resolved in the write"
    assert blocked.elsewhere < 0.05, "it was 5 ms"


class Blocked:
    """The longest CPU time of a write, and between two pauses while state is resolved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_write = self.elsewhere = 0.0
        self.pauses = 0
        self._began: float | None = None
        write, make = Database.write, receiving.plan

        @contextmanager
        def timed(db: Database, **options: bool) -> Iterator[Tx]:
            with write(db, **options) as tx:
                began = time.thread_time()
                try:
                    yield tx
                finally:
                    self.in_write = max(self.in_write, time.thread_time() - began)

        def plan(tx: Reader, event: Event, before: Point | None) -> Plan:
            self._began = time.thread_time()
            made = make(tx, event, before)
            self._pause()
            self._began = None
            return made

        monkeypatch.setattr(Database, "write", timed)
        monkeypatch.setattr(receiving, "plan", plan)
        monkeypatch.setattr(event_loop, "pause", self._pause)

    def _pause(self) -> None:
        if self._began is not None:
            self.elsewhere = max(self.elsewhere, time.thread_time() - self._began)
            self._began = time.thread_time()
            self.pauses += 1
