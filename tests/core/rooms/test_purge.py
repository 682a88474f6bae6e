"""Rooms as their owner sees them, and how one is removed for good."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from homebody import models
from homebody.cli import main
from homebody.core import incoming, joining, partial_rooms
from homebody.core.events import search_index, stripped_state
from homebody.core.events.state import RoomHead
from homebody.core.joining import Join
from homebody.core.partial_rooms import PartialRoom
from homebody.core.rooms import purge
from homebody.core.timeline import forks, gaps, store
from homebody.core.timeline.forks import Point
from homebody.core.user_data import thread_subscriptions
from homebody.errors import MatrixError
from homebody.models.rooms import Room
from homebody.runtime import event_loop
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import large_room as large_room_of
from tests.helpers import live, server
from tests.helpers.backups import homebody_apart
from tests.helpers.rooms import act, everything, refusal

MakeRoom = Callable[..., str]
Run = Callable[..., Result]
OWN = {"backed_up_keys", "blocked_rooms"}
"""Tables of what users keep for themselves (keys that only they can read), and of administrators'
blocks, which are for rooms that are gone."""


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove rooms at once in this process, without the time for devices to be notified."""
    monkeypatch.setattr(purge, "wait_for_clients", lambda: None)


@pytest.fixture
def run(app: Application, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("list")`: `homebody rooms list` beside the server of the test."""
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.homeserver.database.server.config.data_dir))

    def start(*words: str) -> Result:
        result = CliRunner().invoke(main, ["rooms", *words])
        app.homeserver.database.notice_other_writers()
        return result

    return start


def full_room(app: Application, alice: Person, bob: Person, room: MakeRoom) -> str:
    """A room that has left something in every table that knows rooms."""
    room_id: str = room(alice, bob, room_alias_name="tea", name="Tea party")
    at = f"rooms/{quote(room_id)}"
    said = alice.send(room_id, "needle in the hay")
    bob.post(f"{at}/receipt/m.read/{quote(said)}")
    alice.send(room_id, f"{bob.user_id} bob: unread")
    alice.put(f"directory/list/room/{quote(room_id)}", json={"visibility": "public"})
    bob.put(f"user/{bob.user_id}/rooms/{quote(room_id)}/tags/u.tea", json={})
    bob.post(f"{at}/report/{quote(said)}", json={"reason": "cold"})
    alice.send(alice.create_room(), "needle elsewhere")
    with app.homeserver.database.write() as tx:
        for statement in (
            "INSERT INTO server_notice_rooms (user_id, room_id) VALUES ('@bob:localhost', ?)",
            "INSERT INTO forgotten_rooms (user_id, room_id) VALUES ('@gone:localhost', ?)",
            "INSERT INTO pending_redactions (target_id, redaction, room_id) VALUES ('$t', 1, ?)",
            "INSERT INTO network_rooms (service_id, network_id, room_id) VALUES ('i', 'n', ?)",
            "INSERT INTO sticky_events (room_id, number, position, sender, until_ts)"
            " VALUES (?, 1, 1, '@bob:localhost', 1)",
            "INSERT INTO delayed_events (room_id, delay_id, user_id, device_id, type, content,"
            " delay_ms, scheduled_ts) VALUES (?, 'd', '@bob:localhost', '', 'm.x', '{}', 1, 1)",
        ):
            tx.sql.raw.execute(statement, (room_id,))
        incoming.keep(tx, "b.test", room_id, [("$early", "{}")])
        joining.begin(tx, Join(room_id, bob.user_id, "$join", "{}", ["b.test"]))
        joined = PartialRoom(room_id, "$join", frozenset(["b.test"]), ["b.test"])
        partial_rooms.begin(tx, joined)
        partial_rooms.make_full(tx, room_id, tx.position)
        thread_subscriptions.subscribe(tx, bob.user_id, room_id, said, None)
        stripped_state.put(tx, room_id, bob.user_id, [], ["b.test"])
        topic = Point(tx.position, {("m.room.topic", ""): None})
        forks.keep(tx, room_id, topic, tx.next_event()[0])
        gaps.add(tx, room_id, ["$older"], 1)
    search_index.catch_up(app.homeserver.database)
    return room_id


def left_of(app: Application, room_id: str) -> dict[str, int]:
    """{table: how many of its rows name the room}, of all tables that can name one.

    Where it is named by its number, those that are of no other room.
    """
    others = select(Room.number).where(Room.room_id != room_id)
    queries = {
        table.name: select(table).where(
            table.c.room_id == room_id
            if "room_id" in table.columns
            else table.c.room_number.not_in(others)
        )
        for table in models.all_tables().sorted_tables
        if {"room_id", "room_number"} & {*table.columns.keys()} and table.name not in OWN
    }
    with app.homeserver.database.read() as tx:
        return {name: len(tx.sql.execute(query).all()) for name, query in queries.items()}


def numbers_of(app: Application, room_id: str) -> list[int]:
    with app.homeserver.database.read() as tx:
        found = tx.sql.raw.execute("SELECT number FROM events WHERE room_id = ?", (room_id,))
        return [number for (number,) in found]


def test_nothing_is_left_of_a_purged_room_in_any_table(
    app: Application, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = full_room(app, alice, bob, room)
    before, positions = left_of(app, room_id), numbers_of(app, room_id)

    removed = purge.purge(app.homeserver.database, room_id, is_forced=True)

    assert {name for name, count in before.items() if count == 0} == {"removed_rooms"}
    assert left_of(app, room_id) == dict.fromkeys(before, 0)
    assert removed == len(positions) + 2  # two users left
    with app.homeserver.database.read() as tx:
        indexed = tx.sql.raw.execute("SELECT rowid FROM search_index").fetchall()
    assert not {rowid for (rowid,) in indexed} & set(positions)
    assert indexed != []


def test_a_room_with_the_number_of_a_purged_one_has_nothing_else_of_it(
    app: Application, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    purged = room(alice, bob, name="Tea party")
    numbers = "SELECT room_id, number FROM rooms"
    with app.homeserver.database.read() as tx:
        before = dict(tx.sql.raw.execute(numbers).fetchall())

    purge.purge(app.homeserver.database, purged, is_forced=True)
    new = room(alice)

    with app.homeserver.database.read() as tx:
        assert dict(tx.sql.raw.execute(numbers).fetchall()) == {new: before[purged]}
    # neither its name nor who had been there
    assert alice.sync()["rooms"]["join"][new]["summary"]["m.heroes"] == []


def test_no_cache_knows_a_purged_room(app: Application, login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = full_room(app, alice, bob, room)
    at = f"rooms/{quote(room_id)}"
    event_id = alice.send(room_id)
    token = alice.sync()["next_batch"]

    purge.purge(app.homeserver.database, room_id, is_forced=True)

    sync = alice.sync(token)
    assert sync["rooms"]["join"] == {}
    assert room_id not in alice.get("joined_rooms").get_json()["joined_rooms"]
    assert refusal(alice.get(f"{at}/state")) == (403, "M_FORBIDDEN")
    assert refusal(alice.get(f"{at}/messages?dir=b")) == (403, "M_FORBIDDEN")
    assert refusal(alice.get(f"{at}/event/{quote(event_id)}")) == (404, "M_NOT_FOUND")
    assert refusal(act(bob, room_id, "join")) == (404, "M_NOT_FOUND")
    assert refusal(alice.get("directory/room/%23tea:localhost")) == (404, "M_NOT_FOUND")
    listed = alice.get("publicRooms").get_json()["chunk"]
    assert room_id not in [entry["room_id"] for entry in listed]


def test_nothing_of_it_is_left_in_memory(app: Application, login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = full_room(app, alice, bob, room)
    for person in (alice, bob):
        person.sync()
        person.get(f"rooms/{quote(room_id)}/messages?dir=b")
    before, positions = cached(app), numbers_of(app, room_id)

    purge.purge(app.homeserver.database, room_id, is_forced=True)

    def knows(entry: tuple[str, Any, Any]) -> bool:
        name, key, value = entry
        if name == "state" and value.event is None:  # that the room has no such state is still so
            return False
        told = value if isinstance(value, frozenset) else ()
        return room_id in (key if isinstance(key, tuple) else (key, *told)) or (
            name == "client_events" and key in positions
        )

    assert {entry[0] for entry in before if knows(entry)} == {
        "client_events",
        "joined_rooms",
        "member_names",
        "joined",
        "members",
        "rooms",
        "state",
    }
    assert [entry[:2] for entry in cached(app) if knows(entry)] == []


def cached(app: Application) -> list[tuple[str, Any, Any]]:
    """(cache, key, value) of everything that is kept in memory."""
    return [
        (cache.name, key, value)
        for cache in app.homeserver.database.caches.all()
        for key, value in cache.entries()
    ]


def test_the_alias_is_free_and_other_rooms_are_as_they_were(
    app: Application, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    other = room(bob, alice)
    said = bob.send(other, "needle")
    room_id = full_room(app, alice, bob, room)

    purge.purge(app.homeserver.database, room_id, is_forced=True)

    room(alice, room_alias_name="tea")
    body = {"search_categories": {"room_events": {"search_term": "needle"}}}
    found = bob.post("search", json=body).get_json()["search_categories"]["room_events"]
    assert [hit["result"]["event_id"] for hit in found["results"]] == [said]


def test_while_people_are_in_it_a_room_stays(
    app: Application, login: Login, room: MakeRoom, run: Run
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    before = everything(app)

    refused = run("purge", room_id, "--yes")
    kept = everything(app)
    act(alice, room_id, "leave")
    act(bob, room_id, "leave")
    done = run("purge", room_id, "--yes")

    assert refused.exit_code == 1
    assert "@alice:localhost, @bob:localhost would have to leave the room first" in refused.output
    assert kept == before
    assert done.exit_code == 0, done.output
    assert sum(left_of(app, room_id).values()) == 0


def test_with_force_users_leave_before_the_room_is_gone(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    act(alice, room_id, "invite", user_id=bob.user_id)
    token = alice.sync()["next_batch"]
    seen: list[Any] = []

    def look() -> None:
        seen.append(alice.sync(token)["rooms"]["leave"])
        seen.append(bob.sync()["rooms"]["invite"])

    monkeypatch.setattr(purge, "wait_for_clients", look)
    purge.purge(app.homeserver.database, room_id, is_forced=True)

    assert [list(section) for section in seen] == [[room_id], []]


def test_a_waiting_sync_hears_of_the_leave_before_the_room_is_gone(tmp_path: Path) -> None:
    running = server.start(tmp_path)
    try:
        alice = live.Person(running, "alice")
        room_id = alice.create_room(preset="public_chat")
        since = alice.ask("GET", "/sync?set_presence=offline")["next_batch"]

        alice.begin_to_ask("GET", f"/sync?timeout=30000&set_presence=offline&since={since}")
        done = homebody_apart(tmp_path, "rooms", "purge", room_id, "--force", "--yes")
        _, answer = alice.answer()

        assert done.returncode == 0, done.stderr
        assert list(json.loads(answer)["rooms"]["leave"]) == [room_id]
        alice.close()
    finally:
        running.stop()


def large_room(app: Application, alice: Person, room: MakeRoom) -> str:
    """A room that alice has left, with some messages, and members of other servers."""
    room_id = room(alice)
    for number in range(3):
        alice.send(room_id, f"message {number}")
    large_room_of.add_members(app, room_id, large_room_of.remote_users(30))
    act(alice, room_id, "leave")
    return room_id


class Death(Exception):  # noqa: N818 - what a kill is
    """The process is killed between two writes."""


def purge_until(
    app: Application, room_id: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, int]:
    """Begin to purge a room, and be killed after some writes; return what is left then."""
    monkeypatch.setattr(purge, "EVENTS_AT_ONCE", 10)
    monkeypatch.setattr(purge, "ROWS_AT_ONCE", 10)
    pauses = itertools.count()

    def die() -> None:
        if next(pauses) == step:
            raise Death

    with monkeypatch.context() as patch:
        patch.setattr(event_loop, "pause", die)
        with pytest.raises(Death):
            purge.purge(app.homeserver.database, room_id)
    app.homeserver.database.caches.clear(app.homeserver.database.writer.last_position)
    return {name: count for name, count in left_of(app, room_id).items() if count}


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 6, 8])
def test_an_interrupted_purge_can_be_asked_for_again(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    room_id = large_room(app, login("alice"), room)
    database = app.homeserver.database

    halfway = purge_until(app, room_id, step, monkeypatch)
    purge.purge(database, room_id)

    assert {"removed_rooms", "events"} <= halfway.keys()
    rest = {"removed_rooms", "events", "state_intervals", "event_auth", "receipts"}
    assert halfway.keys() <= rest
    assert step > 1 or halfway["state_intervals"] >= 10, "not in one write"
    assert sum(left_of(app, room_id).values()) == 0
    with pytest.raises(MatrixError, match="There is no room"):
        purge.purge(database, room_id)


def test_an_interrupted_purge_is_finished_by_the_upkeep(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = large_room(app, login("alice"), room)
    purge_until(app, room_id, 1, monkeypatch)

    assert purge.finish(app.homeserver.database) == 1

    assert sum(left_of(app, room_id).values()) == 0
    assert purge.finish(app.homeserver.database) == 0


def test_while_a_room_is_being_deleted_it_is_not_there_and_no_other_gets_its_number(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = large_room(app, alice, room)
    last_number = numbered(app)[room_id]
    purge_until(app, room_id, 0, monkeypatch)

    other = room(bob)
    with (
        pytest.raises(MatrixError, match="is being deleted") as refused,
        app.homeserver.database.write() as tx,
    ):
        store.add_room(tx, room_id, RoomHead("11", [], 0))

    assert refused.value.status == 503
    assert numbered(app) == {other: last_number + 1}
    assert bob.get("joined_rooms").get_json() == {"joined_rooms": [other]}
    for path in ("state", "messages?dir=b", "members"):
        assert alice.get(f"rooms/{quote(room_id)}/{path}").status_code in {403, 404}
    purge.purge(app.homeserver.database, room_id)
    assert len(bob.get(f"rooms/{quote(other)}/members").get_json()["chunk"]) == 1
    with app.homeserver.database.write() as tx:
        store.add_room(tx, room_id, RoomHead("11", [], 0))  # as a join does


def test_a_purge_that_another_one_has_ended_touches_no_later_room(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = large_room(app, alice, room)
    number, database = numbered(app)[room_id], app.homeserver.database
    monkeypatch.setattr(purge, "ROWS_AT_ONCE", 1)
    later: list[str] = []
    before: dict[str, int] = {}

    def overtake(_count: int) -> None:
        if not later:
            purge.finish(database)
            later.append(room(bob))
            before.update(left_of(app, later[0]))

    purge.purge(database, room_id, report=overtake)

    assert numbered(app) == {later[0]: number}
    assert left_of(app, later[0]) == before


def numbered(app: Application) -> dict[str, int]:
    with app.homeserver.database.read() as tx:
        return {
            row.room_id: row.number for row in tx.sql.execute(select(Room.room_id, Room.number))
        }


def test_the_list_shows_what_an_owner_wants_to_know(login: Login, room: MakeRoom, run: Run) -> None:
    alice, bob = login("alice"), login("bob")
    first = room(alice, bob, name="Tea party", room_alias_name="tea")
    second = room(bob)
    bob.send(first)

    told = orjson.loads(run("list", "--json").stdout)
    lines = run("list").stdout.splitlines()

    assert [entry["room_id"] for entry in told] == [first, second]
    tea, other = told
    assert (tea["name"], tea["canonical_alias"]) == ("Tea party", "#tea:localhost")
    assert (other["name"], other["canonical_alias"]) == (None, None)
    assert (tea["joined_members"], other["joined_members"]) == (2, 1)
    assert tea["events"] > other["events"] > 4
    assert tea["last_event_ts"] >= other["last_event_ts"] > 0
    assert len(lines) == 2
    assert lines[0].startswith(f"{first}  Tea party  2 members, {tea['events']} events, last ")


def test_the_command_asks_and_tells(login: Login, room: MakeRoom, run: Run) -> None:
    alice = login("alice")
    room_id = room(alice)

    asked = run("purge", room_id)
    forced = run("purge", room_id, "--force", "--yes", "--json")
    again = run("purge", room_id, "--yes")

    assert asked.exit_code == 1
    assert orjson.loads(forced.stdout)["room_id"] == room_id
    assert orjson.loads(forced.stdout)["events"] > 4
    assert (again.exit_code, "There is no room" in again.output) == (1, True)
