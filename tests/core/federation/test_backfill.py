"""History that other servers have: it is fetched when a reader comes to a gap."""

from __future__ import annotations

import random
import time
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from homebody.core.events import state
from homebody.core.federation import backfill
from homebody.models.events import HISTORY, REJECTED
from homebody.models.federation import Gap
from homebody.spec.events import Event
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_room
from tests.helpers.gaps import gaps, ids, leave_gap, page, pages, standing
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import state_at
from tests.helpers.scripted_server import Response

Json = dict[str, Any]
BACKFILL = "/backfill/"


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


def test_a_gap_of_200_is_there_on_the_first_paging(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    sent = [room.message(f"{number}") for number in range(200)]
    last = leave_gap(app, b, room)
    assert list(gaps(app)) == [sent[-1].event_id]

    found = ids(page(alice, room.id))

    assert found[-201:] == [*(it.event_id for it in sent), last.event_id]
    assert len(found) == len(set(found))
    assert found[0] == room.state["m.room.create", ""].event_id
    assert gaps(app) == {}
    assert standing(app, sent[0]) == HISTORY
    assert [it.query["limit"] for it in b.received(BACKFILL)] == [["100"]] * 2


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_of_any_size_have_all_events_once(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, limit: int
) -> None:
    sent = [room.message(f"{number}") for number in range(120 if limit > 1 else 5)]
    leave_gap(app, b, room)

    found = pages(alice, room.id, limit)

    assert found[-len(sent) - 1 : -1] == [it.event_id for it in sent]
    assert len(found) == len(set(found))


def test_only_what_is_read_is_fetched(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    for number in range(300):
        room.message(f"{number}")
    leave_gap(app, b, room)

    first = page(alice, room.id, limit=1)
    unread = len(b.received(BACKFILL))
    page(alice, room.id, limit=50, **{"from": first["end"]})

    assert unread == 0
    assert len(b.received(BACKFILL)) == 1


@pytest.mark.parametrize("seed", range(6))
def test_branches_are_merged_into_one_order(
    app: Application,
    b: Remote,
    alice: Person,
    room: RemoteRoom,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    monkeypatch.setattr(backfill, "EVENTS_AT_ONCE", chance.choice([40, 70, 100]))
    monkeypatch.setattr(backfill, "MAX_RESPONSES", 100)
    sent = [room.message("first")]
    for number in range(200):
        prev = chance.sample(sent[-6:], k=min(len(sent), chance.randint(1, 3)))
        sent.append(room.message(f"{number}", prev=prev))
    leave_gap(app, b, room)

    found = ids(page(alice, room.id))

    place = {event_id: number for number, event_id in enumerate(found)}
    for event in sent:
        assert all(place[it] < place[event.event_id] for it in event.prev_event_ids)
    assert gaps(app) == {}


def test_state_events_of_the_gap_are_state_of_that_time_but_not_of_now(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    room.set_state("m.room.topic", {"topic": "first"})
    between = room.message("between")
    second = room.set_state("m.room.topic", {"topic": "second"})
    room.set_state("m.room.name", {"name": "gone"})
    room.set_state("m.room.name", {"name": "name"})
    leave_gap(app, b, room)
    before = state_now(app, room)

    page(alice, room.id)

    assert state_now(app, room) == before
    path = f"rooms/{quote(room.id)}/context/{quote(between.event_id)}?limit=0"
    then = {it["type"]: it["content"] for it in alice.get(path).get_json()["state"]}
    assert then["m.room.topic"] == {"topic": "first"}
    assert "m.room.name" not in then
    shown = alice.get(f"rooms/{quote(room.id)}/event/{quote(second.event_id)}").get_json()
    assert shown["unsigned"]["prev_content"] == {"topic": "first"}


def state_now(app: Application, room: RemoteRoom) -> dict[tuple[str, str], str]:
    with app.homeserver.database.read() as tx:
        found = state_at(tx, room.id, tx.position)
        keys = list(found)
        cached = state.current_many(tx, room.id, keys)
    assert {key: it.event_id for key, it in cached.items()} == {
        key: it.event_id for key, it in found.items()
    }
    return {key: it.event_id for key, it in found.items()}


def test_what_the_history_visibility_hid_then_stays_hidden(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, login: Login
) -> None:
    room.set_state("m.room.history_visibility", {"history_visibility": "joined"})
    hidden = room.message("hidden")
    room.set_state("m.room.history_visibility", {"history_visibility": "shared"})
    shown = room.message("shown")
    leave_gap(app, b, room)
    bob = login("bob")
    bob.post(f"rooms/{quote(room.id)}/join")

    of_bob, of_alice = ids(page(bob, room.id)), ids(page(alice, room.id))

    assert shown.event_id in of_bob
    assert hidden.event_id not in of_bob
    assert {shown.event_id, hidden.event_id} <= set(of_alice)


def test_history_notifies_nobody_and_is_in_no_sync(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    room.message(f"hello {alice.user_id} alice")
    leave_gap(app, b, room)
    before = alice.sync()

    page(alice, room.id)

    after = alice.sync(before["next_batch"])
    assert room.id not in after.get("rooms", {}).get("join", {})
    unread = [it["rooms"]["join"][room.id]["unread_notifications"] for it in (before, alice.sync())]
    assert unread[0] == unread[1]


def test_relations_and_redactions_in_history_count(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    root, other = room.message("root"), room.message("secret")
    relation = {"m.relates_to": {"rel_type": "m.replace", "event_id": root.event_id}}
    new = {"m.new_content": {"msgtype": "m.text", "body": "edited"}, **relation}
    room.event("m.room.message", {"msgtype": "m.text", "body": "* edited", **new})
    room.event("m.room.redaction", {"redacts": other.event_id})
    leave_gap(app, b, room)

    found = {it["event_id"]: it for it in page(alice, room.id)["chunk"]}

    assert "m.replace" in found[root.event_id]["unsigned"]["m.relations"]
    assert found[other.event_id]["content"] == {}


def test_events_that_are_wrong_are_left_out_and_what_is_before_them_comes(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    first = room.message("first")
    with b.lock:
        forbidden = room.set_state("m.room.topic", {"topic": "no"}, sender="dave")
    unsigned = room.message("unsigned")
    leave_gap(app, b, room)
    elsewhere = b.room().message()
    given = [
        remote_room.without_signatures(unsigned),
        None,
        elsewhere.pdu,
        forbidden.pdu,
        first.pdu,
    ]
    b.answer(BACKFILL, Response(200, {"pdus": given}))

    found = ids(page(alice, room.id, limit=5))
    b.recover(BACKFILL)
    again = retry(app, alice, room)

    assert unsigned.event_id not in found
    assert elsewhere.event_id not in again
    assert standing(app, forbidden) == REJECTED
    assert forbidden.event_id not in again
    assert first.event_id in again


def retry(app: Application, person: Person, room: RemoteRoom) -> list[str]:
    with app.homeserver.database.write() as tx:
        tx.sql.execute(update(Gap).values(next_try_ts=0))
    return ids(page(person, room.id))


def test_a_page_ends_at_a_gap_that_nobody_fills_and_passes_it_over_later(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    old = alice.send(room.id, "old")
    room.message("lost")
    last = leave_gap(app, b, room)
    b.fail(BACKFILL, 502)

    first = page(alice, room.id)
    second = page(alice, room.id, **{"from": first["end"]})
    requests = len(b.received(BACKFILL))

    assert ids(first) == [last.event_id]
    assert ids(second)[-1] == old
    assert requests == 1
    with app.homeserver.database.read() as tx:
        tries, next_try_ts = tx.sql.execute(select(Gap.tries, Gap.next_try_ts)).one()
    assert tries == 1
    assert 0 < next_try_ts - time.time() * 1000 <= backfill.FIRST_DELAY_MS


def test_a_server_that_hangs_costs_a_reader_some_seconds_at_most(
    app: Application,
    b: Remote,
    alice: Person,
    room: RemoteRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backfill, "READER_SECONDS", 0.5)
    room.message("lost")
    last = leave_gap(app, b, room)
    b.hang(BACKFILL)

    began = time.monotonic()
    found = page(alice, room.id)
    seconds = time.monotonic() - began
    b.recover()

    assert ids(found) == [last.event_id]
    assert seconds < 3
    assert "end" in found


def test_another_server_is_asked_if_the_first_does_not_have_the_events(
    app: Application, remote: Remotes, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    of_c = c.join(room.id, "dora")
    room.receive(of_c.events[of_c.heads[0]].pdu)
    sent = [room.message(f"{number}") for number in range(3)]
    for event in sent:
        of_c.add(event)
    leave_gap(app, b, room)
    b.fail(BACKFILL, 404)

    assert {it.event_id for it in sent} <= set(ids(page(alice, room.id)))


def test_more_events_than_a_page_may_fetch_come_on_the_next(
    app: Application,
    b: Remote,
    alice: Person,
    room: RemoteRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backfill, "MAX_RESPONSES", 1)
    sent = [room.message(f"{number}") for number in range(250)]
    leave_gap(app, b, room)

    found = pages(alice, room.id, 1000)

    assert found[-251:-1] == [it.event_id for it in sent]


def test_context_reaches_over_a_gap(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    sent = [room.message(f"{number}") for number in range(5)]
    last = leave_gap(app, b, room)

    path = f"rooms/{quote(room.id)}/context/{quote(last.event_id)}?limit=6"
    before = alice.get(path).get_json()["events_before"]

    assert [it["event_id"] for it in before] == [it.event_id for it in reversed(sent)][:3]


def test_pages_forwards_fill_the_gap_that_they_pass(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    sent = [room.message(f"{number}") for number in range(150)]
    last = leave_gap(app, b, room)

    found = ids(page(alice, room.id, dir="f"))[::-1]

    assert found[-151:] == [*(it.event_id for it in sent), last.event_id]


def test_a_sync_over_a_gap_is_limited_and_its_token_leads_into_the_gap(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    since = alice.sync()["next_batch"]
    sent = [room.message(f"{number}") for number in range(5)]
    last = leave_gap(app, b, room)
    after = room.message("after")
    b.send(after)

    timeline = alice.sync(since)["rooms"]["join"][room.id]["timeline"]
    initial = alice.sync()["rooms"]["join"][room.id]["timeline"]
    before = ids(page(alice, room.id, limit=5, **{"from": timeline["prev_batch"]}))

    for it in (timeline, initial):
        assert [event["event_id"] for event in it["events"]] == [last.event_id, after.event_id]
        assert it["limited"] is True
    assert before == [it.event_id for it in sent]


def test_history_goes_on_before_an_event_of_a_dead_server(
    app: Application, remote: Remotes, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    dead = remote("d.test")
    dead.fail("/key/", 502)
    first = room.message("first")
    room.member("erin", "join", by=dead)
    lost = room.message("whose key nobody has", sender="erin", by=dead)
    last = room.message("last")
    leave_gap(app, b, room)

    found = ids(page(alice, room.id))

    assert {first.event_id, last.event_id} <= set(found)
    assert lost.event_id not in found
    assert standing(app, lost) is None


def test_a_server_that_leaves_out_signatures_hides_nothing_that_another_has(
    app: Application, remote: Remotes, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    of_c = c.join(room.id, "dora")
    room.receive(of_c.events[of_c.heads[0]].pdu)
    sent = [room.message(f"{number}") for number in range(5)]
    for event in sent:
        of_c.add(event)
    leave_gap(app, b, room)
    given = [remote_room.without_signatures(it) for it in reversed(sent)]
    b.answer(BACKFILL, Response(200, {"pdus": given}))

    found = ids(page(alice, room.id))

    assert found[-6:-1] == [it.event_id for it in sent]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_server_responds_only_events_of_the_room_are_shown(
    app: Application, b: Remote, alice: Person, room: RemoteRoom, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    sent: list[Event] = []
    for number in range(60):
        prev = chance.sample(sent[-3:], k=min(len(sent), chance.randint(1, 2))) or None
        sent.append(room.message(f"{number}", prev=prev))
    leave_gap(app, b, room)
    before = state_now(app, room)

    for _ in range(6):
        given: list[Any] = [it.pdu for it in chance.choices(sent, k=chance.randint(0, 60))]
        given += [{**chance.choice(sent).pdu, "depth": 2**60, "unsigned": []}, [], "x", None]
        given += [remote_room.with_wrong_hash(chance.choice(sent), body="other")]
        chance.shuffle(given)
        b.answer(BACKFILL, Response(200, {"pdus": given}))
        retry(app, alice, room)
    b.recover(BACKFILL)
    found = retry(app, alice, room)

    assert state_now(app, room) == before
    assert len(found) == len(set(found))
    assert set(found) <= room.events.keys()
    assert gaps(app) == {}
