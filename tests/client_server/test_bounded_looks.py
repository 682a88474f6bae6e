"""Where a search of the server is bounded: its answer says that there may be more, or finds it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.events import history
from homebody.core.sync import spans
from tests.conftest import Login, Person
from tests.helpers.rooms import ids

Json = dict[str, Any]
Room = Callable[..., str]
ORDER = "org.example.order"
V1 = "/_matrix/client/v1/"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def order(person: Person, room_id: str) -> str:
    """The id of an event of the type that filters below ask for."""
    answer = person.put(f"rooms/{room_id}/send/{ORDER}/t{time.monotonic_ns()}", json={})
    return str(answer.get_json()["event_id"])


def orders(limit: int = 10, **timeline: Any) -> Json:
    """The query of a sync that wants events of this type alone."""
    room = {"timeline": {"types": [ORDER], "limit": limit, **timeline}}
    return {"filter": json.dumps({"room": room})}


# --- /sync with a filter


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that looks at eight events of a room, and at no more than twelve in all."""
    monkeypatch.setattr(spans, "_SCANNED_AT_ONCE", 4)
    monkeypatch.setattr(spans, "_MAX_SCANNED", 8)
    monkeypatch.setattr(spans, "_MAX_SCANNED_IN_ALL", 12)


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("is_first", [True, False])
def test_a_filtered_timeline_of_which_not_all_was_looked_at_is_limited(
    alice: Person, bob: Person, room: Room, *, is_first: bool
) -> None:
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    rare = order(alice, room_id)
    for number in range(10):
        alice.send(room_id, str(number))

    timeline = bob.sync(None if is_first else token, **orders())["rooms"]["join"][room_id][
        "timeline"
    ]

    assert (timeline["events"], timeline["limited"]) == ([], True)
    query = {"dir": "b", "filter": json.dumps({"types": [ORDER]}), "from": timeline["prev_batch"]}
    page = bob.get(f"rooms/{room_id}/messages", query_string=query).get_json()
    assert ids(page) == [rare]


def test_a_search_that_has_to_decode_events_looks_at_fewer(
    alice: Person, bob: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "_SCANNED_AT_ONCE", 2)
    monkeypatch.setattr(spans, "_MAX_SCANNED", 20)
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    alice.send(room_id, "picture", url="mxc://localhost/a")
    for number in range(6):
        alice.send(room_id, str(number))

    def limited(**timeline: Any) -> bool:
        query: Json = {"filter": json.dumps({"room": {"timeline": timeline}})}
        entry = bob.sync(token, **query)["rooms"]["join"][room_id]
        return bool(entry["timeline"]["limited"])

    assert limited(contains_url=True) is True
    assert limited(contains_url=True, types=[ORDER]) is False
    assert limited(types=[ORDER]) is False


@pytest.mark.usefixtures("short_search")
def test_what_was_found_before_the_search_ended_comes_with_the_way_to_the_rest(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    early = order(alice, room_id)
    for number in range(9):
        alice.send(room_id, str(number))
    late = order(alice, room_id)

    timeline = bob.sync(token, **orders())["rooms"]["join"][room_id]["timeline"]

    assert [event["event_id"] for event in timeline["events"]] == [late]
    assert timeline["limited"] is True
    query = {"dir": "b", "filter": json.dumps({"types": [ORDER]}), "from": timeline["prev_batch"]}
    page = bob.get(f"rooms/{room_id}/messages", query_string=query).get_json()
    assert ids(page) == [early]


@pytest.mark.usefixtures("short_search")
def test_a_filtered_timeline_that_was_looked_at_to_its_start_is_not_limited(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    rare = order(alice, room_id)
    alice.send(room_id)

    timeline = bob.sync(token, **orders())["rooms"]["join"][room_id]["timeline"]

    assert [event["event_id"] for event in timeline["events"]] == [rare]
    assert timeline["limited"] is False


@pytest.mark.usefixtures("short_search")
def test_a_search_of_many_rooms_is_bounded_too_and_says_so_of_each(
    alice: Person, bob: Person, room: Room
) -> None:
    room_ids = [room(alice, bob) for _ in range(3)]
    token = bob.sync()["next_batch"]
    rare = [order(alice, room_id) for room_id in room_ids]
    for room_id in room_ids:
        for number in range(5):
            alice.send(room_id, str(number))

    joined = bob.sync(token, **orders())["rooms"]["join"]

    found = {event["event_id"] for it in joined.values() for event in it["timeline"]["events"]}
    limited = [joined[room_id]["timeline"]["limited"] for room_id in room_ids]
    assert [is_limited != (one in found) for is_limited, one in zip(limited, rare, strict=True)]
    assert sorted(limited) == [False, False, True]


# --- the event at a time


@pytest.mark.parametrize("direction", ["f", "b"])
def test_the_event_at_a_time_is_found_behind_any_number_of_hidden_ones(
    alice: Person,
    bob: Person,
    room: Room,
    monkeypatch: pytest.MonkeyPatch,
    direction: str,
) -> None:
    monkeypatch.setattr(history, "NEAR_EVENTS", 2)
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    bob.post(f"rooms/{room_id}/join")
    alice.send(room_id, "seen")
    bob.post(f"rooms/{room_id}/leave")
    hidden = []
    for number in range(12):
        time.sleep(0.001)  # the clock counts milliseconds
        hidden.append(alice.send(room_id, str(number)))
    bob.post(f"rooms/{room_id}/join")
    time.sleep(0.002)
    alice.send(room_id, "seen again")
    ts = alice.get(f"rooms/{room_id}/event/{hidden[6]}").get_json()["origin_server_ts"]

    query = {"ts": ts, "dir": direction}
    answer = bob.get(f"{V1}rooms/{room_id}/timestamp_to_event", query_string=query)

    assert answer.status_code == 200
    event = bob.get(f"rooms/{room_id}/event/{answer.get_json()['event_id']}").get_json()
    membership = "join" if direction == "f" else "leave"
    assert (event["state_key"], event["content"]["membership"]) == (bob.user_id, membership)
    assert event["origin_server_ts"] == answer.get_json()["origin_server_ts"]
