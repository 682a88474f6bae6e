"""The two tutorials once more, with curl itself against a real server.

It runs with `make clients`, as a machine that has only Python and make has no curl.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.server import RunningServer, start
from tests.seeds import test_seed_002 as r0
from tests.seeds import test_seed_004 as prehistoric
from tests.seeds.printed import ByCurl

pytestmark = pytest.mark.clients


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    running = start(tmp_path)
    yield running
    running.stop()


def test_the_r0_tutorial_from_its_first_line_to_its_last(server: RunningServer) -> None:
    curl = ByCurl(server.url, r0.BASE)
    reader = r0.Tutorial(curl)
    assert curl(r0.GET_LOGIN).json == {"flows": [{"type": "m.login.password"}]}
    session = curl(r0.LOGIN).json
    assert (session["home_server"], session["user_id"]) == ("localhost", "@example:localhost")
    page = curl(r0.FALLBACK)
    assert (page.status, "<form" in page.text) == (200, True)

    reader.create_room()
    event_id = reader.do(r0.SEND)["event_id"]
    everything = reader.do(r0.SYNC)
    last = reader.do(r0.SYNC_LAST)["rooms"]["join"][reader.room_id]["timeline"]
    reader.do(r0.INVITE)
    reader.do(r0.JOIN, as_friend=True)
    joined = reader.do(r0.JOIN_DIRECTLY, as_friend=True)
    since = reader.do(r0.SYNC_SINCE, since=everything["next_batch"])

    timeline = everything["rooms"]["join"][reader.room_id]["timeline"]
    assert timeline["limited"] is False
    assert timeline["events"][0]["type"] == "m.room.create"
    assert [event["event_id"] for event in last["events"]] == [event_id]
    assert last["limited"] is True
    assert joined == {"room_id": reader.room_id}
    news = since["rooms"]["join"][reader.room_id]["timeline"]["events"]
    assert [event["content"]["membership"] for event in news] == ["invite", "join"]


def test_the_tutorial_of_2014_from_its_first_line_to_its_last(server: RunningServer) -> None:
    curl = ByCurl(server.url, prehistoric.BASE)
    reader = prehistoric.Tutorial(curl)
    assert curl(prehistoric.GET_LOGIN).json == {"type": "m.login.password"}
    session = curl(prehistoric.LOGIN).json
    assert (session["home_server"], session["user_id"]) == ("localhost", "@example:localhost")
    page = curl(prehistoric.FALLBACK)
    assert (page.status, "<form" in page.text) == (200, True)

    reader.create_room()
    answers = [reader.do(command) for command in (prehistoric.SEND, prehistoric.INVITE)]
    answers.append(reader.do(prehistoric.JOIN))
    joined = reader.do(prehistoric.JOIN_BY_ALIAS)
    (everything,) = reader.do(prehistoric.SYNC)
    (last,) = reader.do(prehistoric.SYNC_LAST)
    events = reader.do(prehistoric.EVENTS.replace("from=END", "from=END&timeout=100"))

    assert answers == [{}, {}, {}]
    assert joined == {"room_id": reader.room_id}
    bodies = [event["content"]["body"] for event in everything["messages"]["chunk"]]
    assert bodies == [
        "@example:localhost joined the room.",
        "hello",
        "@example:localhost invited @myfriend:localhost.",
        "@myfriend:localhost joined the room.",
    ]
    assert last["messages"]["chunk"] == everything["messages"]["chunk"][-1:]
    assert events["chunk"] == []
