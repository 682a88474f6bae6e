"""What is left of a room when its old history is purged, and what everybody still sees of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import tasks
from homebody.core.events import search_index
from homebody.core.rooms import history_purge
from homebody.core.timeline import gaps as missing
from homebody.models.events import OUTLIER
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import sliding
from tests.helpers.gaps import gaps, page, pages
from tests.helpers.remote import Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import (
    Json,
    act,
    everything,
    ids,
    in_thread,
    membership,
    read,
    refusal,
    state_of,
)

MakeRoom = Callable[..., str]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(alice: Person, login: Login) -> Person:
    return login("bob")


def position_of(app: Application, event_id: str) -> int:
    with app.homeserver.database.read() as tx:
        row = tx.sql.raw.execute("SELECT position FROM events WHERE event_id = ?", (event_id,))
        found: int = row.fetchone()[0]
        return found


def standing_of(app: Application, event_id: str) -> tuple[int | None, str] | None:
    """(position, standing) of an event; None: it is deleted."""
    with app.homeserver.database.read() as tx:
        rows = tx.sql.raw.execute(
            "SELECT position, standing FROM events WHERE event_id = ?", (event_id,)
        ).fetchall()
    return rows[0] if rows else None


def purge(
    app: Application, room_id: str, before: str, *, delete_local_events: bool = True, **more: Any
) -> int:
    """Purge a room's history before an event."""
    return history_purge.purge_history(
        app.homeserver.database,
        room_id,
        position_of(app, before),
        delete_local_events=delete_local_events,
        **more,
    )


def messages(person: Person, room_id: str, **query: object) -> Json:
    answer = person.get(f"rooms/{quote(room_id)}/messages", query_string={"dir": "b", **query})
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_room_begins_at_the_event_and_goes_on(
    app: Application, alice: Person, bob: Person, room: MakeRoom, version: str
) -> None:
    room_id = room(alice, bob, name="Tea", room_version=version)
    old = [alice.send(room_id, f"{number}") for number in range(5)]
    old_end = messages(alice, room_id, limit=2)["end"]
    first = alice.send(room_id, "first")
    state, members = state_of(alice, room_id), alice.get(f"rooms/{quote(room_id)}/joined_members")

    deleted = purge(app, room_id, first)

    assert deleted == len(old)
    whole = messages(alice, room_id)
    assert ids(whole) == [first]
    assert "end" not in whole
    assert messages(alice, room_id, **{"from": old_end})["chunk"] == []
    assert ids(messages(alice, room_id, dir="f")) == [first]
    for path in (f"event/{quote(old[0], safe='')}", f"context/{quote(old[0], safe='')}"):
        missing = alice.get(f"rooms/{quote(room_id)}/{path}")
        assert refusal(missing) == (404, "M_NOT_FOUND")
    assert state_of(alice, room_id) == state
    again = alice.get(f"rooms/{quote(room_id)}/joined_members")
    assert again.get_json() == members.get_json()
    second = bob.send(room_id, "second")
    assert alice.set_state(room_id, "m.room.topic", {"topic": "new"}).status_code == 200
    assert act(alice, room_id, "kick", user_id=bob.user_id).status_code == 200
    assert ids(messages(alice, room_id))[-2:] == [second, first]
    timeline = alice.sync()["rooms"]["join"][room_id]["timeline"]
    assert timeline["limited"] is False
    assert messages(alice, room_id, **{"from": timeline["prev_batch"]})["chunk"] == []


def test_members_of_all_times_and_permissions_are_right_after_a_purge(
    app: Application, alice: Person, bob: Person, room: MakeRoom, login: Login
) -> None:
    room_id = room(alice, bob)
    act(bob, room_id, "leave")
    first = alice.send(room_id)
    purge(app, room_id, first)
    carol = login("carol")
    assert act(carol, room_id, "join").status_code == 200

    everybody = alice.get(f"rooms/{quote(room_id)}/members").get_json()["chunk"]
    since_ever = alice.get(f"rooms/{quote(room_id)}/members?at=s1").get_json()["chunk"]

    assert {it["state_key"]: it["content"]["membership"] for it in everybody} == {
        alice.user_id: "join",
        bob.user_id: "leave",
        carol.user_id: "join",
    }
    assert carol.user_id not in {it["state_key"] for it in since_ever}
    assert messages(bob, room_id)["chunk"] == []  # what they could read is gone
    assert bob.get(f"rooms/{quote(room_id)}/state").status_code == 200
    assert bob.sync(filter='{"room":{"include_leave":true}}')["rooms"]["leave"].keys() == {room_id}
    assert ids(messages(carol, room_id))[-1] == first


@pytest.mark.parametrize("options", [{}, {"use_state_after": "true"}])
def test_a_client_that_was_away_learns_the_state_that_it_will_not_see_in_the_timeline(
    app: Application, alice: Person, bob: Person, room: MakeRoom, options: Json
) -> None:
    room_id = room(alice, bob, topic="old")
    sliding_pos = sliding.ask(
        bob, lists={"all": {**sliding.window(9)["all"], "required_state": [["*", "*"]]}}
    )["pos"]
    since = bob.sync(**options)["next_batch"]
    alice.set_state(room_id, "m.room.topic", {"topic": "new"})
    alice.send(room_id, "old")
    first = alice.send(room_id, "first")
    purge(app, room_id, first)

    found = bob.sync(since, **options)["rooms"]["join"][room_id]

    section = found["state_after" if options else "state"]["events"]
    assert [it["content"] for it in section if it["type"] == "m.room.topic"] == [{"topic": "new"}]
    assert [it["event_id"] for it in found["timeline"]["events"]] == [first]
    lists = {"all": {**sliding.window(9)["all"], "required_state": [["*", "*"]]}}
    slid = sliding.ask(bob, sliding_pos, lists=lists)
    assert sliding.state(slid, room_id)["m.room.topic", ""] == {"topic": "new"}
    again = bob.sync(bob.sync(since, **options)["next_batch"], **options)
    assert room_id not in again.get("rooms", {}).get("join", {})


def test_the_search_and_its_index_forget_what_is_purged(
    app: Application, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice, name="needle room")
    for _ in range(3):
        alice.send(room_id, "needle")
    first = alice.send(room_id, "needle first")
    search_index.catch_up(app.homeserver.database)
    purge(app, room_id, first)

    body = {"search_categories": {"room_events": {"search_term": "needle"}}}
    found = alice.post("search", json=body).get_json()["search_categories"]["room_events"]

    assert [it["result"]["event_id"] for it in found["results"]] == [first]
    with app.homeserver.database.read() as tx:
        indexed = {row[0] for row in tx.sql.raw.execute("SELECT rowid FROM search_index")}
        numbers = {row[0] for row in tx.sql.raw.execute("SELECT number FROM events")}
    assert indexed <= numbers


def test_relations_to_purged_events_and_threads_of_purged_roots_do_no_harm(
    app: Application, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    root, kept_root = alice.send(room_id, "root"), None
    in_thread(bob, room_id, root)
    first = alice.send(room_id, "first")
    late = in_thread(bob, room_id, root)
    kept_root = alice.send(room_id, "another root")
    in_thread(bob, room_id, kept_root)
    edit = {"rel_type": "m.replace", "event_id": root}
    alice.send(room_id, "* changed", **{"m.new_content": {"body": "x"}, "m.relates_to": edit})
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "+"}}
    bob.put(f"rooms/{quote(room_id)}/send/m.reaction/r", json=reaction)
    purge(app, room_id, first)

    threads = alice.get(f"/_matrix/client/v1/rooms/{quote(room_id)}/threads").get_json()
    related = f"/_matrix/client/v1/rooms/{quote(room_id)}/relations/"

    assert ids(threads) == [kept_root]
    assert ids(alice.get(f"{related}{quote(kept_root)}").get_json())
    assert alice.get(f"{related}{quote(root)}").status_code in {200, 404}
    assert late in ids(messages(alice, room_id, limit=99))
    read(alice, room_id, late)
    assert alice.send(room_id, "on", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})


def test_unread_counts_notifications_and_receipts_are_right(
    app: Application, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    read_upto = alice.send(room_id, "read")
    read(bob, room_id, read_upto)
    bob.post(f"rooms/{quote(room_id)}/read_markers", json={"m.fully_read": read_upto})
    alice.send(room_id, f"{bob.user_id}", **{"m.mentions": {"user_ids": [bob.user_id]}})
    alice.send(room_id, "old")
    first = alice.send(room_id, "first")
    alice.send(room_id, "second")
    before = bob.sync()["rooms"]["join"][room_id]["unread_notifications"]
    purge(app, room_id, first)

    joined = bob.sync()["rooms"]["join"][room_id]
    notified = bob.get("notifications").get_json()["notifications"]

    assert before == {"notification_count": 4, "highlight_count": 1}
    assert joined["unread_notifications"] == {"notification_count": 2, "highlight_count": 0}
    assert [it["event"]["content"]["body"] for it in notified] == ["second", "first"]
    read(bob, room_id, first)
    joined = bob.sync()["rooms"]["join"][room_id]
    assert joined["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    marked = bob.post(f"rooms/{quote(room_id)}/read_markers", json={"m.fully_read": first})
    assert marked.status_code == 200
    path = f"user/{bob.user_id}/rooms/{quote(room_id)}/account_data/m.fully_read"
    assert bob.get(path).get_json() == {"event_id": first}


def test_reports_of_purged_events_stay(
    app: Application, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    said = alice.send(room_id, "insult")
    bob.post(f"rooms/{quote(room_id)}/report/{quote(said)}", json={"reason": "rude"})
    first = alice.send(room_id)
    before = everything(app)["reports"]
    purge(app, room_id, first)

    assert everything(app)["reports"] == before


def test_redactions_of_state_stay_and_the_others_go(
    app: Application, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    topic = alice.set_state(room_id, "m.room.topic", {"topic": "bad"}).get_json()["event_id"]
    said = alice.send(room_id)
    redactions = [
        alice.put(f"rooms/{quote(room_id)}/redact/{quote(it)}/{n}", json={}).get_json()["event_id"]
        for n, it in enumerate((topic, said))
    ]
    first = alice.send(room_id)
    with app.homeserver.database.write() as tx:
        number = "SELECT number FROM events WHERE event_id = ?"
        (waiting,) = tx.sql.raw.execute(number, (redactions[1],)).fetchone()
        tx.sql.raw.execute(
            "INSERT INTO pending_redactions (target_id, redaction, room_id) VALUES ('$t', ?, ?)",
            (waiting, room_id),
        )
    purge(app, room_id, first)

    assert standing_of(app, said) is None
    assert standing_of(app, redactions[1]) is None
    assert standing_of(app, redactions[0]) == (None, OUTLIER)
    assert everything(app)["pending_redactions"] == []
    found = alice.get(f"rooms/{quote(room_id)}/state").get_json()
    (shown,) = [it for it in found if it["type"] == "m.room.topic"]
    assert shown["content"] == {}
    assert shown["unsigned"]["redacted_because"]["event_id"] == redactions[0]


def test_what_local_users_have_sent_is_kept_but_not_shown_unless_it_is_to_go(
    app: Application, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    said = alice.send(room_id)
    first = alice.send(room_id)

    assert purge(app, room_id, first, delete_local_events=False) == 0

    assert standing_of(app, said) == (None, OUTLIER)
    assert ids(messages(alice, room_id)) == [first]
    missing = alice.get(f"rooms/{quote(room_id)}/event/{quote(said)}")
    assert refusal(missing) == (404, "M_NOT_FOUND")


def test_the_newest_event_stays_and_positions_between_events_will_do(
    app: Application, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    said = [alice.send(room_id, f"{number}") for number in range(3)]
    database = app.homeserver.database

    between = position_of(app, said[1]) - 7
    history_purge.purge_history(database, room_id, between, delete_local_events=True)
    assert ids(messages(alice, room_id)) == said[:0:-1]
    history_purge.purge_history(database, room_id, 2**60, delete_local_events=True)
    assert ids(messages(alice, room_id)) == said[2:]
    assert history_purge.purge_history(database, room_id, 0, delete_local_events=True) == 0
    assert alice.send(room_id)


def test_an_interrupted_purge_leaves_the_room_whole_and_goes_on(
    app: Application, alice: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_purge, "EVENTS_AT_ONCE", 3)
    room_id = room(alice)
    said = [alice.send(room_id, f"{number}") for number in range(20)]

    def stop(_so_far: Json) -> None:
        raise InterruptedError

    left = []
    for _ in range(4):
        with pytest.raises(InterruptedError):
            purge(app, room_id, said[-2], report=stop)
        left.append(len(ids(messages(alice, room_id, limit=99))))
        alice.send(room_id)
    purge(app, room_id, said[-2])

    assert left == sorted(left, reverse=True)
    assert ids(messages(alice, room_id, limit=99))[4:] == said[:-3:-1]


def test_one_room_is_purged_and_no_other(app: Application, alice: Person, room: MakeRoom) -> None:
    room_id, other = room(alice), room(alice)
    said = alice.send(other, "stays")
    alice.send(room_id)
    before = [ids(messages(alice, other)), state_of(alice, other)]

    purge(app, room_id, alice.send(room_id))

    assert [ids(messages(alice, other)), state_of(alice, other)] == before
    assert standing_of(app, said) is not None


def test_the_bytes_are_free_again(
    app: Application, alice: Person, room: MakeRoom, tmp_path: Path
) -> None:
    room_id = room(alice)
    for number in range(150):
        alice.send(room_id, f"{number} " + "x" * 5000)
    first = alice.send(room_id)
    size = _size_after_vacuum(tmp_path)
    purge(app, room_id, first)

    assert _size_after_vacuum(tmp_path) < size - 150 * 5000


def _size_after_vacuum(folder: Path) -> int:
    copy = folder / "copy.db"
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(folder / "homebody.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    return copy.stat().st_size


# --- with other servers


@pytest.fixture
def shared(remote: Remotes, alice: Person) -> RemoteRoom:
    """A room of b.test that Alice has joined."""
    b = remote("b.test")
    found = b.room()
    for number in range(30):
        found.message(f"before {number}")
    assert alice.post(f"join/{quote(found.id)}?via=b.test").status_code == 200
    return found


def test_nothing_is_fetched_again_from_other_servers(
    app: Application, alice: Person, shared: RemoteRoom
) -> None:
    b = shared.remote
    assert pages(alice, shared.id, 10)
    for number in range(5):
        b.send(shared.message(f"{number}"))
    first = alice.send(shared.id, "first")
    purge(app, shared.id, first)
    asked = len(b.received("/backfill/") + b.received("/timestamp_to_event/"))

    assert ids(page(alice, shared.id)) == [first]
    nearest = f"/_matrix/client/v1/rooms/{quote(shared.id)}/timestamp_to_event?dir=b&ts=1"
    assert alice.get(nearest).status_code == 404
    assert len(b.received("/backfill/") + b.received("/timestamp_to_event/")) == asked
    assert gaps(app) == {}


def test_a_gap_below_the_first_event_is_forgotten(
    app: Application, alice: Person, shared: RemoteRoom
) -> None:
    first = alice.send(shared.id, "first")
    assert gaps(app) != {}
    purge(app, shared.id, first)

    assert gaps(app) == {}
    assert ids(page(alice, shared.id)) == [first]
    assert not shared.remote.received("/backfill/")


def test_events_of_other_servers_come_in_and_the_state_and_auth_chains_are_served(
    app: Application, alice: Person, shared: RemoteRoom
) -> None:
    b = shared.remote
    for number in range(5):
        b.send(shared.message(f"{number}"))
    shared.set_state("m.room.topic", {"topic": "old"})
    topic = shared.set_state("m.room.topic", {"topic": "new"})
    b.send(*[it for it in shared.events.values() if it.type == "m.room.topic"])
    first = shared.message("first")
    assert b.send(first) == {first.event_id: {}}
    purge(app, shared.id, first.event_id)

    message = shared.message("second")
    assert b.send(message) == {message.event_id: {}}
    renamed = shared.set_state("m.room.name", {"name": "new"})
    assert b.send(renamed) == {renamed.event_id: {}}
    mine = alice.send(shared.id, "third")

    state = b.get("v1", "state_ids", shared.id, query={"event_id": mine}).json
    chain = b.get("v1", "event_auth", shared.id, mine).json["auth_chain"]
    older = b.get("v1", "backfill", shared.id, query={"v": first.event_id, "limit": "10"}).json
    assert set(state["pdu_ids"]) == {it.event_id for it in shared.state.values()}
    assert topic.event_id in state["pdu_ids"]
    assert set(state["auth_chain_ids"]) <= shared.events.keys()
    assert {it["type"] for it in chain} >= {"m.room.create", "m.room.member"}
    assert len(older["pdus"]) == 1
    assert state_of(alice, shared.id)["m.room.name", ""] == {"name": "new"}


def test_a_fork_from_before_the_purge_is_resolved(
    app: Application, alice: Person, shared: RemoteRoom
) -> None:
    b = shared.remote
    base = shared.message("base")
    b.send(base)
    for number in range(3):
        b.send(shared.message(f"{number}"))
    first = shared.message("first")
    b.send(first)
    purge(app, shared.id, first.event_id)
    late = shared.event("m.room.topic", {"topic": "late"}, "", prev=[base])

    b.send(late)
    after = shared.message("after")
    b.send(after)

    def has_come() -> bool:
        return after.event_id in ids(page(alice, shared.id))

    b.wait_until(has_come)
    assert state_of(alice, shared.id)["m.room.topic", ""] == {"topic": "late"}
    assert membership(alice, shared.id, alice.user_id)["membership"] == "join"


def test_the_ends_of_a_forked_room_stay(
    app: Application, alice: Person, shared: RemoteRoom
) -> None:
    b = shared.remote
    base = shared.message("base")
    b.send(base)
    left = shared.message("left", prev=[base])
    right = [shared.message("right 0", prev=[base])]
    right += [shared.message(f"right {number}", prev=[right[-1]]) for number in (1,)]
    b.send(left)
    for event in right:
        b.send(event)

    purge(app, shared.id, right[-1].event_id)

    assert {left.event_id, right[-1].event_id} <= set(ids(page(alice, shared.id)))
    assert alice.send(shared.id)


def test_a_task_ends_when_the_server_stops_and_counts_on_afterwards(
    app: Application, alice: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_purge, "EVENTS_AT_ONCE", 10)
    room_id, database = room(alice), app.homeserver.database
    said = [alice.send(room_id, f"{number}") for number in range(30)]
    with database.write() as ordering:
        before = history_purge.bound_at_event(ordering, room_id, said[-1])
        task_id = history_purge.order(ordering, "@a:b", room_id, before, delete_local_events=True)

    def stop(so_far: Json) -> None:
        with database.write() as writing:
            tasks.record(writing, task_id, tasks.ACTIVE, result=so_far)
        raise InterruptedError

    with database.read() as tx:
        task = tasks.find(tx, task_id)
    with pytest.raises(InterruptedError):
        history_purge.run(database, task, stop)
    with database.read() as tx:
        task = tasks.find(tx, task_id)
    done = history_purge.run(database, task, lambda _so_far: None)

    assert 0 < (task.result or {})["events"] < 29
    assert done == {"events": 29}


def test_a_cancelled_purge_forgets_only_what_is_missing_before_the_room_begins_now(
    app: Application, alice: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_purge, "EVENTS_AT_ONCE", 10)
    room_id, database = room(alice), app.homeserver.database
    said = [alice.send(room_id, f"{number}") for number in range(30)]
    with database.write() as tx:
        early, late = (history_purge.bound_at_event(tx, room_id, said[at]) for at in (1, 25))
        missing.add(tx, room_id, ["$early"], early)
        missing.add(tx, room_id, ["$late"], late)
        task_id = history_purge.order(tx, "@a:b", room_id, late + 1, delete_local_events=True)
    with database.write() as tx:
        tasks.cancel(tx, "@a:b", task_id)

    def report(so_far: Json) -> None:
        with database.write() as writing:
            tasks.record(writing, task_id, tasks.ACTIVE, result=so_far)

    with database.read() as reader:
        task = tasks.find(reader, task_id)
    with pytest.raises(tasks.CancelledError):
        history_purge.run(database, task, report)

    with database.read() as reader:
        assert missing.at(reader, room_id, early) is None
        assert missing.at(reader, room_id, late) is not None
    shown = ids(page(alice, room_id, limit=100))
    assert said[-1] in shown
    assert said[0] not in shown
