"""Deleting rooms and their history by the admin API, with the status of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from homebody.core import audit, tasks
from homebody.core.rooms import deletion, history_purge, purge
from homebody.core.rooms.deletion import Deletion
from homebody.core.timeline import sending
from homebody.storage.database import Tx
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, ids, membership, refusal, state_of, unchanged
from tests.helpers.waiting import wait_for

MakeRoom = Callable[..., str]
ADMIN = "/_synapse/admin"
UNKNOWN = "!unknown:localhost"
NOTHING: Json = {
    "kicked_users": [],
    "failed_to_kick_users": [],
    "local_aliases": [],
    "new_room_id": None,
}


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove rooms without the time for devices to be notified."""
    monkeypatch.setattr(purge, "wait_for_clients", lambda: None)


@pytest.fixture
def running(app: Application) -> Iterator[None]:
    """Run the tasks that are ordered."""
    app.homeserver.database.deliver = lambda _kind, _name: app.homeserver.tasks.notify()
    app.homeserver.tasks.start()
    yield
    app.homeserver.tasks.stop()


def v1(room_id: str) -> str:
    return f"{ADMIN}/v1/rooms/{quote(room_id)}"


def v2(room_id: str) -> str:
    return f"{ADMIN}/v2/rooms/{quote(room_id)}"


def body(answer: object) -> Json:
    found: Json = answer.get_json()  # type: ignore[attr-defined] # a response
    assert answer.status_code == 200, found  # type: ignore[attr-defined]
    return found


def ended(admin: Person, path: str) -> Json:
    """The status of a task that has ended."""
    wait_for(lambda: body(admin.get(path))["status"] in {"complete", "failed"})
    return body(admin.get(path))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", v1(UNKNOWN)),
        ("DELETE", v2(UNKNOWN)),
        ("POST", f"{v1(UNKNOWN)}/delete"),
        ("GET", f"{v2(UNKNOWN)}/delete_status"),
        ("GET", f"{ADMIN}/v2/rooms/delete_status/x"),
        ("POST", f"{ADMIN}/v1/purge_history/{quote(UNKNOWN)}"),
        ("GET", f"{ADMIN}/v1/purge_history_status/x"),
    ],
)
def test_only_administrators_may_call_it(
    app: Application, alice: Person, method: str, path: str
) -> None:
    with unchanged(app):
        assert refusal(alice.client.open(path, method=method)) == (401, "M_MISSING_TOKEN")
        assert refusal(alice.request(method, path, data=b"{")) == (403, "M_FORBIDDEN")


def test_a_deleted_room_is_gone_when_the_first_version_answers(
    app: Application, admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, admin)
    act(alice, room_id, "invite", user_id=bob.user_id)
    since = alice.sync()["next_batch"]

    done = body(admin.delete(v1(room_id), json={}))

    assert done == {**NOTHING, "kicked_users": sorted([admin.user_id, alice.user_id, bob.user_id])}
    assert refusal(admin.get(v1(room_id))) == (404, "M_NOT_FOUND")
    assert room_id not in alice.sync(since)["rooms"]["join"]
    assert body(admin.get(f"{v1(room_id)}/block")) == {"block": False}
    with app.homeserver.database.read() as tx:
        (entry,) = audit.latest(tx, 1)
    assert (entry["action"], entry["subject"]) == ("room.delete", room_id)


def test_users_of_a_deleted_room_find_themselves_in_a_new_one(
    admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, bob, room_alias_name="tea", room_version="10")
    alice.set_state(room_id, "m.room.canonical_alias", {"alias": "#tea:localhost"})

    done = body(
        admin.delete(
            v1(room_id),
            json={
                "new_room_user_id": admin.user_id,
                "room_name": "Gone",
                "message": "Read the rules",
                "block": True,
            },
        )
    )

    new = done["new_room_id"]
    assert done["kicked_users"] == sorted([alice.user_id, bob.user_id])
    assert done["local_aliases"] == ["#tea:localhost"]
    found = state_of(bob, new)
    assert found["m.room.name", ""] == {"name": "Gone"}
    assert found["m.room.canonical_alias", ""] == {"alias": "#tea:localhost"}
    assert body(bob.get(f"directory/room/{quote('#tea:localhost')}"))["room_id"] == new
    messages = body(bob.get(f"rooms/{quote(new)}/messages?dir=b"))["chunk"]
    assert "Read the rules" in [it["content"].get("body") for it in messages]
    refused = bob.put(f"rooms/{quote(new)}/send/m.room.message/1", json={"body": "why?"})
    assert refusal(refused) == (403, "M_FORBIDDEN")
    assert body(admin.get(f"{v1(room_id)}/block"))["block"] is True
    members = body(admin.get(f"{v1(new)}/members"))["members"]
    assert members == sorted([admin.user_id, alice.user_id, bob.user_id])


def test_a_room_can_be_shut_without_a_purge(admin: Person, alice: Person, room: MakeRoom) -> None:
    room_id = room(alice)

    done = body(admin.post(f"{v1(room_id)}/delete", json={"purge": False}))

    assert done["kicked_users"] == [alice.user_id]
    assert body(admin.get(v1(room_id)))["joined_members"] == 0


def test_an_unknown_room_is_blocked_and_nothing_else(admin: Person) -> None:
    assert body(admin.delete(v1(UNKNOWN), json={})) == NOTHING
    assert body(admin.get(f"{v1(UNKNOWN)}/block")) == {"block": False}
    assert body(admin.delete(v1(UNKNOWN), json={"block": True})) == NOTHING
    assert body(admin.get(f"{v1(UNKNOWN)}/block"))["block"] is True


@pytest.mark.parametrize("path", [v1(UNKNOWN), v2(UNKNOWN)])
@pytest.mark.parametrize(
    ("json", "expected"),
    [
        (None, (400, "M_NOT_JSON")),
        ({"block": 1}, (400, "M_BAD_JSON")),
        ({"purge": "no"}, (400, "M_BAD_JSON")),
        ({"force_purge": "yes"}, (400, "M_BAD_JSON")),
        ({"new_room_user_id": "@nobody:localhost"}, (400, "M_UNKNOWN")),
        ({"new_room_user_id": "@owner:elsewhere.test"}, (400, "M_UNKNOWN")),
    ],
)
def test_a_wrong_deletion_changes_nothing(
    app: Application, admin: Person, path: str, json: Json | None, expected: tuple[int, str]
) -> None:
    with unchanged(app):
        answer = admin.delete(path) if json is None else admin.delete(path, json=json)
        assert refusal(answer) == expected
        nonsense = path.replace(quote(UNKNOWN), "nonsense")
        assert refusal(admin.delete(nonsense, json={})) == (400, "M_INVALID_PARAM")


def test_the_second_version_answers_at_once_and_tells_how_far_it_is(
    admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    delete_id = body(admin.delete(v2(room_id), json={}))["delete_id"]

    status = body(admin.get(f"{ADMIN}/v2/rooms/delete_status/{delete_id}"))

    assert status == {
        "delete_id": delete_id,
        "room_id": room_id,
        "status": "scheduled",
        "shutdown_room": NOTHING,
    }
    assert refusal(admin.delete(v2(room_id), json={})) == (400, "M_UNKNOWN")
    assert refusal(admin.delete(v1(room_id), json={})) == (400, "M_UNKNOWN")


@pytest.mark.usefixtures("running")
def test_the_second_version_deletes_in_the_background(
    admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    options = {"new_room_user_id": admin.user_id}
    delete_id = body(admin.delete(v2(room_id), json=options))["delete_id"]

    status = ended(admin, f"{ADMIN}/v2/rooms/delete_status/{delete_id}")
    again = body(admin.delete(v2(room_id), json={}))["delete_id"]  # is unknown now
    second = ended(admin, f"{ADMIN}/v2/rooms/delete_status/{again}")
    all_of_it = body(admin.get(f"{v2(room_id)}/delete_status"))["results"]

    assert status["status"] == second["status"] == "complete"
    assert status["shutdown_room"]["kicked_users"] == [alice.user_id]
    assert second["shutdown_room"] == NOTHING
    assert [it["delete_id"] for it in all_of_it] == [delete_id, again]
    assert refusal(admin.get(v1(room_id))) == (404, "M_NOT_FOUND")
    assert membership(alice, status["shutdown_room"]["new_room_id"], alice.user_id)


@pytest.mark.usefixtures("running")
def test_a_deletion_that_fails_says_why(
    admin: Person, alice: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = room(alice)
    monkeypatch.setattr(sending, "force_leave", lambda *_: None)

    delete_id = body(admin.delete(v2(room_id), json={}))["delete_id"]

    status = ended(admin, f"{ADMIN}/v2/rooms/delete_status/{delete_id}")
    assert status["status"] == "failed"
    assert alice.user_id in status["error"]
    assert status["shutdown_room"]["failed_to_kick_users"] == [alice.user_id]
    assert body(admin.get(v1(room_id)))["joined_members"] == 1
    forced = body(admin.delete(v1(room_id), json={"force_purge": True}))
    assert forced["failed_to_kick_users"] == [alice.user_id]
    assert refusal(admin.get(v1(room_id))) == (404, "M_NOT_FOUND")


def test_statuses_of_unknown_deletions_are_not_found(admin: Person) -> None:
    for path in (f"{ADMIN}/v2/rooms/delete_status/x", f"{v2(UNKNOWN)}/delete_status"):
        assert refusal(admin.get(path)) == (404, "M_NOT_FOUND")
    wrong = admin.get(f"{ADMIN}/v2/rooms/nonsense/delete_status")
    assert refusal(wrong) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("after", range(6))
def test_an_interrupted_deletion_goes_on_where_it_was(
    app: Application, admin: Person, alice: Person, room: MakeRoom, after: int
) -> None:
    room_id = room(alice, room_alias_name="tea")
    database = app.homeserver.database
    wanted = Deletion(admin.user_id, room_id, new_room_user_id=admin.user_id)
    kept: list[Json] = []

    def save(_tx: Tx, done: Json) -> None:
        kept.append({**done})
        if len(kept) == after:
            raise OSError("interrupted after the step")

    try:
        deletion.delete(database, wanted, None, save)
    except OSError:
        kept.pop()  # it was undone
    done = deletion.delete(database, wanted, kept[-1] if kept else None)

    assert done["kicked_users"] == [alice.user_id]
    assert done["local_aliases"] == ["#tea:localhost"]
    rooms = body(alice.get("joined_rooms"))["joined_rooms"]
    assert rooms == [done["new_room_id"]]
    assert body(admin.get(f"{ADMIN}/v1/rooms"))["total_rooms"] == 1


# --- history


def purge_path(room_id: str, event_id: str = "") -> str:
    end = f"/{quote(event_id)}" if event_id else ""
    return f"{ADMIN}/v1/purge_history/{quote(room_id)}{end}"


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("is_in_path", [True, False])
def test_history_is_purged_up_to_an_event(
    admin: Person, alice: Person, room: MakeRoom, *, is_in_path: bool
) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, f"{number}") for number in range(4)]
    options: Json = {"delete_local_events": True}
    if not is_in_path:
        options["purge_up_to_event_id"] = sent[2]

    answer = admin.post(purge_path(room_id, sent[2] if is_in_path else ""), json=options)

    purge_id = body(answer)["purge_id"]
    status = ended(admin, f"{ADMIN}/v1/purge_history_status/{purge_id}")
    assert status == {"status": "complete"}
    page = body(alice.get(f"rooms/{quote(room_id)}/messages?dir=b"))
    assert ids(page) == [sent[3], sent[2]]
    assert "end" not in page


@pytest.mark.usefixtures("running")
def test_history_is_purged_up_to_a_time(
    app: Application, admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, f"{number}") for number in range(4)]
    with app.homeserver.database.write() as tx:
        change = "UPDATE events SET origin_server_ts = 1000 WHERE event_id IN (?, ?)"
        tx.sql.raw.execute(change, sent[:2])
        change = "UPDATE events SET origin_server_ts = 1000 WHERE state_key IS NOT NULL"
        tx.sql.raw.execute(change)

    options = {"delete_local_events": True, "purge_up_to_ts": 2000}
    purge_id = body(admin.post(purge_path(room_id), json=options))["purge_id"]

    assert ended(admin, f"{ADMIN}/v1/purge_history_status/{purge_id}")["status"] == "complete"
    assert ids(body(alice.get(f"rooms/{quote(room_id)}/messages?dir=b"))) == sent[:1:-1]
    early = admin.post(purge_path(room_id), json={"purge_up_to_ts": 999})
    assert refusal(early) == (404, "M_NOT_FOUND")


def test_a_purge_that_waits_is_active_and_only_one_may(
    admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    last = alice.send(room_id)
    purge_id = body(admin.post(purge_path(room_id, last)))["purge_id"]

    status = body(admin.get(f"{ADMIN}/v1/purge_history_status/{purge_id}"))

    assert status == {"status": "active"}
    assert refusal(admin.post(purge_path(room_id, last))) == (400, "M_UNKNOWN")
    missing = admin.get(f"{ADMIN}/v1/purge_history_status/x")
    assert refusal(missing) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 400),
        ({"purge_up_to_ts": "1"}, 400),
        ({"purge_up_to_event_id": 1}, 400),
        ({"purge_up_to_event_id": "$no"}, 404),
        ({"purge_up_to_ts": 1, "delete_local_events": 1}, 400),
        ({"purge_up_to_ts": 1}, 404),
    ],
)
def test_a_wrong_purge_changes_nothing(
    app: Application, admin: Person, room: MakeRoom, options: Json, status: int
) -> None:
    room_id = room(admin)
    elsewhere = admin.send(admin.create_room())
    with unchanged(app):
        assert admin.post(purge_path(room_id), json=options).status_code == status
        assert refusal(admin.post(purge_path(room_id, elsewhere))) == (400, "M_UNKNOWN")
        unknown = admin.post(purge_path(UNKNOWN), json={"purge_up_to_ts": 1})
        assert refusal(unknown) == (404, "M_NOT_FOUND")


def test_the_tasks_have_the_names_of_synapses(app: Application, admin: Person) -> None:
    room_id = admin.create_room()
    last = admin.send(room_id)
    admin.post(purge_path(room_id, last))
    admin.delete(v2(room_id), json={})
    admin.post(f"{ADMIN}/v1/user/@alice:localhost/redact", json={"rooms": []})

    with app.homeserver.database.read() as tx:
        found = [(it.action, it.resource_id) for it in tasks.select_tasks(tx)]

    assert found == [
        ("purge_history", room_id),
        ("shutdown_and_purge_room", room_id),
        ("redact_all_events", "@alice:localhost"),
    ]
    assert history_purge.ACTION == "purge_history"


def test_a_deletion_ends_when_the_server_stops_and_goes_on_afterwards(
    app: Application, admin: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "EVENTS_AT_ONCE", 5)
    room_id = room(admin)
    for number in range(20):
        admin.send(room_id, f"{number}")
    delete_id = body(admin.delete(v2(room_id), json={}))["delete_id"]
    database = app.homeserver.database

    reports = iter(range(8))

    def stop(_so_far: Json) -> None:
        if next(reports) == 7:  # when some events are deleted
            raise InterruptedError

    with database.read() as tx:
        task = tasks.find(tx, delete_id)
        before = purge.count_events(tx, room_id)
    with pytest.raises(InterruptedError):
        deletion.run(database, task, stop)
    with database.read() as tx:
        task = tasks.find(tx, delete_id)
        left = purge.count_events(tx, room_id)
    done = deletion.run(database, task, lambda _so_far: None)

    assert 0 < left < before
    assert done["kicked_users"] == [admin.user_id]
    with database.read() as tx:
        assert purge.count_events(tx, room_id) == 0


def test_a_deletion_is_cancelled_until_the_purge_begins(
    app: Application,
    admin: Person,
    alice: Person,
    room: MakeRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room_id = room(alice)
    said = alice.send(room_id)
    delete_id = body(admin.delete(v2(room_id), json={}))["delete_id"]
    database = app.homeserver.database
    with database.read() as tx:
        task = tasks.find(tx, delete_id)

    def cancel() -> None:  # when the users have left, just before the purge
        admin.post(f"{ADMIN}/v1/scheduled_tasks/{delete_id}/cancel")

    monkeypatch.setattr(purge, "wait_for_clients", cancel)
    with pytest.raises(tasks.CancelledError):
        deletion.run(database, task, lambda _so_far: None)

    status = body(admin.get(f"{ADMIN}/v2/rooms/delete_status/{delete_id}"))
    assert (status["status"], status["shutdown_room"]["kicked_users"]) == (
        "cancelled",
        [alice.user_id],
    )
    assert body(admin.get(f"{ADMIN}/v1/rooms/{quote(room_id)}"))["room_id"] == room_id
    assert body(admin.get(f"{ADMIN}/v1/fetch_event/{quote(said)}"))["event"]["event_id"] == said
    assert body(admin.delete(v2(room_id), json={}))["delete_id"] != delete_id


def test_a_deletion_whose_purge_has_begun_can_not_be_cancelled(
    app: Application, admin: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "EVENTS_AT_ONCE", 5)
    room_id = room(admin)
    for number in range(20):
        admin.send(room_id, f"{number}")
    delete_id = body(admin.delete(v2(room_id), json={}))["delete_id"]
    refusals = []

    def cancel(_so_far: Json) -> None:
        refusals.append(admin.post(f"{ADMIN}/v1/scheduled_tasks/{delete_id}/cancel"))

    with app.homeserver.database.read() as tx:
        task = tasks.find(tx, delete_id)
    deletion.run(app.homeserver.database, task, cancel)

    assert refusals
    assert {refusal(it) for it in refusals} == {(400, "M_UNKNOWN")}
    with app.homeserver.database.read() as tx:
        assert purge.count_events(tx, room_id) == 0
