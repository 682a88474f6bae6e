"""Redacting all that a user has sent, by the admin API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from homebody.core.rooms import user_redaction
from homebody.core.rooms.user_redaction import Redaction
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import Json, act, refusal, state_of, unchanged
from tests.helpers.waiting import wait_for

MakeRoom = Callable[..., str]
ADMIN = "/_synapse/admin/v1"


@pytest.fixture
def bob(login: Login) -> Person:
    """The sender of what is redacted."""
    return login("bob")


@pytest.fixture
def running(app: Application) -> Iterator[None]:
    """Run the tasks that are ordered."""
    app.homeserver.database.deliver = lambda _kind, _name: app.homeserver.tasks.notify()
    app.homeserver.tasks.start()
    yield
    app.homeserver.tasks.stop()


def redact(admin: Person, user_id: str, **options: object) -> Json:
    """The status of a redaction that has ended."""
    answer = admin.post(f"{ADMIN}/user/{quote(user_id)}/redact", json={"rooms": [], **options})
    assert answer.status_code == 200, answer.get_json()
    path = f"{ADMIN}/user/redact_status/{answer.get_json()['redact_id']}"
    wait_for(lambda: admin.get(path).get_json()["status"] in {"complete", "failed"})
    status: Json = admin.get(path).get_json()
    return status


def is_redacted(person: Person, room_id: str, event_id: str) -> bool:
    found = person.get(f"rooms/{quote(room_id)}/event/{quote(event_id)}").get_json()
    return "redacted_because" in found["unsigned"]


@pytest.mark.usefixtures("running")
def test_all_that_a_user_has_sent_is_redacted_in_all_rooms(
    admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    rooms = [room(alice, bob), room(alice, bob)]
    sent = [(room_id, bob.send(room_id, "spam")) for room_id in rooms]
    of_alice = alice.send(rooms[0])
    bob.set_state(
        rooms[0], "m.room.member", {"membership": "join", "displayname": "Spam"}, bob.user_id
    )

    status = redact(admin, bob.user_id, reason="spam")

    assert status == {"status": "complete", "failed_redactions": {}}
    assert all(is_redacted(alice, *place) for place in sent)
    assert not is_redacted(alice, rooms[0], of_alice)
    assert state_of(alice, rooms[0])["m.room.member", bob.user_id] == {"membership": "join"}
    event = alice.get(f"rooms/{quote(rooms[0])}/event/{quote(sent[0][1])}").get_json()
    because = event["unsigned"]["redacted_because"]
    assert (because["sender"], because["content"]["reason"]) == (bob.user_id, "spam")


@pytest.mark.usefixtures("running")
def test_only_some_rooms_times_and_numbers_of_events_are_redacted(
    app: Application, admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    first, second = room(alice, bob), room(alice, bob)
    sent = [bob.send(first, f"{number}") for number in range(4)]
    other = bob.send(second)
    with app.homeserver.database.write() as tx:
        change = "UPDATE events SET origin_server_ts = ? WHERE event_id = ?"
        tx.sql.raw.executemany(change, [(1000 * it, sent[it]) for it in range(4)])

    def redacted() -> list[bool]:
        return [is_redacted(alice, first, it) for it in sent]

    redact(admin, bob.user_id, rooms=[first], before_ts=1001, after_ts=0)
    assert redacted() == [False, True, False, False]
    redact(admin, bob.user_id, rooms=[first], limit=1, before_ts=3001)
    assert redacted() == [False, True, False, True]
    redact(admin, bob.user_id, rooms=[first], limit=0)
    assert redacted() == [False, True, False, True]
    redact(admin, bob.user_id, rooms=[first])
    assert redacted() == [True] * 4
    assert not is_redacted(alice, second, other)


@pytest.mark.usefixtures("running")
def test_an_administrator_redacts_what_the_user_cannot(
    admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob, admin)
    sent = bob.send(room_id)
    act(alice, room_id, "ban", user_id=bob.user_id)

    assert redact(admin, bob.user_id)["failed_redactions"] == {}

    event = alice.get(f"rooms/{quote(room_id)}/event/{quote(sent)}").get_json()
    assert event["unsigned"]["redacted_because"]["sender"] == admin.user_id


@pytest.mark.usefixtures("running")
def test_what_nobody_can_redact_is_told_with_the_reason(
    admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    sent = bob.send(room_id)
    act(bob, room_id, "leave")

    status = redact(admin, bob.user_id, rooms=[room_id])

    assert status["status"] == "complete"
    assert admin.user_id in status["failed_redactions"][sent]
    assert not is_redacted(alice, room_id, sent)
    assert redact(admin, bob.user_id, use_admin=True)["failed_redactions"].keys() >= {sent}


@pytest.mark.usefixtures("running")
def test_an_administrator_with_power_redacts_users_of_other_servers(
    remote: Remotes, admin: Person
) -> None:
    b = remote("b.test")
    room_id = admin.create_room(preset="public_chat")
    there = b.join(room_id)
    message = there.message("spam", sender="carol")
    assert b.send(message) == {message.event_id: {}}

    assert redact(admin, b.user_id("carol"))["failed_redactions"] == {}

    assert is_redacted(admin, room_id, message.event_id)


@pytest.mark.usefixtures("running")
def test_unknown_users_and_rooms_are_no_errors(admin: Person) -> None:
    nobody = redact(admin, "@nobody:localhost")
    nowhere = redact(admin, admin.user_id, rooms=["!no:localhost"])

    assert nobody == nowhere == {"status": "complete", "failed_redactions": {}}


def test_a_redaction_that_waits_has_no_failures_yet(admin: Person, alice: Person) -> None:
    answer = admin.post(f"{ADMIN}/user/{alice.user_id}/redact", json={"rooms": []}).get_json()

    status = admin.get(f"{ADMIN}/user/redact_status/{answer['redact_id']}").get_json()

    assert status == {"status": "scheduled"}


@pytest.mark.parametrize(
    ("options", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"rooms": "!a:b"}, "M_BAD_JSON"),
        ({"rooms": [], "limit": -1}, "M_INVALID_PARAM"),
        ({"rooms": [], "limit": "1"}, "M_BAD_JSON"),
        ({"rooms": [], "use_admin": 1}, "M_BAD_JSON"),
        ({"rooms": [], "before_ts": "now"}, "M_BAD_JSON"),
    ],
)
def test_a_wrong_request_orders_nothing(
    app: Application, admin: Person, options: Json, errcode: str
) -> None:
    with unchanged(app):
        answer = admin.post(f"{ADMIN}/user/{admin.user_id}/redact", json=options)
        assert refusal(answer) == (400, errcode)
    missing = admin.get(f"{ADMIN}/user/redact_status/x")
    assert refusal(missing) == (404, "M_NOT_FOUND")


def test_only_administrators_may_call_it(app: Application, alice: Person) -> None:
    with unchanged(app):
        path = f"{ADMIN}/user/{alice.user_id}/redact"
        assert refusal(alice.post(path, json={"rooms": []})) == (403, "M_FORBIDDEN")
        status = alice.get(f"{ADMIN}/user/redact_status/x")
        assert refusal(status) == (403, "M_FORBIDDEN")
        assert refusal(alice.client.post(path)) == (401, "M_MISSING_TOKEN")


def test_what_never_is_redacted_is_passed_over_and_an_interrupted_call_goes_on(
    app: Application, admin: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_redaction, "EVENTS_AT_ONCE", 2)
    room_id = room(admin, name="Tea", room_version="10")
    sent = [admin.send(room_id, f"{number}") for number in range(5)]
    wanted = Redaction(admin.user_id, admin.user_id, [room_id])

    def stop(_so_far: Json) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        user_redaction.redact(app.homeserver.database, wanted, stop)
    before = [is_redacted(admin, room_id, it) for it in sent]
    done = user_redaction.redact(app.homeserver.database, wanted)

    assert before == [False, False, False, True, True]
    assert all(is_redacted(admin, room_id, it) for it in sent)
    assert done["failed_redactions"] == {}
    create = state_of(admin, room_id)["m.room.create", ""]
    assert create["creator"] == admin.user_id
    assert user_redaction.redact(app.homeserver.database, wanted)["redacted"] == 0
