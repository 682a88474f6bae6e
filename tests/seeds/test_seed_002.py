"""002: the tutorial of the r0 API with curl.

The commands are the document's; where it prints an id or a token of its own server, the test puts
in its own.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.conftest import MakeApp
from tests.seeds.printed import Answer, Curl, InProcess

Json = dict[str, Any]

BASE = "https://localhost:8448"
API = f"{BASE}/_matrix/client/r0"
REGISTER = (
    """curl -XPOST -d '{"username":"example", "password":"wordpass", """
    f""""auth": {{"type":"m.login.dummy"}}}}' "{API}/register" """
)
GET_LOGIN = f'curl -XGET "{API}/login"'
LOGIN = (
    """curl -XPOST -d '{"type":"m.login.password", "user":"example", "password":"wordpass"}' """
    f'"{API}/login"'
)
FALLBACK = f'curl -XGET "{API}/login/fallback"'
TOKEN = "YOUR_ACCESS_TOKEN"
ROOM = "asfLdzLnOdGRkdPZWu"
CREATE_ROOM = (
    """curl -XPOST -d '{"room_alias_name":"tutorial"}' """
    f'"{API}/createRoom?access_token={TOKEN}"'
)
SEND = (
    """curl -XPOST -d '{"msgtype":"m.text", "body":"hello"}' """
    f'"{API}/rooms/%21{ROOM}:localhost/send/m.room.message?access_token={TOKEN}"'
)
INVITE = (
    """curl -XPOST -d '{"user_id":"@myfriend:localhost"}' """
    f'"{API}/rooms/%21{ROOM}:localhost/invite?access_token={TOKEN}"'
)
JOIN = f"""curl -XPOST -d '{{}}' "{API}/rooms/%21{ROOM}:localhost/join?access_token={TOKEN}" """
JOIN_DIRECTLY = f"""curl -XPOST -d '{{}}' "{API}/join/%21{ROOM}:localhost?access_token={TOKEN}" """
SYNC = f'curl -XGET "{API}/sync?access_token={TOKEN}"'
SYNC_LAST = (
    f"""curl --globoff -XGET '{API}/sync?filter={{"room":{{"timeline":{{"limit":1}}}}}}"""
    f"&access_token={TOKEN}'"
)
SINCE = "s9_7_0_1_1_1"
SYNC_SINCE = f'curl -XGET "{API}/sync?since={SINCE}&access_token={TOKEN}"'

PRESENCE = {"currently_active", "last_active_ago", "presence"}


class Tutorial:
    """The reader, who follows the document with an account, and a friend."""

    def __init__(self, curl: Curl) -> None:
        self.curl = curl
        self.token: str = curl(REGISTER).json["access_token"]
        friend = REGISTER.replace('"example"', '"myfriend"')
        self.friends_token: str = curl(friend).json["access_token"]
        self.room_id = ""

    def run(self, command: str, *, as_friend: bool = False, since: str = "") -> Answer:
        """What the command brings, with the reader's own token and room in it."""
        token = self.friends_token if as_friend else self.token
        own = {TOKEN: token, ROOM: self.room_id[1:-10], SINCE: since}
        return self.curl(command, {word: own[word] for word in own if word in command})

    def do(self, command: str, *, as_friend: bool = False, since: str = "") -> Any:
        """The same for what is not an error."""
        answer = self.run(command, as_friend=as_friend, since=since)
        assert answer.status == 200, answer.text
        return answer.json

    def create_room(self) -> None:
        self.room_id = self.do(CREATE_ROOM)["room_id"]


@pytest.fixture
def tutorial(curl: Curl) -> Tutorial:
    """The document read up to "Communicating"."""
    return Tutorial(curl)


@pytest.fixture
def in_room(tutorial: Tutorial) -> Tutorial:
    """The document read up to "Sending messages"."""
    tutorial.create_room()
    return tutorial


def check_event(event: Json, fields: set[str]) -> None:
    """The fields that the document shows of every event, and these."""
    shown = {"content", "event_id", "origin_server_ts", "sender", "type", "unsigned"}
    assert event.keys() >= shown | fields
    assert event["event_id"].startswith("$")
    assert isinstance(event["origin_server_ts"], int)
    assert abs(event["origin_server_ts"] - time.time() * 1000) < 60_000
    assert event["sender"] == "@example:localhost"
    assert isinstance(event["unsigned"]["age"], int)
    assert 0 <= event["unsigned"]["age"] < 60_000


def check_own_presence(event: Json) -> None:
    assert (event["sender"], event["type"]) == ("@example:localhost", "m.presence")
    assert event["content"].keys() >= PRESENCE
    assert event["content"]["currently_active"] is True
    assert event["content"]["presence"] == "online"
    assert isinstance(event["content"]["last_active_ago"], int)
    assert 0 <= event["content"]["last_active_ago"] < 60_000


# --- Accounts


def test_registration_gives_a_user_id_and_an_access_token(curl: Curl) -> None:
    answer = curl(REGISTER)

    assert answer.status == 200
    assert answer.json["home_server"] == "localhost"
    assert answer.json["user_id"] == "@example:localhost"
    assert curl(SYNC, {TOKEN: answer.json["access_token"]}).status == 200


def test_who_names_no_user_gets_a_random_one(curl: Curl) -> None:
    command = REGISTER.replace('"username":"example", "password":"wordpass", ', "")

    answers = [curl(command), curl(command)]

    assert [answer.status for answer in answers] == [200, 200]
    user_ids = {answer.json["user_id"] for answer in answers}
    assert len(user_ids) == 2
    assert all(re.fullmatch(r"@[a-z0-9]+:localhost", user_id) for user_id in user_ids)


def test_who_gives_no_password_can_not_log_in(curl: Curl) -> None:
    answer = curl(REGISTER.replace('"password":"wordpass", ', ""))
    assert answer.json["user_id"] == "@example:localhost"

    answer = curl(LOGIN)

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")


def test_the_way_to_register_has_to_be_said(curl: Curl) -> None:
    answer = curl(REGISTER.replace(', "auth": {"type":"m.login.dummy"}', ""))

    assert answer.status == 401
    assert {"stages": ["m.login.dummy"]} in answer.json["flows"]
    assert isinstance(answer.json["session"], str)


def test_the_ways_to_log_in_can_be_asked_for(curl: Curl) -> None:
    answer = curl(GET_LOGIN)

    assert (answer.status, answer.json) == (200, {"flows": [{"type": "m.login.password"}]})


def test_login_gives_an_access_token_for_the_same_user(curl: Curl) -> None:
    first = curl(REGISTER).json["access_token"]

    answer = curl(LOGIN)

    assert answer.status == 200
    assert answer.json["home_server"] == "localhost"
    assert answer.json["user_id"] == "@example:localhost"
    assert answer.json["access_token"] != first
    assert curl(SYNC, {TOKEN: answer.json["access_token"]}).status == 200


def test_a_basic_web_page_to_log_in_with(curl: Curl) -> None:
    answer = curl(FALLBACK)

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<form" in answer.text
    assert 'type="password"' in answer.text


# --- Communicating


def test_creating_a_room_gives_its_id_and_alias(tutorial: Tutorial) -> None:
    answer = tutorial.do(CREATE_ROOM)

    assert answer["room_alias"] == "#tutorial:localhost"
    assert re.fullmatch(r"![A-Za-z]{18}:localhost", answer["room_id"])


def test_a_message_sent_without_a_transaction_id_gets_an_event_id(in_room: Tutorial) -> None:
    first, second = in_room.do(SEND), in_room.do(SEND)

    assert isinstance(first["event_id"], str)
    assert first["event_id"] != second["event_id"]


@pytest.mark.parametrize(
    "msgtype", ["m.text", "m.image", "m.audio", "m.video", "m.location", "m.emote", "org.example.x"]
)
def test_there_are_no_limitations_to_the_types_of_messages(in_room: Tutorial, msgtype: str) -> None:
    in_room.do(SEND.replace("m.text", msgtype))

    room = in_room.do(SYNC_LAST)["rooms"]["join"][in_room.room_id]
    assert room["timeline"]["events"][0]["content"]["msgtype"] == msgtype


# --- Users and rooms


def test_an_invite_informs_the_friend_of_the_room(in_room: Tutorial) -> None:
    assert in_room.do(INVITE) == {}

    rooms = in_room.do(SYNC, as_friend=True)["rooms"]
    assert list(rooms["invite"]) == [in_room.room_id]
    assert rooms["join"] == {}


def test_who_is_invited_joins(in_room: Tutorial) -> None:
    in_room.do(INVITE)

    assert in_room.do(JOIN, as_friend=True)["room_id"] == in_room.room_id

    assert list(in_room.do(SYNC, as_friend=True)["rooms"]["join"]) == [in_room.room_id]


def test_only_who_is_invited_joins(in_room: Tutorial) -> None:
    answer = in_room.run(JOIN, as_friend=True)

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")


def test_repeatedly_joining_a_room_does_nothing(in_room: Tutorial) -> None:
    in_room.do(INVITE)
    in_room.do(JOIN, as_friend=True)
    since = in_room.do(SYNC)["next_batch"]

    assert in_room.do(JOIN, as_friend=True)["room_id"] == in_room.room_id

    assert in_room.do(SYNC_SINCE, since=since)["rooms"]["join"] == {}


def test_who_is_invited_joins_directly(in_room: Tutorial) -> None:
    in_room.do(INVITE)

    assert in_room.do(JOIN_DIRECTLY, as_friend=True) == {"room_id": in_room.room_id}


def test_who_is_invited_joins_by_the_alias(in_room: Tutorial) -> None:
    in_room.do(INVITE)
    by_alias = JOIN_DIRECTLY.replace(f"%21{ROOM}:localhost", "%23tutorial%3Alocalhost")

    assert in_room.do(by_alias, as_friend=True) == {"room_id": in_room.room_id}


def test_the_alias_alone_opens_no_invite_only_room(in_room: Tutorial) -> None:
    by_alias = JOIN_DIRECTLY.replace(f"%21{ROOM}:localhost", "%23tutorial%3Alocalhost")

    answer = in_room.run(by_alias, as_friend=True)

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")


# --- Getting events


def test_all_state_of_all_rooms(in_room: Tutorial) -> None:
    in_room.do(SEND)
    began = time.monotonic()

    answer = in_room.do(SYNC)

    assert time.monotonic() - began < 2
    assert answer.keys() >= {"account_data", "next_batch", "presence", "rooms"}
    assert answer["account_data"]["events"]
    assert all(event.keys() >= {"type", "content"} for event in answer["account_data"]["events"])
    assert isinstance(answer["next_batch"], str)
    (presence,) = answer["presence"]["events"]
    check_own_presence(presence)
    rooms = answer["rooms"]
    assert (rooms["invite"], rooms["leave"]) == ({}, {})
    assert list(rooms["join"]) == [in_room.room_id]


def test_a_new_room_is_told_from_its_first_event_on(in_room: Tutorial) -> None:
    in_room.do(SEND)

    room = in_room.do(SYNC)["rooms"]["join"][in_room.room_id]

    for section in ("account_data", "ephemeral", "state"):
        assert room[section] == {"events": []}
    assert isinstance(room["unread_notifications"], dict)
    timeline = room["timeline"]
    assert timeline["limited"] is False
    assert isinstance(timeline["prev_batch"], str)
    create, member, *_, message = timeline["events"]
    check_event(create, {"state_key"})
    assert (create["type"], create["state_key"]) == ("m.room.create", "")
    assert create["content"]["creator"] == "@example:localhost"
    check_event(member, {"state_key", "membership"})
    assert (member["type"], member["state_key"]) == ("m.room.member", "@example:localhost")
    assert member["membership"] == member["content"]["membership"] == "join"
    # null in the document: its server gave new accounts no name
    assert member["content"].get("displayname") == "example"
    # null in the document: the account has none
    assert member["content"].get("avatar_url") is None
    check_event(message, set())
    assert message["content"] == {"body": "hello", "msgtype": "m.text"}


def test_events_of_version_1_have_ids_as_the_document_prints_them(make_app: MakeApp) -> None:
    tutorial = Tutorial(InProcess(make_app(default_room_version="1").test_client()))
    tutorial.create_room()

    timeline = tutorial.do(SYNC)["rooms"]["join"][tutorial.room_id]["timeline"]

    create = timeline["events"][0]
    assert re.fullmatch(r"\$[^:]+:localhost", create["event_id"])


def test_a_filter_asks_for_the_most_recent_event_of_each_room(in_room: Tutorial) -> None:
    in_room.do(SEND)

    answer = in_room.do(SYNC_LAST)

    rooms = answer["rooms"]
    assert (rooms["invite"], rooms["leave"]) == ({}, {})
    assert list(rooms["join"]) == [in_room.room_id]
    room = rooms["join"][in_room.room_id]
    assert isinstance(room["unread_notifications"], dict)
    timeline = room["timeline"]
    assert timeline["limited"] is True
    assert isinstance(timeline["prev_batch"], str)
    (event,) = timeline["events"]
    check_event(event, set())
    assert event["type"] == "m.room.message"
    assert event["content"] == {"body": "hello", "msgtype": "m.text"}


def test_going_back_from_there_shows_the_rest(in_room: Tutorial) -> None:
    in_room.do(SEND)
    room = in_room.do(SYNC_LAST)["rooms"]["join"][in_room.room_id]
    seen = room["timeline"]["events"][0]["event_id"]

    page = f"dir=b&limit=100&from={room['timeline']['prev_batch']}"
    answer = in_room.do(SYNC.replace("/sync?", f"/rooms/%21{ROOM}:localhost/messages?{page}&"))

    types = [event["type"] for event in answer["chunk"]]
    assert types[-2:] == ["m.room.member", "m.room.create"]
    assert seen not in [event["event_id"] for event in answer["chunk"]]


def test_the_token_brings_the_updates_since_then(in_room: Tutorial) -> None:
    since = in_room.do(SYNC)["next_batch"]
    in_room.do(SEND)

    answer = in_room.do(SYNC_SINCE, since=since)

    room = answer["rooms"]["join"][in_room.room_id]
    (event,) = room["timeline"]["events"]
    assert event["content"]["body"] == "hello"
    assert answer["next_batch"] != since


def test_where_nothing_has_happened_the_answer_is_empty_and_comes_at_once(
    in_room: Tutorial,
) -> None:
    since = in_room.do(SYNC)["next_batch"]
    began = time.monotonic()

    answer = in_room.do(SYNC_SINCE, since=since)

    assert time.monotonic() - began < 2
    assert answer["account_data"] == {"events": []}
    assert isinstance(answer["next_batch"], str)
    for presence in answer["presence"]["events"]:
        check_own_presence(presence)
    rooms = answer["rooms"]
    assert (rooms["invite"], rooms["join"], rooms["leave"]) == ({}, {}, {})
    again = in_room.do(SYNC_SINCE, since=answer["next_batch"])
    assert again["presence"] == {"events": []}
    assert again["next_batch"] == answer["next_batch"]


def test_the_timeout_in_milliseconds_lets_the_server_wait(in_room: Tutorial) -> None:
    since = in_room.do(SYNC)["next_batch"]
    since = in_room.do(SYNC_SINCE, since=since)["next_batch"]
    waiting = SYNC_SINCE.replace("since=", "timeout=300&since=")
    began = time.monotonic()

    answer = in_room.do(waiting, since=since)

    assert 0.3 <= time.monotonic() - began < 3
    assert answer["rooms"]["join"] == {}


def test_what_is_new_already_is_not_waited_for(in_room: Tutorial) -> None:
    since = in_room.do(SYNC)["next_batch"]
    in_room.do(SEND)
    began = time.monotonic()

    answer = in_room.do(SYNC_SINCE.replace("since=", "timeout=20000&since="), since=since)

    assert time.monotonic() - began < 5
    assert list(answer["rooms"]["join"]) == [in_room.room_id]


def test_the_token_of_another_server_is_refused(in_room: Tutorial) -> None:
    answer = in_room.run(SYNC_SINCE, since=SINCE)  # as printed

    assert (answer.status, answer.json["errcode"]) == (400, "M_INVALID_PARAM")
