"""Events whose predecessors or auth events are missing: what is fetched, and from whom."""

from __future__ import annotations

import random
import time
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import update

from homebody.core import incoming
from homebody.core.events import state
from homebody.core.federation import missing_events
from homebody.models.events import OUTLIER, REJECTED
from homebody.models.federation import InboundPdu
from homebody.spec.events import Event
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_room
from tests.helpers.gaps import MISSING, ends, gaps, standing, timeline, wait_until_done
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


def test_events_that_are_missing_are_fetched_and_stand_before_the_one_that_follows(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    sent = [room.message(f"{number}") for number in range(30)]

    assert b.send(sent[-1]) == {sent[-1].event_id: {}}
    wait_until_done(app)

    assert timeline(app, room.id)[-30:] == [it.event_id for it in sent]
    assert ends(app, room) == {sent[-1].event_id}
    assert gaps(app) == {}
    bodies = [it.json for it in b.received(MISSING)]
    assert [it["limit"] for it in bodies] == [20, 20]
    assert bodies[0]["latest_events"] == [sent[-1].event_id]


def test_state_in_the_missing_events_counts(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    room.set_state("m.room.topic", {"topic": "tea"})
    room.message()

    b.send(last := room.message())
    wait_until_done(app)

    path = f"rooms/{quote(room.id)}/state/m.room.topic"
    assert alice.get(path).get_json() == {"topic": "tea"}
    assert ends(app, room) == {last.event_id}


def test_more_events_than_are_fetched_leave_a_gap(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    old = [room.message(f"{number}") for number in range(100)]
    room.set_state("m.room.topic", {"topic": "tea"})
    new = [room.message(f"new {number}") for number in range(220)]

    b.send(new[-1])
    wait_until_done(app)

    found = timeline(app, room.id)
    assert found[-201:] == [it.event_id for it in new[-201:]]
    assert old[0].event_id not in found
    path = f"rooms/{quote(room.id)}/state/m.room.topic"
    assert alice.get(path).get_json() == {"topic": "tea"}
    assert list(gaps(app)) == [new[-202].event_id]
    assert len(b.received(MISSING)) == 10
    assert len(b.received("/state_ids/")) == 1


def test_an_event_that_nobody_has_leaves_a_gap_and_fills_it_when_it_comes(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    before = ends(app, room)
    lost = room.set_state("m.room.topic", {"topic": "lost"})
    room.hidden.add(lost.event_id)
    after = room.message("after")

    b.send(after)
    wait_until_done(app)
    at_first = ends(app, room), gaps(app), standing(app, lost)
    room.hidden.clear()
    b.send(lost)

    assert at_first[0] == {*before, after.event_id}
    assert list(at_first[1]) == [lost.event_id]
    assert at_first[2] == OUTLIER  # it can't be fetched alone, but the state has it
    assert ends(app, room) == {after.event_id}
    assert gaps(app) == {}
    assert timeline(app, room.id)[-2:] == [after.event_id, lost.event_id]
    path = f"rooms/{quote(room.id)}/state/m.room.topic"
    assert alice.get(path).get_json() == {"topic": "lost"}


def test_the_state_before_an_event_is_that_of_the_other_server(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    b.fail(MISSING, 500)
    room.set_state("m.room.topic", {"topic": "first"})
    room.set_state("m.room.topic", {"topic": "tea"})
    room.member("dave", "join")

    b.send(last := room.message("hello", sender="dave"))
    wait_until_done(app)

    path = f"rooms/{quote(room.id)}/"
    assert alice.get(path + "state/m.room.topic").get_json() == {"topic": "tea"}
    joined = alice.get(path + "joined_members").get_json()["joined"]
    assert "@dave:b.test" in joined
    assert timeline(app, room.id)[-1] == last.event_id


def test_the_state_before_an_event_has_what_its_known_and_its_missing_predecessor_changed(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    lost = room.set_state("m.room.topic", {"topic": "tea"})
    room.hidden.add(lost.event_id)
    alice.set_state(room.id, "m.room.name", {"name": "Cats"})
    with app.homeserver.database.read() as tx:
        name = state.current(tx, room.id, "m.room.name")
    assert name is not None
    room.receive(name.pdu)

    last = room.message(prev=[name, lost])
    b.send(last)
    wait_until_done(app)

    known = state_of(alice, room.id)
    assert known["m.room.topic", ""] == {"topic": "tea"}
    assert known["m.room.name", ""] == {"name": "Cats"}
    assert ends(app, room) == {last.event_id}


def test_a_large_state_is_fetched_as_a_whole(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    b.fail(MISSING, 500)
    for number in range(missing_events.MAX_SINGLE + 5):
        room.member(f"user{number}", "join")

    b.send(last := room.message())
    wait_until_done(app)

    joined = alice.get(f"rooms/{quote(room.id)}/joined_members").get_json()["joined"]
    assert len(joined) == missing_events.MAX_SINGLE + 5 + 2
    assert timeline(app, room.id)[-1] == last.event_id
    assert not b.received("/event/")


def test_a_server_in_the_room_may_not_say_what_the_keys_of_others_are(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, remote: Remotes
) -> None:
    c = remote("c.test")
    c.fail("/key/")
    b.notary_for["c.test"] = c.published_keys()
    b.fail(MISSING, 500)
    for number in range(missing_events.MAX_SINGLE + 5):
        room.member(f"user{number}", "join")
    room.member("@made_up:c.test", "join", by=c)

    b.send(last := room.message())
    wait_until_done(app)

    joined = alice.get(f"rooms/{quote(room.id)}/joined_members").get_json()["joined"]
    assert len(joined) == missing_events.MAX_SINGLE + 5 + 2
    assert timeline(app, room.id)[-1] == last.event_id
    assert not b.received("/key/v2/query")


def test_auth_events_that_are_missing_are_fetched(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    *_, at = room.heads
    joined = room.member("dave", "join")
    with b.lock:
        room.heads = [at]
    event = room.message(
        "hello",
        sender="dave",
        prev=[at],
        auth_events=[
            *(room.state[key, ""].event_id for key in ("m.room.create", "m.room.power_levels")),
            joined.event_id,
        ],
        add=False,
    )
    b.answer(
        "/event_auth/",
        Response(200, {"auth_chain": [it.pdu for it in [joined, *room.auth_chain([joined])]]}),
    )

    b.send(event)
    wait_until_done(app)

    assert standing(app, joined) == OUTLIER
    assert standing(app, event) == REJECTED  # by the state before it, in which dave is not joined


def test_an_event_before_which_auth_events_are_missing_too_is_stored_with_its_state(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    now_ms = int(time.time() * 1000)
    for number in range(120):  # each cites the one before it
        content = {"displayname": f"Carol {number}"}
        last = room.member("carol", "join", content=content, origin_server_ts=now_ms + number)
    b.fail("/event_auth/", 404)
    b.answer(MISSING, Response(200, {"events": []}))

    b.send(last)
    wait_until_done(app)

    assert standing(app, last) == "accepted"
    path = f"rooms/{quote(room.id)}/state/m.room.member/@carol:b.test"
    assert alice.get(path).get_json()["displayname"] == "Carol 119"
    assert len(b.received("/state_ids/")) == 1


def test_a_server_that_has_few_events_is_asked_for_them_once(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    room.message("not given")
    given, last = room.message(), room.message()
    b.answer(MISSING, Response(200, {"events": [given.pdu]}))

    b.send(last)
    wait_until_done(app)

    assert len(b.received(MISSING)) == 1
    assert [standing(app, it) for it in (given, last)] == ["accepted", "accepted"]


def test_an_event_that_follows_something_malformed_is_dropped(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    room.event("m.room.message", {"number": 1.5})
    last = room.message()

    b.send(last)
    wait_until_done(app)

    assert standing(app, last) is None
    assert not b.received("/state_ids/")


def test_an_event_whose_auth_events_nobody_has_is_dropped(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    unknown = "$" + "x" * 43
    event = room.message(auth_events=[unknown], add=False)

    b.send(event)
    wait_until_done(app)

    assert standing(app, event) is None
    assert len(b.received("/event_auth/")) == 1
    assert len(b.received("/event/")) == 1


def test_events_of_another_room_and_without_signatures_are_left_out(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    elsewhere = b.room().message()
    lost = room.message()
    unsigned = remote_room.without_signatures(room.message())
    last = room.message()
    given = [elsewhere.pdu, unsigned, None, {"type": 1}, lost.pdu]
    b.answer(MISSING, Response(200, {"events": given}))
    b.fail("/state_ids/", 404)

    b.send(last)
    wait_until_done(app)

    assert [standing(app, it) for it in (elsewhere, lost, last)] == [None] * 3
    assert timeline(app, room.id)[-1] not in {lost.event_id, last.event_id}


def test_events_that_were_not_asked_for_are_left_out(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    at = list(room.heads)
    other = room.message("a branch", prev=at)
    lost = room.message("asked for", prev=at)
    last = room.message(prev=[lost])
    b.answer(MISSING, Response(200, {"events": [other.pdu, lost.pdu]}))

    b.send(last)
    wait_until_done(app)

    assert standing(app, other) is None
    assert standing(app, lost) == "accepted"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"pdu_ids": [], "auth_chain_ids": []},
        {"pdu_ids": [1], "auth_chain_ids": []},
        {"pdu_ids": {}, "auth_chain_ids": None},
    ],
)
def test_what_is_not_a_state_makes_no_state(
    app: Application, b: Remote, room: RemoteRoom, body: Any
) -> None:
    b.fail(MISSING, 500)
    b.answer("/state_ids/", Response(200, body))
    room.message()
    last = room.message()
    before = ends(app, room)

    b.send(last)
    wait_until_done(app)

    assert standing(app, last) is None
    assert ends(app, room) == before


def test_a_state_with_an_event_of_another_room_is_no_state(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    b.fail(MISSING, 500)
    other = alice.create_room()
    with app.homeserver.database.read() as tx:
        topic = state.current(tx, other, "m.room.join_rules")
        ids = [it.event_id for it in state_at(tx, room.id, tx.position).values()]
    assert topic is not None
    b.answer(
        "/state_ids/", Response(200, {"pdu_ids": [*ids, topic.event_id], "auth_chain_ids": []})
    )
    room.message()

    b.send(last := room.message())
    wait_until_done(app)

    assert standing(app, last) is None


def test_an_event_is_tried_again_when_the_server_does_not_respond(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    b.fail(MISSING, 502)
    b.fail("/state_ids/", 502)
    room.message("lost")

    b.send(last := room.message("last"))
    wait_until_done(app)
    at_first = standing(app, last)
    b.recover()
    with app.homeserver.database.write() as tx:
        tx.sql.execute(update(InboundPdu).values(next_try_ts=0))
    b.send(room.message("next"))
    wait_until_done(app)

    assert at_first is None
    assert last.event_id in timeline(app, room.id)
    assert len(timeline(app, room.id)) == len(set(timeline(app, room.id)))


def test_an_event_is_dropped_after_some_tries(
    app: Application, b: Remote, room: RemoteRoom
) -> None:
    b.fail(MISSING, 502)
    b.fail("/state_ids/", 502)
    room.message("lost")
    b.send(room.message("last"))
    wait_until_done(app)

    times = []
    with app.homeserver.database.write() as tx:
        while True:
            tx.sql.execute(update(InboundPdu).values(next_try_ts=0))
            waiting = incoming.due(tx, room.id, 0, 1)
            if not waiting:
                break
            incoming.put_off(tx, waiting[0])
            times.append(waiting[0].tries)

    assert times == list(range(1, incoming.MAX_TRIES))


def test_another_server_is_asked_when_the_first_has_nothing(
    app: Application, remote: Remotes, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    of_c = c.join(room.id, "dora")
    room.receive(of_c.events[of_c.heads[0]].pdu)
    sent = [room.message(f"{number}") for number in range(3)]
    for event in sent:
        of_c.add(event)
    b.fail(MISSING, 404)

    b.send(sent[-1])
    wait_until_done(app)

    assert timeline(app, room.id)[-3:] == [it.event_id for it in sent]
    assert len(c.received(MISSING)) == 1


def test_a_large_state_comes_from_the_server_that_knows_it(
    app: Application, remote: Remotes, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    c.join(room.id, "dora")
    c.rooms[room.id] = room
    for number in range(missing_events.MAX_SINGLE + 5):
        room.member(f"user{number}", "join")
    for part in (MISSING, "/state"):
        b.fail(part, 404)
    c.fail(MISSING, 404)

    b.send(last := room.message())
    wait_until_done(app)

    assert timeline(app, room.id)[-1] == last.event_id
    joined = alice.get(f"rooms/{quote(room.id)}/joined_members").get_json()["joined"]
    assert len(joined) >= missing_events.MAX_SINGLE + 5 + 2


@pytest.mark.parametrize("status", [503, 429])
def test_an_event_waits_if_a_server_may_have_it_later(
    app: Application, remote: Remotes, b: Remote, room: RemoteRoom, status: int
) -> None:
    c = remote("c.test")
    c.join(room.id, "dora")
    b.fail("/_matrix/federation/v1/", status)
    c.fail("/_matrix/federation/v1/", 404)
    room.message("lost")

    b.send(last := room.message())
    wait_until_done(app)

    with app.homeserver.database.read() as tx:
        assert list(incoming.rooms(tx)) == [room.id]
    assert standing(app, last) is None


def graph(room: RemoteRoom, chance: random.Random) -> list[Event]:
    """Make events with forks and changes of state, and one that follows all."""
    sent: list[Event] = []
    for number in range(25):
        prev = chance.sample(sent[-4:], k=min(len(sent), chance.randint(1, 2))) or None
        if chance.random() < 0.3:
            sent.append(room.event("m.room.topic", {"topic": f"{number}"}, "", prev=prev))
        else:
            sent.append(room.message(f"{number}", prev=prev))
    sent.append(room.message("all of it"))
    return sent


def has_all(app: Application, alice: Person, room: RemoteRoom, sent: list[Event]) -> None:
    assert [it.event_id for it in sent if it.event_id not in timeline(app, room.id)] == []
    assert ends(app, room) == {sent[-1].event_id}
    assert gaps(app) == {}
    topic = alice.get(f"rooms/{quote(room.id)}/state/m.room.topic").get_json()
    assert topic == room.content("m.room.topic") or "errcode" in topic


@pytest.mark.parametrize("seed", range(6))
def test_the_same_events_are_there_whatever_the_order_of_arrival(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    sent = graph(room, chance)
    arriving = chance.sample(sent, k=len(sent))

    for event in arriving:
        b.send(event)
    wait_until_done(app)

    has_all(app, alice, room, sent)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_events_are_there_if_none_can_be_fetched(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    b.fail(MISSING, 404)
    sent = graph(room, chance)
    arriving = chance.sample(sent, k=len(sent))

    for event in arriving:
        b.send(event)
        wait_until_done(app)

    has_all(app, alice, room, sent)
