"""Servers get the events of a room that they lack."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from homebody.core.federation import earlier_events
from homebody.spec import signing
from homebody.spec.events import Json
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.background.federation.test_sender import registered
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import refusal
from tests.helpers.signing_server import SigningServer

FORBIDDEN = (403, "M_FORBIDDEN")
MakeRoom = Callable[..., str]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(federation="true")


@pytest.fixture
def peer(app: Application) -> SigningServer:
    """A server with a user in no room yet."""
    return SigningServer(app).introduce()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def backfill(peer: SigningServer, room_id: str, *event_ids: str, limit: int = 100) -> list[Json]:
    response = peer.get(f"v1/backfill/{quote(room_id)}", v=list(event_ids), limit=limit)
    assert response.status_code == 200, response.get_json()
    pdus: list[Json] = response.get_json()["pdus"]
    return pdus


def missing(
    peer: SigningServer, room_id: str, latest: list[str], earliest: list[str], **more: int
) -> list[Json]:
    body = {"latest_events": latest, "earliest_events": earliest, **more}
    response = peer.post(f"v1/get_missing_events/{quote(room_id)}", body)
    assert response.status_code == 200, response.get_json()
    pdus: list[Json] = response.get_json()["events"]
    return pdus


def ids(pdus: list[Json]) -> list[str]:
    return [signing.event_id_of(pdu, VERSIONS["11"]) for pdu in pdus]


def test_backfill_has_the_events_themselves_and_those_before_newest_first(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    sent = [alice.send(room_id) for _ in range(5)]

    some = backfill(peer, room_id, sent[3], limit=3)
    everything = backfill(peer, room_id, sent[4])

    assert ids(some) == sent[3:0:-1]
    assert ids(everything)[:5] == sent[::-1]
    assert everything[-1]["type"] == "m.room.create"


def test_backfill_has_at_most_a_hundred_events(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    sent = [alice.send(room_id) for _ in range(102)]

    assert ids(backfill(peer, room_id, sent[-1], limit=1000)) == sent[:1:-1]


def test_of_an_event_that_follows_very_many_others_some_are_left_out(
    make_app: MakeApp, remote: Remotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """History may have events that follow a thousand others, each of which would be read."""
    monkeypatch.setattr(earlier_events, "MAX_STARTS", 3)
    app = make_app(**remote.settings)
    remote.talk_to(app)
    b = remote("b.test")
    joined = b.join(registered(app).create_room(preset="public_chat"))
    (start,) = joined.heads
    branches = [joined.message(f"{number}", prev=[start]) for number in range(5)]
    merged = joined.message("merged", prev=branches)
    b.send(*branches, merged)

    response = b.get("v1", "backfill", joined.id, query={"v": merged.event_id, "limit": 100})

    found = [it["content"].get("body") for it in response.json["pdus"]]
    assert [it for it in found if it is not None] == ["merged", "2", "1", "0"]


def test_events_that_are_missing_lie_between_others_and_come_oldest_first(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    sent = [alice.send(room_id) for _ in range(30)]

    between = missing(peer, room_id, [sent[9]], [sent[4]])
    ten = missing(peer, room_id, [sent[29]], [sent[0]])
    twenty = missing(peer, room_id, [sent[29]], [sent[0]], limit=100)

    assert ids(between) == sent[5:9]
    assert ids(ten) == sent[19:29]
    assert ids(twenty) == sent[9:29]


def test_events_below_the_least_depth_are_not_missing(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    sent = [alice.send(room_id) for _ in range(6)]
    (newest,) = backfill(peer, room_id, sent[5], limit=1)

    found = missing(peer, room_id, [sent[5]], [], min_depth=newest["depth"] - 2)

    assert ids(found) == sent[3:5]


def test_messages_that_no_user_of_the_server_may_read_are_redacted_in_both(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = alice.send(room_id, "secret")
    peer.member(room_id)
    shown = alice.send(room_id, "hello")

    found = backfill(peer, room_id, shown)
    old = dict(zip(ids(found), found, strict=True))
    lacking = missing(peer, room_id, [shown], [])

    assert old[shown]["content"]["body"] == "hello"
    assert old[hidden]["content"] == {}
    assert "secret" not in str(lacking)
    assert hidden in ids(lacking)


def test_servers_that_are_not_in_the_room_get_nothing(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    sent = alice.send(room_id)
    body: Json = {"latest_events": [sent], "earliest_events": []}

    for of_room in (quote(room_id), "!none:localhost"):
        got = peer.get(f"v1/backfill/{of_room}", v=[sent], limit=1)
        lacking = peer.post(f"v1/get_missing_events/{of_room}", body)
        assert [refusal(got), refusal(lacking)] == [FORBIDDEN] * 2


def test_events_of_other_rooms_are_not_in_a_response(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id, other = room(alice), room(alice)
    peer.member(room_id)
    elsewhere = [alice.send(other), alice.send(other)]

    assert backfill(peer, room_id, *elsewhere, "$none") == []
    assert missing(peer, room_id, elsewhere, []) == []


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"limit": 10}, "M_MISSING_PARAM"),
        ({"v": "$a"}, "M_MISSING_PARAM"),
        ({"v": "$a", "limit": "ten"}, "M_INVALID_PARAM"),
    ],
)
def test_a_backfill_needs_events_and_a_limit(
    peer: SigningServer, query: dict[str, str], errcode: str
) -> None:
    response = peer.get("v1/backfill/!room:localhost", **query)

    assert refusal(response) == (400, errcode)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"latest_events": []}, "M_MISSING_PARAM"),
        ({"latest_events": [], "earliest_events": [1]}, "M_BAD_JSON"),
        ({"latest_events": [], "earliest_events": [], "limit": -1}, "M_BAD_JSON"),
    ],
)
def test_a_wrong_request_for_missing_events_is_refused(
    peer: SigningServer, body: Json, errcode: str
) -> None:
    response = peer.post("v1/get_missing_events/!room:localhost", body)

    assert refusal(response) == (400, errcode)
