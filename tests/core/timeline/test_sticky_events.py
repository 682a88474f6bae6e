"""Sticky events: delivered for a while to everybody in the room, however much comes after them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.timeline import sticky_events
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import Json, act, refusal, unchanged
from tests.helpers.waiting import wait_for

Room = Callable[..., str]
PARAMETER = "org.matrix.msc4354.sticky_duration_ms"
KEY = "msc4354_sticky"
TTL = "msc4354_sticky_duration_ttl_ms"
MEMBER = "org.matrix.msc4143.rtc.member"
FEW: Json = {"filter": json.dumps({"room": {"timeline": {"limit": 1}}})}
NO_MEMBERS: Json = {"filter": json.dumps({"room": {"timeline": {"not_types": [MEMBER]}}})}


def stick(person: Person, room_id: str, txn_id: str = "t", duration: int = 600_000) -> str:
    path = f"rooms/{quote(room_id)}/send/{MEMBER}/{txn_id}"
    body = {"msc4354_sticky_key": "device"}
    answer = person.put(path, json=body, query_string={PARAMETER: duration})
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["event_id"])


def section(answer: Json, room_id: str) -> list[str]:
    """The ids in a room's section of sticky events."""
    room = answer["rooms"]["join"].get(room_id, {})
    return [it["event_id"] for it in room.get(KEY, {}).get("events", ())]


def timeline(answer: Json, room_id: str) -> list[str]:
    return [it["event_id"] for it in answer["rooms"]["join"][room_id]["timeline"]["events"]]


def expire(app: Application) -> None:
    """Let time pass."""
    with app.homeserver.database.write() as tx:
        tx.sql.connection.exec_driver_sql("UPDATE sticky_events SET until_ts = 1")


def test_a_sticky_event_says_how_long_it_is_sticky(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)

    event_id = stick(alice, room_id)

    found = bob.get(f"rooms/{room_id}/event/{event_id}").get_json()
    assert found[KEY] == {"duration_ms": 600_000}
    assert 590_000 < found["unsigned"][TTL] <= 600_000
    other = alice.get(f"rooms/{room_id}/event/{alice.send(room_id)}").get_json()
    assert KEY not in other
    assert TTL not in other["unsigned"]


def test_it_is_delivered_once_although_much_was_sent_since(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    event_id = stick(alice, room_id)
    for _ in range(5):
        alice.send(room_id)

    first = bob.sync(since, **FEW)
    alice.send(room_id)
    second = bob.sync(first["next_batch"], **FEW)

    assert section(first, room_id) == [event_id]
    assert event_id not in timeline(first, room_id)
    event = first["rooms"]["join"][room_id][KEY]["events"][0]
    assert event["unsigned"][TTL] > 0
    assert "room_id" not in event
    assert section(second, room_id) == []


def test_it_is_not_delivered_twice_in_one_response(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    first, second = stick(alice, room_id, "t1"), stick(alice, room_id, "t2")

    every, few = bob.sync(since), bob.sync(since, **FEW)

    assert (timeline(every, room_id), section(every, room_id)) == ([first, second], [])
    assert (timeline(few, room_id), section(few, room_id)) == ([second], [first])


def test_a_filter_of_the_timeline_does_not_keep_it_away(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    event_id = stick(alice, room_id)

    answer = bob.sync(since, timeout=5000, **NO_MEMBERS)

    assert section(answer, room_id) == [event_id]
    assert timeline(answer, room_id) == []


@pytest.mark.parametrize("visibility", ["shared", "joined"])
def test_who_joins_gets_all_that_are_sticky_still(
    app: Application, login: Login, room: Room, visibility: str
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": visibility})
    stick(alice, room_id, "old")
    expire(app)
    some = [stick(alice, room_id, "t1"), stick(alice, room_id, "t2")]
    since = bob.sync()["next_batch"]
    act(bob, room_id, "join")

    joined, first = bob.sync(since, **FEW), bob.sync(**FEW)

    assert section(joined, room_id) == some
    assert section(first, room_id) == some


def test_who_is_not_in_the_room_gets_none(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    act(bob, room_id, "leave")
    tokens = [it.sync()["next_batch"] for it in (bob, carol)]
    stick(alice, room_id)

    answers = [it.sync(since) for it, since in zip((bob, carol), tokens, strict=True)]

    assert not any(room_id in it["rooms"]["join"] for it in answers)


def test_a_redacted_one_and_those_of_ignored_users_are_not_delivered(
    login: Login, room: Room
) -> None:
    alice, bob, eve = login("alice"), login("bob"), login("eve")
    room_id = room(alice, bob, eve)
    ignored: Json = {"ignored_users": {eve.user_id: {}}}
    bob.put(f"user/{bob.user_id}/account_data/m.ignored_user_list", json=ignored)
    since = bob.sync()["next_batch"]
    redacted, kept = stick(alice, room_id, "t1"), stick(alice, room_id, "t2")
    stick(eve, room_id)
    alice.put(f"rooms/{room_id}/redact/{redacted}/r", json={})
    for _ in range(2):
        alice.send(room_id)

    answer = bob.sync(since, **FEW)

    assert section(answer, room_id) == [kept]
    assert KEY not in bob.get(f"rooms/{room_id}/event/{redacted}").get_json()


def test_state_and_delayed_events_can_be_sticky(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    path = f"rooms/{room_id}"
    sticky, later = {PARAMETER: 600_000}, {"org.matrix.msc4140.delay": 1}
    state = alice.put(f"{path}/state/m.room.topic", json={"topic": "x"}, query_string=sticky)
    alice.put(f"{path}/send/{MEMBER}/t1", json={}, query_string=sticky | later)
    time.sleep(0.01)
    app.homeserver.delayed_events.send_due()
    for _ in range(2):
        alice.send(room_id)

    answer = bob.sync(since, **FEW)

    events = answer["rooms"]["join"][room_id][KEY]["events"]
    assert events[0]["event_id"] == state.get_json()["event_id"]
    assert [it["type"] for it in events] == ["m.room.topic", MEMBER]
    assert all(it["unsigned"][TTL] > 590_000 for it in events)


@pytest.mark.parametrize("duration", ["", "x", "-1", "3600001", "1.5"])
def test_an_invalid_duration_sends_nothing(
    app: Application, login: Login, room: Room, duration: str
) -> None:
    alice = login("alice")
    path = f"rooms/{room(alice)}"

    with unchanged(app):
        answers = [
            alice.put(f"{path}/send/m.x/t1", json={}, query_string={PARAMETER: duration}),
            alice.put(f"{path}/state/m.x", json={}, query_string={PARAMETER: duration}),
        ]

    assert [refusal(it) for it in answers] == [(400, "M_INVALID_PARAM")] * 2


def test_nothing_is_read_while_no_event_is_sticky(
    app: Application, login: Login, room: Room, statements: list[str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    stick(alice, room_id, duration=1)
    time.sleep(0.01)
    since = alice.sync()["next_batch"]
    statements.clear()

    alice.send(room_id)
    alice.sync(since)

    assert not [it for it in statements if "sticky_events" in it]


def test_sticky_events_of_other_servers_are_delivered_whatever_their_clock_says(
    login: Login, room: Room, remote: Remotes
) -> None:
    alice = login("alice")
    room_id = room(alice)
    b = remote("b.test")
    there = b.join(room_id, "carol")
    since = alice.sync()["next_batch"]
    now = int(time.time() * 1000)
    marks: list[tuple[int, Any]] = [
        (now, {"duration_ms": 600_000}),
        (now + 60_000, {"duration_ms": 10**12}),
        (now - 700_000, {"duration_ms": 600_000}),
        (now, {"duration_ms": -5}),
        (now, {"duration_ms": True}),
        (now, {"duration_ms": "600000"}),
        (now, 600_000),
    ]
    sticky = [
        there.event(MEMBER, {"n": n}, sender="carol", origin_server_ts=ts, msc4354_sticky=mark)
        for n, (ts, mark) in enumerate(marks)
    ]
    assert not any(b.send(*sticky).values())
    for _ in range(2):
        alice.send(room_id)

    answer = alice.sync(since, **FEW)

    events = answer["rooms"]["join"][room_id][KEY]["events"]
    assert [it["content"]["n"] for it in events] == [0, 1]
    assert events[1]["unsigned"][TTL] == 3_600_000


def test_a_server_that_comes_into_the_room_is_sent_what_is_sticky(
    app: Application, login: Login, room: Room, remote: Remotes
) -> None:
    alice = login("alice")
    room_id = room(alice)
    stick(alice, room_id, "old")
    expire(app)
    event_id = stick(alice, room_id)
    sent_ts = alice.get(f"rooms/{room_id}/event/{event_id}").get_json()["origin_server_ts"]
    alice.send(room_id)
    b = remote("b.test")
    app.homeserver.sender.start()

    b.join(room_id, "carol")

    wait_for(lambda: any(it["type"] == MEMBER for it in b.pdus))
    app.homeserver.sender.stop()
    found = [it for it in b.pdus if it["type"] == MEMBER]
    assert [it[KEY] for it in found] == [{"duration_ms": 600_000}]
    assert found[0]["origin_server_ts"] == sent_ts


def test_a_soft_failed_one_is_shown_when_its_sender_comes_into_the_room_after_all(
    login: Login, room: Room, remote: Remotes
) -> None:
    alice = login("alice")
    room_id = room(alice)
    b = remote("b.test")
    there = b.join(room_id, "carol")
    mark = {"duration_ms": 600_000}
    hidden = there.event(MEMBER, {"n": 1}, sender="carol", msc4354_sticky=mark)
    plain = there.event(MEMBER, {"n": 2}, sender="carol")
    act(alice, room_id, "kick", user_id="@carol:b.test")
    results = b.send(hidden, plain)
    since = alice.sync()["next_batch"]

    b.join(room_id, "dora")
    before = alice.sync(since)
    b.join(room_id, "carol")
    after = alice.sync(before["next_batch"])

    assert not any(results.values())
    shown = [it["content"].get("n") for it in after["rooms"]["join"][room_id]["timeline"]["events"]]
    assert hidden.event_id not in timeline(before, room_id)
    assert [it for it in shown if it] == [1]
    late = alice.sync(before["next_batch"], **FEW)
    assert [*section(late, room_id), *timeline(late, room_id)].count(hidden.event_id) == 1


def test_of_many_by_one_user_the_latest_stay_sticky(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]
    first, second = stick(alice, room_id, "t1"), stick(alice, room_id, "t2")
    other = stick(bob, room_id, "t1")
    with app.homeserver.database.write() as tx:
        fill = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 98)"
            " INSERT INTO sticky_events (number, room_id, position, sender, until_ts)"
            " SELECT 1000000 + i, ?, 0, '@alice:localhost', 1e15 FROM n"
        )
        tx.sql.connection.exec_driver_sql(fill, (room_id,))

    third = stick(alice, room_id, "t3")
    alice.send(room_id)

    assert section(bob.sync(since, **FEW), room_id) == [second, other, third]
    assert alice.get(f"rooms/{room_id}/event/{first}").status_code == 200


def test_a_response_has_the_latest_of_very_many(
    monkeypatch: pytest.MonkeyPatch, login: Login, room: Room
) -> None:
    monkeypatch.setattr(sticky_events, "MAX_AT_ONCE", 2)
    alice, bob = login("alice"), login("bob")
    rooms = [room(alice, bob), room(alice, bob)]
    some = [stick(alice, room_id, f"t{n}") for n in range(2) for room_id in rooms]
    for room_id in rooms:
        alice.send(room_id)

    answer = bob.sync(**FEW)

    assert [section(answer, room_id) for room_id in rooms] == [[some[2]], [some[3]]]


def test_soft_failed_ones_of_users_who_are_not_in_the_room_are_not_looked_at(
    app: Application, login: Login, room: Room, remote: Remotes
) -> None:
    """Else those of a banned user would be checked after each event of the room."""
    alice = login("alice")
    room_id = room(alice)
    b = remote("b.test")
    there = b.join(room_id, "carol")
    mark = {"duration_ms": 600_000}
    some = [there.event(MEMBER, {"n": n}, sender="carol", msc4354_sticky=mark) for n in range(3)]
    act(alice, room_id, "ban", user_id="@carol:b.test")
    b.send(*some)

    with app.homeserver.database.read() as tx:
        banned = sticky_events.hidden(tx, room_id)
        rows = tx.sql.connection.exec_driver_sql("SELECT count(*) FROM sticky_events").scalar_one()

    assert (banned, rows) == ([], 3)
