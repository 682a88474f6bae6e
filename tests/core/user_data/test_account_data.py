"""Account data, for all of a user's devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.user_data import account_data
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.rooms import Json, refusal, unchanged

COLOUR = "user/@alice:localhost/account_data/org.example.colour"
LARGE = {"kind": "event_match", "key": "content.body", "pattern": "x" * 255}
ROOM = "user/@alice:localhost/rooms/{}/account_data/{}"


def told(sync: Json) -> Json:
    """{type: content} of the global account data in an answer of /sync."""
    events = sync.get("account_data", {"events": []})["events"]
    return {event["type"]: event["content"] for event in events}


def told_in(sync: Json, room_id: str) -> Json:
    room = sync["rooms"]["join"].get(room_id, {"account_data": {"events": []}})
    return {event["type"]: event["content"] for event in room["account_data"]["events"]}


def test_what_one_device_keeps_the_other_reads(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")

    answer = phone.put(COLOUR, json={"colour": "blue"})

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert laptop.get(COLOUR).get_json() == {"colour": "blue"}


def test_another_user_may_neither_read_nor_write_it(app: Application, login: Login) -> None:
    login("alice").put(COLOUR, json={"colour": "blue"})
    mallory = login("mallory")

    with unchanged(app):
        answers = [mallory.get(COLOUR), mallory.put(COLOUR, json={"colour": "red"})]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2


def test_what_was_never_kept_is_not_found(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    room_id = room(alice)

    answers = [alice.get(COLOUR), alice.get(ROOM.format(room_id, "org.example.x"))]

    assert [refusal(answer) for answer in answers] == [(404, "M_NOT_FOUND")] * 2


def test_global_data_and_a_rooms_data_are_apart(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    first, second = room(alice), room(alice)
    alice.put(COLOUR, json={"in": "all"})

    alice.put(ROOM.format(first, "org.example.colour"), json={"in": "first"})

    sync = alice.sync()
    assert told(sync)["org.example.colour"] == {"in": "all"}
    assert told_in(sync, first) == {"org.example.colour": {"in": "first"}}
    assert told_in(sync, second) == {}
    assert alice.get(ROOM.format(first, "org.example.colour")).get_json() == {"in": "first"}


def test_a_change_comes_once_by_sync_and_alone(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.put("user/@alice:localhost/account_data/org.example.old", json={"colour": "red"})
    token = alice.sync()["next_batch"]
    alice.put(COLOUR, json={"colour": "blue"})
    alice.put(ROOM.format(room_id, "org.example.colour"), json={"colour": "red"})

    news = alice.sync(token)

    assert told(news) == {"org.example.colour": {"colour": "blue"}}
    assert told_in(news, room_id) == {"org.example.colour": {"colour": "red"}}
    assert told(alice.sync(news["next_batch"])) == {}


def test_what_stays_the_same_is_no_news(login: Login) -> None:
    alice = login("alice")
    alice.put(COLOUR, json={"colour": "blue"})
    token = alice.sync()["next_batch"]

    alice.put(COLOUR, json={"colour": "blue"})

    assert told(alice.sync(token)) == {}


def test_nobody_else_is_told(login: Login, room: Callable[..., str]) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.put(COLOUR, json={"colour": "blue"})
    alice.put(ROOM.format(room_id, "org.example.colour"), json={"colour": "red"})

    sync = bob.sync()

    assert "org.example.colour" not in told(sync)
    assert told_in(sync, room_id) == {}


@pytest.mark.parametrize("event_type", ["m.push_rules", "m.fully_read"])
def test_what_the_server_manages_cannot_be_set(
    app: Application, login: Login, room: Callable[..., str], event_type: str
) -> None:
    alice = login("alice")
    room_id = room(alice)

    with unchanged(app):
        answers = [
            alice.put(f"user/@alice:localhost/account_data/{event_type}", json={}),
            alice.put(ROOM.format(room_id, event_type), json={}),
        ]

    assert [refusal(answer) for answer in answers] == [(405, "M_BAD_JSON")] * 2


def test_push_rules_can_be_read_as_account_data(login: Login) -> None:
    alice = login("alice")

    rules = alice.get("user/@alice:localhost/account_data/m.push_rules").get_json()

    assert rules == alice.get("pushrules/").get_json()


@pytest.mark.parametrize(
    ("body", "errcode"),
    [(b"[]", "M_BAD_JSON"), (b'"blue"', "M_BAD_JSON"), (b"{", "M_NOT_JSON")],
)
def test_only_json_objects_are_kept(
    app: Application, login: Login, body: bytes, errcode: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(COLOUR, data=body)

    assert refusal(answer) == (400, errcode)


def test_the_room_must_be_a_room(app: Application, login: Login) -> None:
    alice = login("alice")
    path = ROOM.format("@bob:localhost", "org.example.x")

    with unchanged(app):
        answers = [alice.put(path, json={}), alice.get(path)]

    assert [refusal(answer) for answer in answers] == [(400, "M_INVALID_PARAM")] * 2


def test_an_object_that_is_too_large_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(COLOUR, json={"colour": "x" * account_data.MAX_BYTES})

    assert refusal(answer) == (413, "M_TOO_LARGE")


def quota(make_app: MakeApp, **quotas: int) -> tuple[Application, Person]:
    """A server with these quotas, and Alice."""
    app = make_app(**{f"quotas.{name}": str(value) for name, value in quotas.items()})
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = app.test_client().post(V3 + "register", json=body).get_json()
    names = ("user_id", "access_token", "device_id")
    return app, Person(app.test_client(), *(session[name] for name in names))


def test_an_account_has_only_so_many_bytes_of_account_data(make_app: MakeApp) -> None:
    app, alice = quota(make_app, account_data_bytes=2**16)
    room_id = alice.create_room()
    tag = f"user/@alice:localhost/rooms/{quote(room_id)}/tags"
    rule = "pushrules/global/override/{}"
    actions = {"conditions": [], "actions": ["notify"]}
    assert alice.put(COLOUR, json={"colour": "x" * 60_000}).status_code == 200
    assert alice.put(rule.format("small"), json=actions).status_code == 200

    with unchanged(app):
        answers = [
            alice.put(COLOUR + "2", json={"colour": "x" * 6_000}),
            alice.put(COLOUR, json={"colour": "x" * 66_000}),
            alice.put(ROOM.format(room_id, "org.example.x"), json={"colour": "ü" * 3_000}),
            alice.put(f"{tag}/u.x", json={"order": 0.5, "note": "x" * 6_000}),
            alice.put(rule.format("large"), json=actions | {"conditions": [LARGE] * 20}),
        ]

    assert [refusal(answer) for answer in answers] == [(403, "M_USER_LIMIT_EXCEEDED")] * 5
    assert answers[0].get_json()["info_uri"] == app.homeserver.database.server.config.public_url
    assert alice.put(COLOUR, json={"colour": "x" * 50_000}).status_code == 200
    assert alice.put(COLOUR + "2", json={"colour": "x" * 6_000}).status_code == 200


def test_an_account_over_its_quota_can_shrink_and_read_on(make_app: MakeApp) -> None:
    _, alice = quota(make_app)
    alice.put(COLOUR, json={"colour": "x" * 80_000})
    server = make_app(**{"quotas.account_data_bytes": str(2**16)})
    alice = Person(server.test_client(), alice.user_id, alice.access_token, alice.device_id)
    room_id = alice.create_room()
    event_id = alice.send(room_id)

    answers = [
        alice.put(COLOUR, json={"colour": "x" * 70_000}),
        alice.post(f"rooms/{quote(room_id)}/read_markers", json={"m.fully_read": event_id}),
    ]

    assert [answer.status_code for answer in answers] == [200, 200]


def test_an_account_has_only_so_many_objects_of_account_data(make_app: MakeApp) -> None:
    app, alice = quota(make_app, account_data_objects=100)
    for number in range(100):
        assert alice.put(f"{COLOUR}{number}", json={"a": 1}).status_code == 200

    with unchanged(app):
        answer = alice.put(COLOUR, json={"a": 1})

    assert refusal(answer) == (403, "M_USER_LIMIT_EXCEEDED")
    assert alice.put(f"{COLOUR}0", json={"colour": "red"}).status_code == 200


def test_a_type_that_is_too_long_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(f"user/@alice:localhost/account_data/{'x' * 256}", json={})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("event_type", ["a/b", "with space", "ünï", "%"])
def test_a_type_may_be_any_text(login: Login, event_type: str) -> None:
    alice: Person = login("alice")
    path = f"user/@alice:localhost/account_data/{quote(event_type, safe='')}"

    alice.put(path, json={"a": 1})

    content: Any = alice.get(path).get_json()
    assert content == {"a": 1}
    assert told(alice.sync())[event_type] == {"a": 1}


DELETE = "/_matrix/client/unstable/org.matrix.msc3391/"


@pytest.mark.parametrize("is_in_room", [False, True])
@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_deleted_data_is_gone_and_devices_notice(
    login: Login, room: Callable[..., str], method: str, *, is_in_room: bool
) -> None:
    alice = login("alice")
    room_id = room(alice)
    path = ROOM.format(room_id, "org.example.colour") if is_in_room else COLOUR
    assert alice.put(path, json={"colour": "blue"}).status_code == 200
    token = alice.sync()["next_batch"]

    answer = alice.delete(DELETE + path) if method == "DELETE" else alice.put(path, json={})

    def found(sync: Json) -> Json:
        return told_in(sync, room_id) if is_in_room else told(sync)

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert refusal(alice.get(path)) == (404, "M_NOT_FOUND")
    assert found(alice.sync(token)) == {"org.example.colour": {}}
    assert "org.example.colour" not in found(alice.sync())
    assert "org.example.colour" not in str(alice.get("initialSync").get_json())


def test_deleting_what_is_not_there_changes_nothing(
    app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.put(COLOUR, json={"colour": "blue"})
    alice.delete(DELETE + COLOUR)

    with unchanged(app):
        answers = [
            alice.delete(DELETE + COLOUR),
            alice.delete(DELETE + COLOUR + "s"),
            alice.put(COLOUR + "s", json={}),
            alice.delete(DELETE + ROOM.format(room_id, "org.example.colour")),
        ]

    assert [answer.status_code for answer in answers] == [200] * 4


def test_deleted_data_can_be_set_again(login: Login) -> None:
    alice = login("alice")
    alice.put(COLOUR, json={"colour": "blue"})
    alice.delete(DELETE + COLOUR)

    alice.put(COLOUR, json={"colour": "red"})

    assert alice.get(COLOUR).get_json() == {"colour": "red"}
    assert told(alice.sync())["org.example.colour"] == {"colour": "red"}


def test_only_the_user_deletes_their_data_and_not_what_the_server_manages(
    app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice, mallory = login("alice"), login("mallory")
    room_id = room(alice)
    alice.put(COLOUR, json={"colour": "blue"})

    with unchanged(app):
        others = [
            mallory.delete(DELETE + COLOUR),
            mallory.delete(DELETE + ROOM.format(room_id, "org.example.colour")),
        ]
        managed = [
            alice.delete(f"{DELETE}user/@alice:localhost/account_data/m.push_rules"),
            alice.delete(DELETE + ROOM.format(room_id, "m.fully_read")),
        ]
        nowhere = alice.delete(DELETE + ROOM.format("nowhere", "org.example.colour"))

    assert [refusal(answer) for answer in others] == [(403, "M_FORBIDDEN")] * 2
    assert [refusal(answer) for answer in managed] == [(405, "M_BAD_JSON")] * 2
    assert refusal(nowhere) == (400, "M_INVALID_PARAM")


def test_a_room_that_is_joined_again_comes_with_what_was_deleted_meanwhile(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(bob, alice)
    path = ROOM.format(room_id, "org.example.colour")
    alice.put(path, json={"colour": "blue"})
    alice.post(f"rooms/{room_id}/leave")
    token = alice.sync()["next_batch"]

    alice.delete(DELETE + path)
    assert bob.post(f"rooms/{room_id}/invite", json={"user_id": alice.user_id}).status_code == 200
    assert alice.post(f"join/{room_id}").status_code == 200

    assert told_in(alice.sync(token), room_id) == {"org.example.colour": {}}


def test_deleted_data_frees_the_quota(make_app: MakeApp) -> None:
    _, alice = quota(make_app, account_data_objects=100)
    for number in range(100):
        assert alice.put(f"{COLOUR}{number}", json={"a": 1}).status_code == 200

    alice.delete(f"{DELETE}{COLOUR}0")

    assert alice.put(COLOUR, json={"a": 1}).status_code == 200
    assert refusal(alice.put(f"{COLOUR}0", json={"a": 1})) == (403, "M_USER_LIMIT_EXCEEDED")


def test_of_many_deletions_only_the_latest_are_kept(app: Application, login: Login) -> None:
    alice = login("alice")
    token = alice.sync()["next_batch"]
    with app.homeserver.database.write() as tx:
        for number in range(account_data.MAX_DELETED + 2):
            account_data.store(tx, alice.user_id, f"org.example.{number}", {"a": 1})
            account_data.remove(tx, alice.user_id, f"org.example.{number}")

    found = told(alice.sync(token))

    assert len(found) == account_data.MAX_DELETED
    assert "org.example.1" not in found
    assert found["org.example.2"] == {}
