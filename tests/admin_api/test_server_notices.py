"""Server notices by the admin API."""

from __future__ import annotations

import pytest

from homebody.core import audit
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.rooms import Json, act, refusal, state_of, unchanged

SEND = "/_synapse/admin/v1/send_server_notice"
CONTENT = {"msgtype": "m.text", "body": "We move house on Sunday."}


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(server_notices_user="server")


def notice_room(person: Person) -> str:
    """The room of the notices, which the person joins."""
    (room_id,) = person.sync()["rooms"]["invite"]
    act(person, room_id, "join")
    return str(room_id)


def messages(person: Person, room_id: str) -> list[Json]:
    answer = person.get(f"rooms/{room_id}/messages", query_string={"dir": "f", "limit": 100})
    return [it for it in answer.get_json()["chunk"] if it["type"] == "m.room.message"]


def test_a_notice_comes_as_it_was_sent_in_a_room_with_a_tag(
    app: Application, admin: Person, alice: Person
) -> None:
    body = {"user_id": alice.user_id, "content": CONTENT}

    sent = admin.post(SEND, json=body)
    room_id = notice_room(alice)

    assert sent.status_code == 200
    (event,) = messages(alice, room_id)
    assert (event["event_id"], event["content"]) == (sent.get_json()["event_id"], CONTENT)
    assert event["sender"] == "@server:localhost"
    tags = alice.get(f"user/{alice.user_id}/rooms/{room_id}/tags").get_json()["tags"]
    assert tags == {"m.server_notice": {}}
    with app.homeserver.database.read() as tx:
        (entry,) = audit.latest(tx, 10, subject=alice.user_id)
    assert (entry["actor"], entry["action"]) == (admin.user_id, "notice.send")
    assert "Sunday" not in str(entry)


def test_a_notice_may_be_of_any_type_or_state(admin: Person, alice: Person) -> None:
    other = {"user_id": alice.user_id, "type": "org.example", "content": {"a": 1}}
    topic = {
        "user_id": alice.user_id,
        "type": "m.room.topic",
        "state_key": "",
        "content": {"topic": "News"},
    }

    sent = [admin.post(SEND, json=body).get_json()["event_id"] for body in (other, topic)]
    room_id = notice_room(alice)

    event = alice.get(f"rooms/{room_id}/event/{sent[0]}").get_json()
    assert (event["type"], event["content"]) == ("org.example", {"a": 1})
    assert state_of(alice, room_id)["m.room.topic", ""] == {"topic": "News"}


def test_a_repeated_request_sends_nothing_again(admin: Person, alice: Person, login: Login) -> None:
    other = login("other")
    admin.put(f"/_synapse/admin/v1/users/{other.user_id}/admin", json={"admin": True})
    body = {"user_id": alice.user_id, "content": CONTENT}

    def put(sender: Person, txn_id: str) -> str:
        answer = sender.put(f"{SEND}/{txn_id}", json=body)
        assert answer.status_code == 200, answer.get_json()
        return str(answer.get_json()["event_id"])

    first, again = put(admin, "1"), put(admin, "1")
    second, of_other = put(admin, "2"), put(other, "1")

    assert first == again
    assert len({first, second, of_other}) == 3
    assert len(messages(alice, notice_room(alice))) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"user_id": None}, (400, "M_BAD_JSON")),
        ({"user_id": "@nobody:localhost"}, (404, "M_NOT_FOUND")),
        ({"user_id": "@alice:elsewhere.test"}, (400, "M_UNKNOWN")),
        ({"user_id": "alice"}, (400, "M_UNKNOWN")),
        ({"content": "text"}, (400, "M_BAD_JSON")),
        ({"content": {"a": 1.5}}, (400, "M_BAD_JSON")),
        ({"content": {"body": "x" * 70_000}}, (413, "M_TOO_LARGE")),
        ({"type": 1}, (400, "M_BAD_JSON")),
        ({"type": ""}, (400, "M_INVALID_PARAM")),
        ({"state_key": {}}, (400, "M_BAD_JSON")),
    ],
)
def test_a_wrong_notice_changes_nothing(
    app: Application, admin: Person, alice: Person, change: Json, expected: tuple[int, str]
) -> None:
    body = {"user_id": alice.user_id, "content": CONTENT}
    admin.post(SEND, json=body)

    with unchanged(app):
        assert refusal(admin.post(SEND, json={**body, **change})) == expected
        assert refusal(admin.put(f"{SEND}/1", json={**body, **change})) == expected
        for key in body:
            less = {it: body[it] for it in body if it != key}
            assert refusal(admin.post(SEND, json=less)) == (400, "M_MISSING_PARAM")


def test_notices_have_to_be_switched_on(make_app: MakeApp) -> None:
    client, auth = make_app().test_client(), {"type": "m.login.dummy"}
    me = {"username": "owner", "password": PASSWORD, "auth": auth}
    session = client.post(V3 + "register", json=me).get_json()
    admin = Person(client, session["user_id"], session["access_token"], session["device_id"])

    answer = admin.post(SEND, json={"user_id": admin.user_id, "content": CONTENT})

    assert refusal(answer) == (400, "M_UNKNOWN")
