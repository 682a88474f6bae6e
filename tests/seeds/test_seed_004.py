"""004: the tutorial of 2014, for the API before Matrix had a version.

The commands are the document's; where it prints an id of its own server, the test puts in its own.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest

from tests.conftest import Login
from tests.seeds.printed import Curl

Json = dict[str, Any]

BASE = "http://localhost:8080"
API = f"{BASE}/matrix/client/api/v1"
REGISTER = f"""curl -XPOST -d '{{"user_id":"example", "password":"wordpass"}}' "{API}/register" """
GET_LOGIN = f'curl -XGET "{API}/login"'
LOGIN = (
    """curl -XPOST -d '{"type":"m.login.password", "user":"example", "password":"wordpass"}' """
    f'"{API}/login"'
)
FALLBACK = f'curl "{API}/login/fallback"'
TOKEN = "QGV4YW1wbGU6bG9jYWxob3N0.vRDLTgxefmKWQEtgGd"
FRIENDS_TOKEN = "QG15ZnJpZW5kOmxvY2FsaG9zdA...XKuGdVsovHmwMyDDvK"
ROOM = "CvcvRuDYDzTOzfKKgh"
CREATE_ROOM = (
    f"""curl -XPOST -d '{{"room_alias_name":"tutorial"}}' "{API}/rooms?access_token={TOKEN}" """
)
SEND = (
    """curl -XPUT -d '{"msgtype":"m.text", "body":"hello"}' """
    f'"{API}/rooms/%21{ROOM}:localhost/messages/%40example%3Alocalhost/msgid1?access_token={TOKEN}"'
)
_MEMBER = f"{API}/rooms/%21{ROOM}:localhost/members/%40myfriend%3Alocalhost/state?access_token="
INVITE = f"""curl -XPUT -d '{{"membership":"invite"}}' "{_MEMBER}{TOKEN}" """
JOIN = f"""curl -XPUT -d '{{"membership":"join"}}' "{_MEMBER}{FRIENDS_TOKEN}" """
JOIN_BY_ALIAS = (
    f"""curl -XPUT -d '{{}}' "{API}/join/%23tutorial%3Alocalhost?access_token={FRIENDS_TOKEN}" """
)
SYNC = f'curl -XGET "{API}/im/sync?access_token={FRIENDS_TOKEN}"'
SYNC_LAST = f'curl -XGET "{API}/im/sync?access_token={FRIENDS_TOKEN}&from=END&to=START&limit=1"'
EVENTS = f'curl -XGET "{API}/events?access_token={FRIENDS_TOKEN}&from=END"'

FIELDS_OF_AN_EVENT = {"content", "event_id", "msg_id", "room_id", "type", "user_id"}


class Tutorial:
    """The reader, who follows the document with an account, and a friend."""

    def __init__(self, curl: Curl) -> None:
        self.curl = curl
        self.token = curl(REGISTER).json["access_token"]
        friend = REGISTER.replace("example", "myfriend")
        self.friends_token = curl(friend).json["access_token"]
        self.room_id = ""

    def words(self, command: str) -> dict[str, str]:
        """What of a command is the reader's own."""
        own = {TOKEN: self.token, FRIENDS_TOKEN: self.friends_token, ROOM: self.room_id[1:-10]}
        return {printed: word for printed, word in own.items() if printed in command}

    def do(self, command: str) -> Any:
        """What the command answers, which is not an error."""
        answer = self.curl(command, self.words(command))
        assert answer.status == 200, answer.text
        return answer.json

    def create_room(self) -> None:
        self.room_id = self.do(CREATE_ROOM)["room_id"]


@pytest.fixture
def tutorial(curl: Curl) -> Tutorial:
    """The document read up to "Making rooms"."""
    return Tutorial(curl)


@pytest.fixture
def chat(tutorial: Tutorial) -> Tutorial:
    """The document read up to "Getting events"."""
    tutorial.create_room()
    for command in (SEND, INVITE, JOIN):
        tutorial.do(command)
    return tutorial


def join_notice(user_id: str, room_id: str, event: Json) -> Json:
    """What the document shows of somebody's join, with the ids and the time of this one."""
    hsob_ts = event["content"]["hsob_ts"]
    assert isinstance(hsob_ts, int)
    assert abs(hsob_ts - time.time() * 1000) < 60_000
    return {
        "content": {
            "body": f"{user_id} joined the room.",
            "hsob_ts": hsob_ts,
            "membership": "join",
            "membership_source": user_id,
            "membership_target": user_id,
            "msgtype": "m.text",
        },
        "event_id": event["event_id"],
        "msg_id": f"m{hsob_ts}",
        "room_id": room_id,
        "type": "m.room.message",
        "user_id": "_homeserver_",
    }


def hello(room_id: str, event: Json) -> Json:
    """What the document shows of the message."""
    return {
        "content": {"body": "hello", "hsob_ts": event["content"]["hsob_ts"], "msgtype": "m.text"},
        "event_id": event["event_id"],
        "msg_id": "msgid1",
        "room_id": room_id,
        "type": "m.room.message",
        "user_id": "@example:localhost",
    }


def test_registration_gives_an_access_token(curl: Curl) -> None:
    answer = curl(REGISTER)

    assert answer.status == 200
    assert answer.json["home_server"] == "localhost"
    assert answer.json["user_id"] == "@example:localhost"
    assert isinstance(answer.json["access_token"], str)
    assert curl(SYNC, {FRIENDS_TOKEN: answer.json["access_token"]}).json == []


def test_who_names_no_user_id_gets_a_random_one(curl: Curl) -> None:
    answers = [curl(f"""curl -XPOST -d '{{}}' "{API}/register" """) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    user_ids = [answer.json["user_id"] for answer in answers]
    assert all(re.fullmatch(r"@[a-z]+:localhost", user_id) for user_id in user_ids)
    assert len(set(user_ids)) == 2


def test_who_registers_without_a_password_can_not_log_in(curl: Curl) -> None:
    assert curl(f"""curl -XPOST -d '{{"user_id":"example"}}' "{API}/register" """).status == 200

    answer = curl(LOGIN)

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")


def test_the_way_to_log_in_can_be_asked_for(curl: Curl) -> None:
    answer = curl(GET_LOGIN)

    assert (answer.status, answer.json) == (200, {"type": "m.login.password"})


def test_login_gives_another_access_token(curl: Curl) -> None:
    first = curl(REGISTER).json["access_token"]

    answer = curl(LOGIN)

    assert answer.status == 200
    assert answer.json["home_server"] == "localhost"
    assert answer.json["user_id"] == "@example:localhost"
    assert answer.json["access_token"] != first
    assert curl(SYNC, {FRIENDS_TOKEN: answer.json["access_token"]}).json == []


def test_a_web_page_to_log_in_with(curl: Curl) -> None:
    answer = curl(FALLBACK)

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<form" in answer.text
    assert 'type="password"' in answer.text


def test_creating_a_room_gives_its_id_and_alias(tutorial: Tutorial) -> None:
    answer = tutorial.do(CREATE_ROOM)

    assert answer["room_alias"] == "#tutorial:localhost"
    assert re.fullmatch(r"![A-Za-z]{18}:localhost", answer["room_id"])


def test_a_message_is_sent(tutorial: Tutorial) -> None:
    tutorial.create_room()

    answer = tutorial.do(SEND)

    assert answer == {}
    (room,) = tutorial.do(SYNC.replace(FRIENDS_TOKEN, TOKEN))
    last = room["messages"]["chunk"][-1]
    assert last == hello(tutorial.room_id, last)


def test_any_message_with_a_msgtype_will_do(tutorial: Tutorial) -> None:
    tutorial.create_room()
    content = '{"msgtype":"org.example.dance", "steps":[1,2,{"kick":true}]}'
    command = SEND.replace('{"msgtype":"m.text", "body":"hello"}', content)

    assert tutorial.do(command) == {}

    (room,) = tutorial.do(SYNC.replace(FRIENDS_TOKEN, TOKEN))
    shown = room["messages"]["chunk"][-1]["content"]
    assert (shown["msgtype"], shown["steps"]) == ("org.example.dance", [1, 2, {"kick": True}])


def test_an_invite_tells_the_friend_of_the_room(tutorial: Tutorial) -> None:
    tutorial.create_room()

    assert tutorial.do(INVITE) == {}

    expected = {
        "room_id": tutorial.room_id,
        "membership": "invite",
        "inviter": "@example:localhost",
    }
    assert tutorial.do(SYNC) == [expected]


def test_who_is_invited_joins_by_changing_the_membership(tutorial: Tutorial) -> None:
    tutorial.create_room()
    tutorial.do(INVITE)

    assert tutorial.do(JOIN) == {}

    (room,) = tutorial.do(SYNC)
    assert (room["room_id"], room["membership"]) == (tutorial.room_id, "join")


def test_nobody_else_can_make_that_change(tutorial: Tutorial) -> None:
    tutorial.create_room()
    tutorial.do(INVITE)

    forged = JOIN.replace(FRIENDS_TOKEN, TOKEN)
    answer = tutorial.curl(forged, tutorial.words(forged))

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")
    (room,) = tutorial.do(SYNC)
    assert room["membership"] == "invite"


def test_who_is_invited_joins_by_the_alias(tutorial: Tutorial) -> None:
    tutorial.create_room()
    tutorial.do(INVITE)

    assert tutorial.do(JOIN_BY_ALIAS) == {"room_id": tutorial.room_id}

    (room,) = tutorial.do(SYNC)
    assert room["membership"] == "join"


def test_anybody_joins_by_the_alias_where_the_room_allows_it(tutorial: Tutorial) -> None:
    public = CREATE_ROOM.replace('"tutorial"', '"tutorial", "visibility":"public"')
    tutorial.room_id = tutorial.do(public)["room_id"]

    assert tutorial.do(JOIN_BY_ALIAS) == {"room_id": tutorial.room_id}


def test_nobody_joins_by_the_alias_where_the_room_does_not(tutorial: Tutorial) -> None:
    tutorial.create_room()

    answer = tutorial.curl(JOIN_BY_ALIAS, tutorial.words(JOIN_BY_ALIAS))

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")


def test_all_state_of_all_rooms(chat: Tutorial) -> None:
    (room,) = chat.do(SYNC)

    assert room.keys() >= {"membership", "messages", "room_id"}
    assert (room["membership"], room["room_id"]) == ("join", chat.room_id)
    chunk = room["messages"]["chunk"]
    assert all(event.keys() == FIELDS_OF_AN_EVENT for event in chunk)
    assert chunk[0] == join_notice("@example:localhost", chat.room_id, chunk[0])
    assert chunk[1] == hello(chat.room_id, chunk[1])
    assert chunk[-1] == join_notice("@myfriend:localhost", chat.room_id, chunk[-1])
    assert room["messages"]["start"] == "0"
    assert re.fullmatch("[0-9]+", room["messages"]["end"])


def test_the_most_recent_message_of_each_room(chat: Tutorial) -> None:
    (room,) = chat.do(SYNC_LAST)

    assert (room["membership"], room["room_id"]) == ("join", chat.room_id)
    (event,) = room["messages"]["chunk"]
    assert event == join_notice("@myfriend:localhost", chat.room_id, event)
    end, start = room["messages"]["end"], room["messages"]["start"]
    assert (type(end), type(start)) == (str, str)
    assert int(end) == int(start) - 1


def test_waiting_for_an_event_ends_after_several_seconds(chat: Tutorial) -> None:
    began = time.monotonic()

    answer = chat.do(EVENTS)

    assert 2 < time.monotonic() - began < 20
    assert (set(answer), answer["chunk"]) == ({"chunk", "end", "start"}, [])
    assert re.fullmatch("[0-9]+", answer["start"])
    # the same in the document; here, each COMMIT has a position of its own, also one of presence
    assert int(answer["end"]) - int(answer["start"]) in {0, 1}


def test_an_event_ends_the_waiting(chat: Tutorial) -> None:
    answers: list[Json] = []
    waiting = threading.Thread(target=lambda: answers.append(chat.do(EVENTS)))
    began = time.monotonic()
    waiting.start()
    time.sleep(0.3)
    chat.do(SEND.replace("msgid1", "msgid2"))
    waiting.join()

    assert time.monotonic() - began < 3
    (answer,) = answers
    (event,) = answer["chunk"]
    assert (event["msg_id"], event["content"]["body"]) == ("msgid2", "hello")
    assert int(answer["start"]) < int(answer["end"])


def test_going_on_from_the_end_misses_nothing_and_repeats_nothing(chat: Tutorial) -> None:
    at_once = EVENTS.replace("from=END", "timeout=0&from=END")
    end = chat.do(at_once)["end"]
    told = []
    for number in range(2, 7):
        chat.do(SEND.replace("msgid1", f"msgid{number}"))
        if number % 2 == 0:
            answer = chat.do(at_once.replace("from=END", f"from={end}"))
            assert answer["start"] == end
            end = answer["end"]
            told += [event["msg_id"] for event in answer["chunk"]]

    assert told == [f"msgid{number}" for number in range(2, 7)]


def test_a_timeout_of_zero_does_not_block(chat: Tutorial) -> None:
    began = time.monotonic()

    answer = chat.do(EVENTS.replace("from=END", "from=END&timeout=0"))

    assert time.monotonic() - began < 1
    assert answer["chunk"] == []


def test_the_timeout_is_in_milliseconds(chat: Tutorial) -> None:
    began = time.monotonic()

    answer = chat.do(EVENTS.replace("from=END", "from=END&timeout=300"))

    assert 0.3 <= time.monotonic() - began < 2
    assert answer["chunk"] == []


def test_a_client_of_today_meets_the_same_room(chat: Tutorial, login: Login) -> None:
    carol = login("carol")
    invite = INVITE.replace("myfriend", "carol")
    chat.do(invite)
    carol.post(f"rooms/{chat.room_id}/join")
    carol.send(chat.room_id, "from the future")

    (room,) = chat.do(SYNC)
    last = room["messages"]["chunk"][-1]
    assert (last["user_id"], last["content"]["body"]) == ("@carol:localhost", "from the future")
    timeline = carol.sync()["rooms"]["join"][chat.room_id]["timeline"]["events"]
    bodies = [event["content"].get("body") for event in timeline]
    assert "hello" in bodies
