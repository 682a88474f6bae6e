"""Sending message events once, redacting them, reacting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import Json, act, refusal, unchanged

Room = Callable[..., str]
ALICE = "@alice:localhost"
HELLO = {"msgtype": "m.text", "body": "hello"}


def send(person: Person, room_id: str, content: object, txn_id: str = "t", **kw: Any) -> Any:
    event_type = kw.get("event_type", "m.room.message")
    return person.put(f"rooms/{room_id}/send/{event_type}/{txn_id}", json=content)


def redact(person: Person, room_id: str, event_id: str, txn_id: str = "r", **body: Any) -> Any:
    return person.put(f"rooms/{room_id}/redact/{event_id}/{txn_id}", json=body)


def count_events(app: Application) -> int:
    with app.homeserver.database.read() as tx:
        return int(tx.sql.connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one())


def stored_content(app: Application, event_id: str) -> Json:
    """The content of an event as it is in the database."""
    with app.homeserver.database.read() as tx:
        query = "SELECT json_extract(pdu, '$.content') FROM events WHERE event_id = ?"
        content: Json = orjson.loads(
            tx.sql.connection.exec_driver_sql(query, (event_id,)).scalar_one()
        )
        return content


def test_a_message_is_sent_and_named(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    answer = send(alice, room_id, HELLO)

    assert answer.status_code == 200
    event_id = answer.get_json()["event_id"]
    assert answer.get_json() == {"event_id": event_id}
    assert event_id.startswith("$")
    assert stored_content(app, event_id) == HELLO


def test_a_repeated_request_sends_nothing_new(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    first = send(alice, room_id, HELLO).get_json()

    with unchanged(app):
        again = send(alice, room_id, HELLO).get_json()

    assert again == first


def test_a_request_repeated_after_a_restart_sends_nothing_new(make_app: MakeApp) -> None:
    app = make_app()
    client = app.test_client()
    body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, ALICE, session["access_token"], session["device_id"])
    room_id = alice.create_room()
    first = send(alice, room_id, HELLO).get_json()
    app.homeserver.database.close()

    restarted = make_app()
    alice.client = restarted.test_client()
    with unchanged(restarted):
        again = send(alice, room_id, HELLO).get_json()

    assert again == first


def test_a_transaction_id_counts_for_its_device_and_path_only(login: Login, room: Room) -> None:
    phone, laptop = login("alice"), login("alice")
    one, other = room(phone), room(phone)

    answers = [
        send(phone, one, HELLO),
        send(laptop, one, HELLO),
        send(phone, other, HELLO),
        send(phone, one, HELLO, event_type="org.example.other"),
        send(phone, one, HELLO, txn_id="u"),
    ]

    assert len({answer.get_json()["event_id"] for answer in answers}) == 5


def test_post_sends_without_a_transaction_id_each_time_anew(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    path = f"/_matrix/client/r0/rooms/{room_id}/send/m.room.message"
    answers = [alice.post(path, json=HELLO) for _ in range(2)]

    assert len({answer.get_json()["event_id"] for answer in answers}) == 2


@pytest.mark.parametrize("content", [{}, {"body": "no msgtype"}, {"msgtype": 5, "body": None}])
def test_contents_of_any_shape_are_accepted(login: Login, room: Room, content: Json) -> None:
    alice = login("alice")
    room_id = room(alice)

    answer = send(alice, room_id, content)

    assert answer.status_code == 200


def test_only_application_services_may_choose_the_time(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)

    path = f"rooms/{room_id}/send/m.room.message/t?ts=1000"
    event_id = alice.put(path, json=HELLO).get_json()["event_id"]

    with app.homeserver.database.read() as tx:
        query = "SELECT origin_server_ts FROM events WHERE event_id = ?"
        assert tx.sql.connection.exec_driver_sql(query, (event_id,)).scalar_one() > 1_000_000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], (400, "M_BAD_JSON")),
        ({"body": 1.5}, (400, "M_BAD_JSON")),
        ({"body": 2**53}, (400, "M_BAD_JSON")),
        ({"body": "x" * 65_000}, (413, "M_TOO_LARGE")),
    ],
)
def test_what_no_event_can_hold_is_refused(
    app: Application, login: Login, room: Room, content: object, expected: tuple[int, str]
) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answer = send(alice, room_id, content)

    assert refusal(answer) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"m.room.message/{'t' * 256}", (400, "M_INVALID_PARAM")),
        (f"{'m' * 256}/t", (413, "M_TOO_LARGE")),
        ("m.room.create/t", (400, "M_BAD_JSON")),
        ("m.room.member/t", (403, "M_FORBIDDEN")),
        ("m.room.redaction/t", (400, "M_MISSING_PARAM")),
    ],
)
def test_paths_that_make_no_message_are_refused(
    app: Application, login: Login, room: Room, path: str, expected: tuple[int, str]
) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answer = alice.put(f"rooms/{room_id}/send/{path}", json={})

    assert refusal(answer) == expected


def test_a_body_that_is_no_json_is_refused(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answer = alice.put(f"rooms/{room_id}/send/m.room.message/t", data=b"{hello")

    assert refusal(answer) == (400, "M_NOT_JSON")


def test_only_who_is_in_the_room_may_send(app: Application, login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = alice.create_room(invite=["@bob:localhost"])

    with unchanged(app):
        answers = [send(bob, room_id, HELLO), send(carol, room_id, HELLO)]
        nowhere = send(alice, "!nowhere:localhost", HELLO)

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2
    assert refusal(nowhere) == (404, "M_NOT_FOUND")


def test_who_was_kicked_may_send_no_more(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.send(room_id)
    act(alice, room_id, "kick", user_id="@bob:localhost")

    with unchanged(app):
        answer = send(bob, room_id, HELLO, txn_id="later")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_one_redacts_what_one_has_sent(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = bob.send(room_id)

    answer = redact(bob, room_id, event_id, reason="Typo")

    assert answer.status_code == 200
    redaction_id = answer.get_json()["event_id"]
    assert stored_content(app, redaction_id) == {"reason": "Typo", "redacts": event_id}
    assert stored_content(app, event_id) == {}


def test_a_repeated_redaction_sends_nothing_new(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    event_id, other_id = alice.send(room_id), alice.send(room_id)
    first = redact(alice, room_id, event_id).get_json()

    with unchanged(app):
        again = redact(alice, room_id, event_id).get_json()
    other = redact(alice, room_id, other_id).get_json()

    assert again == first
    assert other != first


@pytest.mark.parametrize("version", ["10", "11"])
def test_a_repeated_redaction_sends_nothing_new_though_it_was_redacted_itself(
    login: Login, room: Room, version: str
) -> None:
    alice = login("alice")
    room_id = room(alice, room_version=version)
    event_id = alice.send(room_id)
    path = f"rooms/{room_id}/redact/{event_id}/same"
    first = alice.put(path, json={}).get_json()["event_id"]
    redact(alice, room_id, first)

    repeated = alice.put(path, json={}).get_json()["event_id"]

    assert repeated == first


def test_a_moderator_redacts_what_others_have_sent(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = bob.send(room_id)

    assert redact(alice, room_id, event_id).status_code == 200

    assert stored_content(app, event_id) == {}


@pytest.mark.parametrize("version", ["1", "10", "11"])
@pytest.mark.parametrize("by", ["redact", "send"])
def test_others_may_not_redact_it_although_they_are_of_the_same_server(
    app: Application, login: Login, room: Room, version: str, by: str
) -> None:
    login("admin")  # the first account may redact everything
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, room_version=version)
    event_id = alice.send(room_id)

    with unchanged(app):
        if by == "redact":
            answer = redact(bob, room_id, event_id)
        else:
            content = {"redacts": event_id}
            answer = send(bob, room_id, content, event_type="m.room.redaction")

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("version", ["10", "11"])
def test_a_redaction_sent_as_an_event_works_in_every_room_version(
    app: Application, login: Login, room: Room, version: str
) -> None:
    alice = login("alice")
    room_id = room(alice, room_version=version)
    event_id = alice.send(room_id)

    answer = send(alice, room_id, {"redacts": event_id}, event_type="m.room.redaction")

    assert answer.status_code == 200
    assert stored_content(app, event_id) == {}


def test_an_administrator_redacts_what_people_of_the_server_have_sent(
    app: Application, login: Login, room: Room
) -> None:
    admin, bob = login("admin"), login("bob")
    room_id = room(bob, admin)
    event_id = bob.send(room_id)

    assert redact(admin, room_id, event_id).status_code == 200

    assert stored_content(app, event_id) == {}


def test_old_clients_redact_by_post(app: Application, login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    event_id = alice.send(room_id)

    answer = alice.post(f"rooms/{room_id}/redact/{event_id}")

    assert answer.status_code == 200
    assert stored_content(app, event_id) == {}


def test_a_redaction_of_nothing_is_refused(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice), room(alice)
    elsewhere = alice.send(other)
    own_create = alice.get(f"rooms/{room_id}/state/m.room.create?format=event").get_json()

    with unchanged(app):
        answers = [
            redact(alice, room_id, "$nothing"),
            redact(alice, room_id, elsewhere),
            redact(bob, room_id, "$nothing"),
            redact(alice, room_id, own_create["event_id"]),
            redact(alice, room_id, "$nothing", reason=5),
        ]

    assert [refusal(answer) for answer in answers] == [
        (404, "M_NOT_FOUND"),
        (404, "M_NOT_FOUND"),
        (403, "M_FORBIDDEN"),
        (403, "M_FORBIDDEN"),
        (400, "M_BAD_JSON"),
    ]


def test_a_redacted_state_event_leaves_no_trace_in_its_successor(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="secret")
    path = f"rooms/{room_id}/state/m.room.name?format=event"
    first = alice.get(path).get_json()["event_id"]
    alice.set_state(room_id, "m.room.name", {"name": "better"})
    assert alice.get(path).get_json()["unsigned"]["prev_content"] == {"name": "secret"}

    redact(alice, room_id, first)

    assert alice.get(path).get_json()["unsigned"]["prev_content"] == {}
    assert alice.get(f"rooms/{room_id}/state/m.room.name").get_json() == {"name": "better"}


def reaction(event_id: str, key: str = "👍") -> Json:
    return {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": key}}


def test_one_reacts_once_with_the_same_key(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = alice.send(room_id)

    def react(who: Person, key: str, txn_id: str) -> Any:
        content = reaction(event_id, key)
        return send(who, room_id, content, txn_id, event_type="m.reaction")

    assert [react(alice, "👍", "1").status_code, react(alice, "🎉", "2").status_code] == [200, 200]
    assert react(bob, "👍", "3").status_code == 200
    with unchanged(app):
        assert react(alice, "👍", "1").status_code == 200  # the same request
        assert refusal(react(alice, "👍", "4")) == (400, "M_DUPLICATE_ANNOTATION")


def test_one_may_react_again_after_taking_it_back(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    event_id = alice.send(room_id)
    content = reaction(event_id)
    sent = send(alice, room_id, content, event_type="m.reaction").get_json()["event_id"]
    redact(alice, room_id, sent)

    answer = send(alice, room_id, content, "u", event_type="m.reaction")

    assert answer.status_code == 200


def test_who_sends_too_fast_has_to_wait(make_app: MakeApp) -> None:
    limits = {"rc_message.burst_count": "2", "rc_message.per_second": "0.01"}
    app = make_app(rate_limits="true", **limits)
    client = app.test_client()
    body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, ALICE, session["access_token"], session["device_id"])
    room_id = alice.create_room()
    alice.send(room_id)
    alice.set_state(room_id, "m.room.name", {"name": "x"})

    with unchanged(app):
        answers = [
            send(alice, room_id, HELLO),
            alice.set_state(room_id, "m.room.name", {"name": "y"}),
            act(alice, room_id, "ban", user_id="@bob:localhost"),
        ]

    assert [refusal(answer) for answer in answers] == [(429, "M_LIMIT_EXCEEDED")] * 3
    assert all(answer.get_json()["retry_after_ms"] > 0 for answer in answers)


DELAYS = ["org.matrix.msc4140.parent_delay_id=d1", "delay=1000", "parent_delay_id=d1"]
DELAY = "org.matrix.msc4140.delay=1000"
PATHS = [
    ("PUT", "send/m.room.message/t1"),
    ("PUT", "state/org.matrix.msc3401.call.member/_@alice:localhost_DEVICE_m.call"),
    ("PUT", "state/m.room.name"),
    ("POST", "send/m.room.message"),
    ("PUT", "redact/{event}/t1"),
    ("POST", "redact/{event}"),
]


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        *((method, path, query) for method, path in PATHS for query in DELAYS),
        *((method, path, DELAY) for method, path in PATHS[3:]),
    ],
)
def test_an_event_that_cannot_be_sent_later_is_refused_and_not_sent_at_once(
    app: Application, login: Login, room: Room, method: str, path: str, query: str
) -> None:
    alice = login("alice")
    room_id = room(alice)
    path = path.format(event=alice.send(room_id))

    with unchanged(app):
        answer = alice.request(method, f"rooms/{room_id}/{path}?{query}", json={})

    assert refusal(answer) == (400, "M_UNRECOGNIZED")
