"""Dummy events, which join the ends of a room's graph and are not shown to anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from homebody.core.events import state
from homebody.core.federation import dummy_events, resolver
from homebody.core.timeline import cited_ends, forks, sending, store
from homebody.core.timeline.limits import TooLongError
from homebody.core.timeline.sending import Draft
from homebody.storage.database import Tx
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import ends, ids, page, standing, timeline
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.waiting import wait_for


@pytest.fixture
def b(app: Application, remote: Remotes) -> Iterator[Remote]:
    app.homeserver.sender.start()
    yield remote("b.test")
    app.homeserver.sender.stop()


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room(alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch) -> RemoteRoom:
    monkeypatch.setattr(dummy_events, "WAIT_SECONDS", 0.2)
    return b.join(alice.create_room(preset="public_chat"))


def send_ends(b: Remote, room: RemoteRoom, count: int) -> list[str]:
    """Send as many events that all follow the same one."""
    start = list(room.heads)
    sent = [room.message(f"end {number}", prev=start) for number in range(count)]
    b.send(*sent)
    return [it.event_id for it in sent]


def dummies(b: Remote) -> list[str]:
    """Return the senders of the dummy events that a server has received."""
    return [it["sender"] for it in b.pdus if it["type"] == store.DUMMY]


def test_thirty_ends_become_few(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    send_ends(b, room, 30)
    wait_for(lambda: len(ends(app, room)) <= dummy_events.MAX_ENDS)
    wait_for(lambda: len(dummies(b)) == 3)

    assert len(ends(app, room)) == 3
    assert set(dummies(b)) == {alice.user_id}
    assert all(len(it["prev_events"]) == 10 for it in b.pdus if it["type"] == store.DUMMY)
    b.send(last := room.message("last"))
    assert standing(app, last) == "accepted"


def send_forked(b: Remote, room: RemoteRoom, count: int) -> list[str]:
    """Send as many ends, each of them after the join of another user."""
    start = list(room.heads)
    sent = []
    for number in range(count):
        joined = room.member(f"user{number}", "join", prev=start)
        end = room.message(f"end {number}", sender=f"user{number}", prev=[joined.event_id])
        b.send(joined)
        b.send(end)
        sent.append(end.event_id)
    return sent


def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no resolution be short enough for a write."""
    for module in (cited_ends, dummy_events):
        monkeypatch.setattr(module, "SECONDS_TO_RESOLVE", -1.0)
    monkeypatch.setattr(resolver, "SECONDS_IN_WRITE", -1.0)
    monkeypatch.setattr(forks, "MAX_KEYS", 0)


def now(app: Application, room: RemoteRoom) -> dict[tuple[str, str], str]:
    """Return the current state that the server has."""
    with app.homeserver.database.read() as tx:
        numbers = forks.whole(tx, room.id, forks.current(tx))
        found = forks.ids(tx, room.id, numbers.values())
    return {key: found[number] for key, number in numbers.items()}


def state_of(room: RemoteRoom, *event_ids: str) -> dict[tuple[str, str], str]:
    return {key: it.event_id for key, it in room.state_after(event_ids).items()}


def test_ends_whose_states_take_long_to_resolve_are_joined_too(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dummy_events, "WAIT_SECONDS", 1.0)
    sent = send_forked(b, room, 14)
    no_time(monkeypatch)

    wait_for(lambda: len(ends(app, room)) == 5)
    wait_for(lambda: dummies(b))

    assert now(app, room) == state_of(room, *sent)
    (dummy,) = [it for it in b.pdus if it["type"] == store.DUMMY]
    assert len(dummy["prev_events"]) == 10
    (dummy_id,) = ends(app, room) - set(sent)
    with app.homeserver.database.read() as tx:
        before = forks.before_event(tx, dummy_id)
        assert before is not None
        found = forks.whole(tx, room.id, before)
    assert len([key for key in found if key[0] == state.MEMBER]) == 2 + 10


def test_a_message_follows_one_end_where_the_states_of_many_take_long(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dummy_events, "WAIT_SECONDS", 60.0)
    sent = send_forked(b, room, 12)
    before = now(app, room)
    no_time(monkeypatch)

    event_id = alice.send(room.id, "hello")
    b.wait_for_event(event_id)
    pdu = next(it for it in b.pdus if it["type"] == "m.room.message")

    assert pdu["prev_events"] == [sent[-1]]
    assert ends(app, room) == {*sent[:-1], event_id}
    assert now(app, room) == before == state_of(room, *sent)
    with app.homeserver.database.read() as tx:
        point = forks.before_event(tx, event_id)
        assert point is not None
        found = forks.whole(tx, room.id, point)
    assert found.keys() == state_of(room, sent[-1]).keys()


def test_a_message_follows_an_end_after_which_its_sender_may_send(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dummy_events, "WAIT_SECONDS", 60.0)
    start = list(room.heads)
    send_forked(b, room, 11)
    no_time(monkeypatch)
    renamed = alice.put(
        f"rooms/{quote(room.id)}/state/m.room.member/{quote(alice.user_id)}",
        json={"membership": "join", "displayname": "Alice"},
    ).get_json()["event_id"]
    b.wait_for_event(renamed)
    joined = room.member("late", "join", prev=start)
    last = room.message("last", sender="late", prev=[joined.event_id])
    b.send(joined)
    b.send(last)
    wait_for(lambda: standing(app, last) == "accepted")
    with app.homeserver.database.read() as tx:
        assert state.head(tx, room.id).forward_extremities[-1] == last.event_id

    event_id = alice.send(room.id, "hello")
    b.wait_for_event(event_id)
    pdu = next(it for it in b.pdus if it["type"] == "m.room.message")

    assert pdu["prev_events"] == [renamed]


def test_clients_see_nothing_of_them(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    sent = send_ends(b, room, 25)
    before = alice.sync()["next_batch"]
    unread = alice.sync()["rooms"]["join"][room.id]["unread_notifications"]
    wait_for(lambda: len(dummies(b)) == 2)
    hidden = next(it for it in ends(app, room) if it not in sent)

    synced = alice.sync(before)
    shown = alice.get(f"rooms/{quote(room.id)}/event/{quote(hidden)}")
    context = alice.get(f"rooms/{quote(room.id)}/context/{quote(hidden)}")
    term = {"search_categories": {"room_events": {"search_term": "dummy"}}}
    found = alice.post("search", json=term).get_json()

    assert synced["rooms"].get("join", {}) == {}
    assert ids(page(alice, room.id))[-25:] == sent
    assert hidden not in timeline(app, room.id)
    assert (shown.status_code, context.status_code) == (404, 404)
    assert found["search_categories"]["room_events"]["count"] == 0
    again = alice.sync()["rooms"]["join"][room.id]
    assert again["unread_notifications"] == unread
    assert [it["event_id"] for it in again["timeline"]["events"]] == sent[-10:]


def test_other_servers_get_them_on_request(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    send_ends(b, room, 11)
    wait_for(lambda: dummies(b))
    alice.send(room.id)
    last = timeline(app, room.id)[-1]

    body = {"earliest_events": [], "latest_events": [last], "limit": 20, "min_depth": 0}
    response = b.post("v1", "get_missing_events", room.id, json=body)

    assert store.DUMMY in [it["type"] for it in response.json["events"]]


def test_those_of_other_servers_are_not_shown_either(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    before = alice.sync()["next_batch"]
    dummy = room.event(store.DUMMY, {})

    b.send(dummy)
    b.send(after := room.message("after"))

    events = alice.sync(before)["rooms"]["join"][room.id]["timeline"]["events"]
    assert [it["event_id"] for it in events] == [after.event_id]
    assert standing(app, dummy) == "accepted"
    assert ends(app, room) == {after.event_id}


def test_the_state_of_the_ends_is_merged_by_a_dummy_event_of_another_server(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    start = list(room.heads)
    left = room.member("dave", "join", prev=start)
    right = room.member("erin", "join", prev=start)
    b.send(left, right)

    b.send(dummy := room.event(store.DUMMY, {}, prev=[left, right]))
    b.send(after := room.message("after", prev=[dummy], sender="dave"))

    joined = alice.get(f"rooms/{quote(room.id)}/joined_members").get_json()["joined"]
    assert {"@dave:b.test", "@erin:b.test"} <= joined.keys()
    assert standing(app, after) == "accepted"


def test_nothing_is_sent_where_nobody_here_may(
    app: Application, b: Remote, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dummy_events, "WAIT_SECONDS", 0.0)
    alice = login("alice")
    levels = {"users": {"@carol:b.test": 100}, "events_default": 50}
    room = b.room("11", power_levels=levels)
    alice.post(f"join/{quote(room.id)}", query_string={"server_name": "b.test"})

    monkeypatch.setattr(dummy_events, "SECONDS_BETWEEN", 0.1)
    send_ends(b, room, 15)
    wait_for(lambda: not app.homeserver.inbound.dummy_events.is_waiting())

    assert len(ends(app, room)) == 15
    assert dummies(b) == []


def test_what_fails_is_not_tried_again_with_each_event(
    app: Application, b: Remote, room: RemoteRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dummy_events, "WAIT_SECONDS", 0.0)
    tries: list[str] = []

    def fail(_tx: Tx, draft: Draft) -> str:
        tries.append(draft.type)
        raise TooLongError(draft.room_id)

    monkeypatch.setattr(sending, "send", fail)
    sent = send_ends(b, room, 15)
    wait_for(lambda: tries)

    for _ in range(5):
        b.send(room.message(prev=[sent[0]]))
        time.sleep(0.05)

    assert len(tries) == 1
    assert app.homeserver.inbound.dummy_events.is_waiting()


def test_few_ends_are_left_to_the_users(app: Application, b: Remote, room: RemoteRoom) -> None:
    send_ends(b, room, dummy_events.MAX_ENDS)

    assert not app.homeserver.inbound.dummy_events.is_waiting()
    assert len(ends(app, room)) == dummy_events.MAX_ENDS
    with app.homeserver.database.read() as tx:
        assert len(state.head(tx, room.id).forward_extremities) == dummy_events.MAX_ENDS
