"""000: today's API in brief.

The blocks are the document's, with ids of the test's own in the places of `{roomId}` and the like.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.seeds.conftest import HOST, MakeServer
from tests.seeds.printed import Answer, InProcess, request_in

Json = dict[str, Any]

LOGIN = """
POST /_matrix/client/v3/login

{
  "type": "m.login.password",
  "identifier": {
    "type": "m.id.user",
    "user": "username"
  },
  "password": "password",
  "initial_device_display_name": "My Device"
}
"""
SYNC = "GET /_matrix/client/v3/sync?timeout=30000"
SYNC_SINCE = "GET /_matrix/client/v3/sync?since=s123_456&timeout=30000"
CREATE_ROOM = """
POST /_matrix/client/v3/createRoom

{
  "name": "My Room",
  "topic": "Discussion",
  "preset": "private_chat",
  "invite": ["@friend:example.com"]
}
"""
JOIN = "POST /_matrix/client/v3/join/{roomIdOrAlias}"
SEND = """
PUT /_matrix/client/v3/rooms/{roomId}/send/m.room.message/{txnId}

{
  "msgtype": "m.text",
  "body": "Hello!"
}
"""
MESSAGES = "GET /_matrix/client/v3/rooms/{roomId}/messages?dir=b&limit=50"
PUT_STATE = "PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}"
REDACT = "PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}"
GET_PROFILE = "GET /_matrix/client/v3/profile/{userId}"
PUT_DISPLAYNAME = """
PUT /_matrix/client/v3/profile/{userId}/displayname

{
  "displayname": "New Name"
}
"""
USER, FRIEND = "@username:example.com", "@friend:example.com"


class Asker:
    """Somebody with an account, or without, who sends the document's blocks."""

    def __init__(self, client: FlaskClient, token: str | None = None) -> None:
        self.client = client
        self.token = token

    def ask(self, block: str, **words: str) -> Answer:
        """The answer to a block; `roomId="!x:y"` takes the place of {roomId}."""
        for name, value in words.items():
            assert f"{{{name}}}" in block, block
            block = block.replace(f"{{{name}}}", quote(value, safe=""))
        return InProcess(self.client).send(request_in(block, self.token, HOST))

    def do(self, block: str, **words: str) -> Any:
        """The same for what is not an error."""
        answer = self.ask(block, **words)
        assert answer.status == 200, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json


def register(client: FlaskClient, name: str) -> Asker:
    """The account of this name, with the document's password."""
    body = {"username": name, "password": "password", "auth": {"type": "m.login.dummy"}}
    answer = client.post("/_matrix/client/v3/register", json=body)
    return Asker(client, answer.get_json()["access_token"])


@pytest.fixture
def server(make_server: MakeServer) -> FlaskClient:
    return make_server()


@pytest.fixture
def user(server: FlaskClient) -> Asker:
    return register(server, "username")


@pytest.fixture
def friend(server: FlaskClient, user: Asker) -> Asker:
    assert user.token
    return register(server, "friend")


def error(answer: Answer) -> tuple[int, str]:
    """(status, errcode) of an error in the standard format."""
    assert isinstance(answer.json["error"], str)
    return answer.status, answer.json["errcode"]


# --- Authentication


def test_login_with_a_password(server: FlaskClient, user: Asker) -> None:
    session = Asker(server).do(LOGIN)

    assert session["user_id"] == USER
    assert isinstance(session["access_token"], str)
    assert session["access_token"] != user.token
    assert isinstance(session["device_id"], str)
    device = Asker(server, session["access_token"]).do(
        f"GET /_matrix/client/v3/devices/{session['device_id']}"
    )
    assert device["display_name"] == "My Device"


def test_the_token_in_the_header_authenticates(user: Asker) -> None:
    assert user.do("GET /_matrix/client/v3/account/whoami")["user_id"] == USER


# --- Sync


def test_sync_tells_all_there_is(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    began = time.monotonic()

    answer = user.do(SYNC)

    assert time.monotonic() - began < 5
    assert list(answer["rooms"]["join"]) == [room_id]
    assert answer["presence"]["events"][0]["content"]["presence"] == "online"
    assert "m.push_rules" in [event["type"] for event in answer["account_data"]["events"]]
    # "Device messages": the section may be left out while there are none
    assert answer.get("to_device", {"events": []}) == {"events": []}


def test_a_token_brings_what_is_new_since_then(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    since = user.do(SYNC)["next_batch"]
    user.do(SEND, roomId=room_id, txnId="1")

    answer = user.do(SYNC_SINCE.replace("s123_456", since))

    (event,) = answer["rooms"]["join"][room_id]["timeline"]["events"]
    assert event["content"] == {"msgtype": "m.text", "body": "Hello!"}


def test_the_printed_token_is_one_of_a_server_that_has_seen_a_little(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    for number in range(130):
        user.do(SEND.replace("Hello!", str(number)), roomId=room_id, txnId=str(number))

    answer = user.do(SYNC_SINCE)

    timeline = answer["rooms"]["join"][room_id]["timeline"]
    assert timeline["events"][-1]["content"]["body"] == "129"


# --- Rooms


def test_a_room_is_made_as_wished(user: Asker, friend: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]

    state = user.do("GET /_matrix/client/v3/rooms/{roomId}/state", roomId=room_id)
    known = {(event["type"], event["state_key"]): event["content"] for event in state}
    assert known["m.room.name", ""] == {"name": "My Room"}
    assert known["m.room.topic", ""]["topic"] == "Discussion"
    assert known["m.room.join_rules", ""] == {"join_rule": "invite"}
    assert known["m.room.member", FRIEND]["membership"] == "invite"
    assert list(friend.do(SYNC)["rooms"]["invite"]) == [room_id]


def test_the_friend_joins(user: Asker, friend: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]

    assert friend.do(JOIN, roomIdOrAlias=room_id) == {"room_id": room_id}

    assert list(friend.do(SYNC)["rooms"]["join"]) == [room_id]


def test_a_room_is_joined_by_its_alias_too(user: Asker, friend: Asker) -> None:
    with_alias = CREATE_ROOM.replace('"name"', '"room_alias_name": "mine", "name"')
    room_id = user.do(with_alias)["room_id"]

    assert friend.do(JOIN, roomIdOrAlias="#mine:example.com") == {"room_id": room_id}


def test_a_message_is_sent_once_for_each_transaction(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]

    first = user.do(SEND, roomId=room_id, txnId="m1")
    again = user.do(SEND, roomId=room_id, txnId="m1")
    other = user.do(SEND, roomId=room_id, txnId="m2")

    assert first == again
    assert first["event_id"] != other["event_id"]


# --- Events


def test_the_messages_of_a_room(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    event_id = user.do(SEND, roomId=room_id, txnId="1")["event_id"]

    answer = user.do(MESSAGES, roomId=room_id)

    newest, *_, oldest = answer["chunk"]
    assert (newest["event_id"], newest["content"]["body"]) == (event_id, "Hello!")
    assert oldest["type"] == "m.room.create"


def test_state_is_sent(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    block = PUT_STATE + '\n\n{"colour": "blue"}'
    entry = {"roomId": room_id, "eventType": "org.example.thing", "stateKey": "a/b"}

    event_id = user.do(block, **entry)["event_id"]

    assert event_id.startswith("$")
    assert user.do(PUT_STATE.replace("PUT", "GET"), **entry) == {"colour": "blue"}


def test_an_event_is_redacted(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    event_id = user.do(SEND, roomId=room_id, txnId="1")["event_id"]

    answer = user.do(REDACT, roomId=room_id, eventId=event_id, txnId="2")

    assert answer["event_id"] != event_id
    redaction, redacted, *_ = user.do(MESSAGES, roomId=room_id)["chunk"]
    assert (redaction["type"], redaction["redacts"]) == ("m.room.redaction", event_id)
    assert (redacted["event_id"], redacted["content"]) == (event_id, {})


# --- User Profile


def test_a_profile_is_set_and_read(user: Asker, friend: Asker) -> None:
    assert user.do(GET_PROFILE, userId=USER) == {"displayname": "username"}

    assert user.do(PUT_DISPLAYNAME, userId=USER) == {}

    assert friend.do(GET_PROFILE, userId=USER) == {"displayname": "New Name"}


def test_the_name_reaches_the_rooms(user: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]

    user.do(PUT_DISPLAYNAME, userId=USER)

    entry = {"roomId": room_id, "eventType": "m.room.member", "stateKey": USER}
    assert user.do(PUT_STATE.replace("PUT", "GET"), **entry)["displayname"] == "New Name"


# --- Error Responses


def test_permission_denied(server: FlaskClient, user: Asker, friend: Asker) -> None:
    room_id = user.do(CREATE_ROOM)["room_id"]
    wrong = LOGIN.replace('"password": "password"', '"password": "secret"')

    assert error(friend.ask(SEND, roomId=room_id, txnId="1")) == (403, "M_FORBIDDEN")
    assert error(friend.ask(PUT_DISPLAYNAME, userId=USER)) == (403, "M_FORBIDDEN")
    assert error(Asker(server).ask(wrong)) == (403, "M_FORBIDDEN")


def test_resource_not_found(user: Asker) -> None:
    nobody = user.ask(GET_PROFILE, userId="@nobody:example.com")
    nowhere = user.ask(JOIN, roomIdOrAlias="#nowhere:example.com")

    assert error(nobody) == error(nowhere) == (404, "M_NOT_FOUND")


def test_invalid_access_token(server: FlaskClient) -> None:
    assert error(Asker(server, "syt_made_up").ask(SYNC)) == (401, "M_UNKNOWN_TOKEN")


def test_malformed_request(user: Asker) -> None:
    wrong_type = CREATE_ROOM.replace('"My Room"', "5")

    assert error(user.ask(wrong_type)) == (400, "M_BAD_JSON")


def test_rate_limited_and_let_pass_after_the_time_told(make_server: MakeServer) -> None:
    limit = {"rc_message.burst_count": "1", "rc_message.per_second": "2"}
    user = register(make_server(rate_limits="true", **limit), "username")
    room_id = user.do(CREATE_ROOM)["room_id"]
    user.do(SEND, roomId=room_id, txnId="1")

    answer = user.ask(SEND, roomId=room_id, txnId="2")

    assert error(answer) == (429, "M_LIMIT_EXCEEDED")
    retry_after_ms = answer.json["retry_after_ms"]
    assert isinstance(retry_after_ms, int)
    assert 0 < retry_after_ms <= 501
    assert answer.headers["Retry-After"] == "1"
    time.sleep(retry_after_ms / 1000)
    user.do(SEND, roomId=room_id, txnId="2")
