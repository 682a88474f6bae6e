"""Events with and without a position: what lists show, and where events stand."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from homebody.core.events import client_events, state
from homebody.core.rooms import purge
from homebody.core.timeline import store
from homebody.models.base import EventNumber
from homebody.models.events import ACCEPTED, StoredEvent
from homebody.spec import canonical_json
from homebody.spec.events import Event
from homebody.spec.room_versions import VERSIONS
from homebody.storage.database import PLACES, PLACES_OF_GAP, Tx
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import sliding
from tests.helpers.large_room import member_pdu

V1 = "/_matrix/client/v1/rooms"
Read = Callable[[Person, str, str], str]
"""Returns a response about (a room, an event in it) as text."""


def path(room_id: str, rest: str) -> str:
    return f"rooms/{quote(room_id)}/{rest}"


def search(person: Person, _room_id: str, _root: str) -> str:
    wanted = {"room_events": {"search_term": "needle", "order_by": "recent"}}
    return person.post("search", json={"search_categories": wanted}).text


def since_the_first(person: Person, room_id: str, root: str) -> str:
    """The pages of a filter, which are searched for otherwise than the newest events."""
    wanted = '{"room":{"timeline":{"types":["m.room.message"],"limit":50}}}'
    return person.get("sync", query_string={"filter": wanted}).text


LISTS: dict[str, Read] = {
    "messages": lambda it, room, _: it.get(path(room, "messages?dir=b&limit=50")).text,
    "messages forwards": lambda it, room, _: it.get(path(room, "messages?dir=f&limit=50")).text,
    "context": lambda it, room, root: it.get(path(room, f"context/{root}?limit=50")).text,
    "sync": lambda it, _, __: it.get('sync?filter={"room":{"timeline":{"limit":50}}}').text,
    "filtered sync": since_the_first,
    "sliding sync": lambda it, _, __: sliding.request(it, lists=sliding.window(9, 50)).text,
    "search": search,
    "relations": lambda it, room, root: it.get(f"{V1}/{quote(room)}/relations/{root}").text,
    "deep relations": lambda it, room, root: (
        it.get(f"{V1}/{quote(room)}/relations/{root}?recurse=true").text
    ),
    "threads": lambda it, room, _: it.get(f"{V1}/{quote(room)}/threads").text,
    "bundles": lambda it, room, root: it.get(path(room, f"event/{root}")).text,
    "initialSync": lambda it, room, _: it.get(path(room, "initialSync?limit=50")).text,
    "events": lambda it, room, _: it.get(f"events?from=s0&room_id={quote(room)}&limit=50").text,
}


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room_id(alice: Person) -> str:
    return alice.create_room()


def relation(rel_type: str, root: str) -> dict[str, object]:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": root}}


def take_out(app: Application, event_ids: list[str]) -> None:
    """Take the positions of events, as if they had been soft-failed from the beginning."""
    database = app.homeserver.database
    with database.write() as tx:
        tx.sql.raw.executemany(
            "UPDATE events SET position = NULL, standing = 'soft_failed' WHERE event_id = ?",
            [(event_id,) for event_id in event_ids],
        )
    database.caches.clear(database.writer.last_position)


def place_of(app: Application, event_id: str) -> tuple[EventNumber, int | None]:
    asked = select(StoredEvent.number, StoredEvent.position).where(StoredEvent.event_id == event_id)
    with app.homeserver.database.read() as tx:
        number, position = tx.sql.execute(asked).one()
        return number, position


@pytest.mark.parametrize("name", LISTS)
def test_an_event_without_position_is_in_no_list(
    app: Application, alice: Person, room_id: str, name: str
) -> None:
    root = alice.send(room_id, "a needle")
    seen, hidden = (
        [
            alice.send(room_id, "needle", **relation("m.thread", root)),
            alice.send(room_id, "needle", **relation("m.reference", root)),
            alice.send(
                room_id,
                "* needle",
                **relation("m.replace", root),
                **{"m.new_content": {"body": "x"}},
            ),
        ]
        for _ in range(2)
    )
    alice.send(room_id, "the last")
    take_out(app, hidden)

    found = LISTS[name](alice, room_id, root)

    assert any(it in found for it in (root, *seen))
    assert [it for it in hidden if it in found] == []


def test_an_event_without_position_is_not_found_by_its_id_or_time(
    app: Application, alice: Person, room_id: str
) -> None:
    alice.send(room_id, "before")
    hidden = alice.send(room_id, "hidden")
    take_out(app, [hidden])

    by_id = alice.get(path(room_id, f"event/{hidden}"))
    context = alice.get(path(room_id, f"context/{hidden}"))
    receipt = alice.post(path(room_id, f"receipt/m.read/{hidden}"), json={})
    by_time = alice.get(f"{V1}/{quote(room_id)}/timestamp_to_event?dir=b&ts={2**50}")

    assert [it.status_code for it in (by_id, context, receipt)] == [404, 404, 404]
    assert by_time.status_code == 200
    assert by_time.get_json()["event_id"] != hidden


def test_state_without_position_is_shown_as_state_alone(
    app: Application, alice: Person, room_id: str
) -> None:
    path_of_name = path(room_id, "state/m.room.name/")
    named = alice.put(path_of_name, json={"name": "Resolved"}).get_json()["event_id"]
    alice.send(room_id, "the last")
    take_out(app, [named])

    wanted = '{"room":{"timeline":{"limit":1}}}'
    initial = alice.sync(filter=wanted)["rooms"]["join"][room_id]

    assert alice.get(path_of_name).get_json() == {"name": "Resolved"}
    assert named in [it["event_id"] for it in initial["state"]["events"]]
    assert named not in [it["event_id"] for it in initial["timeline"]["events"]]
    with app.homeserver.database.read() as tx:
        found = state.find_any(tx, named)
        assert found is not None
        assert (found.position, found.standing) == (None, "soft_failed")
        assert state.find_event(tx, named) is None


def test_a_purge_deletes_events_without_position_too(
    app: Application, alice: Person, room_id: str
) -> None:
    take_out(app, [alice.send(room_id, "hidden")])

    purge.purge(app.homeserver.database, room_id, is_forced=True)

    with app.homeserver.database.read() as tx:
        left = select(StoredEvent.event_id).where(StoredEvent.room_id == room_id)
        assert tx.sql.execute(left).all() == []


def test_the_number_of_a_purged_event_is_not_used_again(
    app: Application, alice: Person, room_id: str
) -> None:
    alice.send(room_id, "the newest of all")
    with app.homeserver.database.read() as tx:
        newest = max(tx.sql.execute(select(StoredEvent.number)).scalars())
    purge.purge(app.homeserver.database, room_id, is_forced=True)

    with sqlite3.connect(app.homeserver.server.config.data_dir / "homebody.db") as connection:
        (kept,) = connection.execute("SELECT event_number FROM clock").fetchone()
    after = place_of(app, alice.send(alice.create_room(), "later"))

    assert kept >= newest
    assert after[0] > kept


def test_events_leave_places_before_them(app: Application, alice: Person, room_id: str) -> None:
    places = [place_of(app, alice.send(room_id, str(it))) for it in range(3)]

    numbers = [number for number, _ in places]
    positions = [position or 0 for _, position in places]

    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert all(later - sooner > PLACES for sooner, later in itertools.pairwise(positions))


def message(tx: Tx, room_id: str, body: str) -> tuple[Event, bytes]:
    """A message of a user of another server."""
    head = state.head(tx, room_id)
    pdu = {
        **member_pdu(room_id, "@bob:b.test", "join"),
        "type": "m.room.message",
        "content": {"body": body},
        "prev_events": head.forward_extremities,
        "depth": head.depth + 1,
    }
    del pdu["state_key"]
    return Event(f"${body}", pdu, VERSIONS[head.version]), canonical_json.encode(pdu)


def test_an_event_after_a_gap_leaves_many_places_and_an_older_one_stands_there(
    app: Application, alice: Person, room_id: str
) -> None:
    before = alice.send(room_id, "before")
    token = alice.sync()["next_batch"]
    with app.homeserver.database.write() as tx:
        start = tx.position
        after = store.store(tx, *message(tx, room_id, "after"), is_after_gap=True)
    with app.homeserver.database.write() as tx:
        event, encoded = message(tx, room_id, "between")
        number = store.set_aside(tx, event, encoded, ACCEPTED, None)
        there = update(StoredEvent).where(StoredEvent.number == number).values(position=after - 1)
        tx.sql.connection.execute(there)
        tx.forget(client_events.CLIENT_EVENTS, number)

    page = alice.get(path(room_id, "messages?dir=b&limit=3")).get_json()["chunk"]
    news = alice.sync(token)["rooms"]["join"][room_id]["timeline"]

    assert after - start > PLACES_OF_GAP
    assert [it["event_id"] for it in page] == ["$after", "$between", before]
    assert "$after" in [it["event_id"] for it in news["events"]]
