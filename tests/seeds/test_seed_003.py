"""003: what a bot does with curl.

The commands are the document's; `<ACCESS_TOKEN>` and the like stand for the test's own, and
`$(uuidgen)` for what that program prints.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from tests.conftest import MakeApp
from tests.seeds.printed import Answer, Curl, InProcess

Json = dict[str, Any]

LOGIN = r"""
curl -X POST "https://bot.academiccloud.de/_matrix/client/v3/login" -d \
    '{
    "type": "m.login.password",
    "user": "uXXXXX",
    "password": "<Password or token from IDM>"
    }'
"""
SEND = r"""
curl -X PUT "https://bot.academiccloud.de/_matrix/client/v3/rooms/%21<ROOM_ID>:<HOME_SERVER>/send/m.room.message/$(uuidgen)" \
     -H "Authorization: Bearer <ACCESS_TOKEN>" \
     -H "Content-Type: application/json" \
     -d '{
           "msgtype": "m.text",
           "body": "Hello, world!"
         }'
"""  # noqa: E501 - as printed
LISTEN = r"""
curl -X GET "https://bot.academiccloud.de/_matrix/client/v3/sync?timeout=3600" \
    -H "Authorization: Bearer <ACCESS_TOKEN>"
"""
SERVER = "bot.academiccloud.de"
BASE_URL = "https://bot.academiccloud.de/"
PASSWORD = "<Password or token from IDM>"


@pytest.fixture
def bot(make_app: MakeApp) -> Curl:
    """curl, and the document's server with the bot's account on it."""
    settings = {"server_name": SERVER, "public_url": BASE_URL}
    app = make_app(registration="open", registration_open_to_all="true", **settings)
    client = app.test_client()
    # user names have small letters; who types others means the same account
    body = {"username": "uxxxxx", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    assert client.post("/_matrix/client/v3/register", json=body).status_code == 200
    return InProcess(client)


@pytest.fixture
def token(bot: Curl) -> str:
    return str(bot(LOGIN).json["access_token"])


@pytest.fixture
def room_id(bot: Curl, token: str) -> str:
    command = LISTEN.replace("GET", "POST").replace("sync?timeout=3600", "createRoom")
    with_body = f"{command.rstrip()} -d '{{}}'"
    return str(bot(with_body, {"<ACCESS_TOKEN>": token}).json["room_id"])


def send(bot: Curl, token: str, room_id: str, transaction_id: str | None = None) -> Answer:
    """Do what the document says under "Send a Message to a Room"."""
    name, _, server = room_id[1:].partition(":")
    words = {
        "<ROOM_ID>": name,
        "<HOME_SERVER>": server,
        "$(uuidgen)": transaction_id or str(uuid.uuid4()),
        "<ACCESS_TOKEN>": token,
    }
    return bot(SEND, words)


def listen(bot: Curl, token: str, query: str = "timeout=3600") -> Json:
    """Do what the document says under "Listen for Messages in Rooms"."""
    answer = bot(LISTEN.replace("timeout=3600", query), {"<ACCESS_TOKEN>": token})
    assert answer.status == 200, answer.text
    body: Json = answer.json
    return body


def test_the_bot_logs_in(bot: Curl) -> None:
    answer = bot(LOGIN)

    assert answer.status == 200
    session = answer.json
    assert session["user_id"] == f"@uxxxxx:{SERVER}"
    assert isinstance(session["access_token"], str)
    assert session["home_server"] == SERVER
    assert isinstance(session["device_id"], str)
    base_url = session["well_known"]["m.homeserver"]["base_url"]
    assert base_url.rstrip("/") == BASE_URL.rstrip("/")


def test_the_bot_writes(bot: Curl, token: str, room_id: str) -> None:
    answer = send(bot, token, room_id)

    assert answer.status == 200
    assert answer.json["event_id"].startswith("$")


def test_each_uuid_is_one_message(bot: Curl, token: str, room_id: str) -> None:
    same = [send(bot, token, room_id, "0b8e2cf3-a1ab-4f3e-9a6c-5ad1e7c4ed8b") for _ in range(2)]
    other = send(bot, token, room_id)

    assert same[0].json == same[1].json
    assert other.json["event_id"] != same[0].json["event_id"]


def test_the_bot_listens(bot: Curl, token: str, room_id: str) -> None:
    event_id = send(bot, token, room_id).json["event_id"]
    began = time.monotonic()

    answer = listen(bot, token)

    assert time.monotonic() - began < 3  # there is something to send, so it is sent at once
    event = answer["rooms"]["join"][room_id]["timeline"]["events"][-1]
    assert (event["event_id"], event["type"]) == (event_id, "m.room.message")
    assert event["content"] == {"msgtype": "m.text", "body": "Hello, world!"}


def test_the_bot_listens_on_for_as_long_as_it_says(bot: Curl, token: str, room_id: str) -> None:
    since = listen(bot, token)["next_batch"]
    since = listen(bot, token, f"since={since}")["next_batch"]
    began = time.monotonic()

    answer = listen(bot, token, f"timeout=3600&since={since}")

    assert 3.6 <= time.monotonic() - began < 10
    assert room_id not in answer["rooms"]["join"]


@pytest.mark.parametrize(
    ("wanted", "is_heard"),
    [
        ('{"room":{"rooms":["ROOM"]}}', True),
        ('{"room":{"not_rooms":["ROOM"]}}', False),
        ('{"room":{"timeline":{"types":["m.room.message"]}}}', True),
    ],
)
def test_filters_limit_it_to_rooms_and_types(
    bot: Curl, token: str, room_id: str, wanted: str, is_heard: bool
) -> None:
    send(bot, token, room_id)
    query = "filter=" + wanted.replace("ROOM", room_id).replace('"', "%22")

    rooms = listen(bot, token, query)["rooms"]["join"]

    assert (room_id in rooms) == is_heard
    for room in rooms.values():
        assert room["timeline"]["events"][-1]["type"] == "m.room.message"
