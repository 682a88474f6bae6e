"""Events of rooms that an administrator is not in, as moderation tools read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, ids, refusal, state_of

MakeRoom = Callable[..., str]
ROOMS = "/_synapse/admin/v1/rooms"
UNKNOWN = "!unknown:localhost"


@pytest.fixture
def private(alice: Person) -> str:
    """A room of Alice's alone, whose history only its members may read."""
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    return alice.create_room(preset="private_chat", name="Diary", initial_state=[visibility])


def at(room_id: str, end: str) -> str:
    return f"{ROOMS}/{quote(room_id)}/{end}"


def body(answer: Any) -> Json:
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def test_messages_are_paged_in_both_directions(admin: Person, alice: Person, private: str) -> None:
    sent = [alice.send(private, f"{number}") for number in range(5)]

    first = body(admin.get(at(private, "messages?dir=b&limit=2")))
    second = body(admin.get(at(private, f"messages?dir=b&limit=2&from={first['end']}")))
    forth = body(admin.get(at(private, f"messages?dir=f&limit=1&from={second['end']}")))
    until = body(admin.get(at(private, f"messages?dir=b&limit=99&to={second['end']}")))
    all_of_it = body(admin.get(at(private, "messages?dir=b&limit=999")))

    assert ids(first) == sent[:2:-1]
    assert ids(second) == sent[2:0:-1]
    assert ids(forth) == [sent[1]]
    assert ids(until) == sent[:0:-1]
    assert ids(all_of_it)[:5] == sent[::-1]
    assert ids(all_of_it)[-1] == state_ids(admin, private)["m.room.create"]
    assert "end" not in all_of_it
    assert all_of_it["start"].startswith("s")
    assert first["chunk"][0]["content"]["body"] == "4"
    assert first["chunk"][0]["room_id"] == private


def state_ids(admin: Person, room_id: str) -> dict[str, str]:
    found = body(admin.get(at(room_id, "state")))["state"]
    return {it["type"]: it["event_id"] for it in found}


def test_messages_are_filtered(admin: Person, alice: Person, private: str) -> None:
    plain = alice.send(private)
    picture = alice.send(private, url="mxc://localhost/a")

    only = '{"types":["m.room.message"],"contains_url":true}'
    few = '{"types":["m.room.message"],"limit":1}'

    assert ids(body(admin.get(at(private, f"messages?dir=b&filter={quote(only)}")))) == [picture]
    assert ids(body(admin.get(at(private, f"messages?dir=f&filter={quote(few)}")))) == [plain]


def test_ignored_and_erased_users_are_read_as_well(
    admin: Person, alice: Person, private: str
) -> None:
    sent = alice.send(private, "said")
    ignored: Json = {"ignored_users": {alice.user_id: {}}}
    admin.put(f"user/{admin.user_id}/account_data/m.ignored_user_list", json=ignored)
    auth = {"type": "m.login.password", "user": "alice", "password": "correct horse battery staple"}
    assert alice.post("account/deactivate", json={"erase": True, "auth": auth}).status_code == 200

    found = body(admin.get(at(private, "messages?dir=b")))

    assert sent in ids(found)
    event = next(it for it in found["chunk"] if it["event_id"] == sent)
    assert event["content"]["body"] == "said"


def test_an_unknown_room_has_no_messages(admin: Person) -> None:
    assert body(admin.get(at(UNKNOWN, "messages?dir=b")))["chunk"] == []


@pytest.mark.parametrize(
    "query", ["dir=up", "limit=x", "limit=-1", "from=nonsense", "filter=%7B", "from=s99999999999"]
)
def test_a_wrong_parameter_of_messages_is_refused(admin: Person, private: str, query: str) -> None:
    assert admin.get(at(private, f"messages?{query}")).status_code == 400


def test_the_context_of_an_event_has_what_is_around_it(
    admin: Person, alice: Person, login: Login, private: str
) -> None:
    sent = [alice.send(private, f"{number}") for number in range(5)]
    other = login("bob").create_room()

    found = body(admin.get(f"{ROOMS}/{quote(private)}/context/{sent[2]}?limit=2"))  # unescaped
    alone = body(admin.get(at(private, f"context/{quote(sent[2])}?limit=0")))

    assert found["event"]["event_id"] == sent[2]
    assert [it["event_id"] for it in found["events_before"]] == [sent[1]]
    assert [it["event_id"] for it in found["events_after"]] == [sent[3]]
    assert {(it["type"], it["state_key"]): it["content"] for it in found["state"]} == state_of(
        alice, private
    )
    before = body(admin.get(at(private, f"messages?dir=b&limit=1&from={found['start']}")))
    after = body(admin.get(at(private, f"messages?dir=f&limit=1&from={found['end']}")))
    assert (ids(before), ids(after)) == ([sent[0]], [sent[4]])
    assert (alone["events_before"], alone["events_after"]) == ([], [])
    for path in (at(other, f"context/{quote(sent[2])}"), at(private, "context/$no")):
        assert refusal(admin.get(path)) == (404, "M_NOT_FOUND")


def test_the_state_of_a_context_can_be_limited_to_the_senders(
    admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, bob)
    sent = alice.send(room_id)
    lazy = quote('{"lazy_load_members":true}')

    found = body(admin.get(at(room_id, f"context/{quote(sent)}?limit=0&filter={lazy}")))

    members = [it["state_key"] for it in found["state"] if it["type"] == "m.room.member"]
    assert members == [alice.user_id]


def test_the_event_nearest_to_a_time_is_found(admin: Person, alice: Person, private: str) -> None:
    first = state_ids(admin, private)["m.room.create"]
    last = alice.send(private)
    ts = body(admin.get(at(private, f"context/{quote(last)}")))["event"]["origin_server_ts"]

    forwards = body(admin.get(at(private, "timestamp_to_event?ts=0")))
    backwards = body(admin.get(at(private, f"timestamp_to_event?ts={ts}&dir=b")))

    assert forwards["event_id"] == first
    assert backwards == {"event_id": last, "origin_server_ts": ts}
    none = admin.get(at(private, f"timestamp_to_event?ts={ts + 1}&dir=f"))
    assert refusal(none) == (404, "M_NOT_FOUND")
    assert refusal(admin.get(at(UNKNOWN, "timestamp_to_event?ts=0"))) == (404, "M_NOT_FOUND")
    assert refusal(admin.get(at(private, "timestamp_to_event"))) == (400, "M_MISSING_PARAM")
    assert refusal(admin.get(at(private, "timestamp_to_event?ts=x"))) == (400, "M_INVALID_PARAM")


def test_the_rooms_of_a_space_are_listed_whoever_may_see_them(
    admin: Person, alice: Person, private: str
) -> None:
    space = alice.create_room(creation_content={"type": "m.space"}, preset="private_chat")
    below = alice.create_room(creation_content={"type": "m.space"}, preset="private_chat")
    via = {"via": ["localhost"]}
    for parent, child in ((space, below), (below, private), (space, UNKNOWN)):
        alice.set_state(parent, "m.space.child", via, child)

    whole = body(admin.get(at(space, "hierarchy")))
    shallow = body(admin.get(at(space, "hierarchy?max_depth=1")))
    first = body(admin.get(at(space, "hierarchy?limit=1")))
    second = body(admin.get(at(space, f"hierarchy?limit=1&from={first['next_batch']}")))

    assert [it["room_id"] for it in whole["rooms"]] == [space, below, private]
    assert whole["rooms"][2]["name"] == "Diary"
    assert len(whole["rooms"][0]["children_state"]) == 2
    assert [it["room_id"] for it in shallow["rooms"]] == [space, below]
    assert [it["room_id"] for it in second["rooms"]] == [below]
    assert "next_batch" not in whole
    assert refusal(admin.get(at(UNKNOWN, "hierarchy"))) == (404, "M_NOT_FOUND")


def test_any_event_is_fetched_by_its_id(admin: Person, alice: Person, private: str) -> None:
    sent = alice.send(private, "said")

    found = body(admin.get(f"/_synapse/admin/v1/fetch_event/{sent}"))["event"]

    assert (found["event_id"], found["room_id"], found["sender"]) == (sent, private, alice.user_id)
    assert found["content"]["body"] == "said"
    act(alice, private, "leave")
    assert admin.get(f"/_synapse/admin/v1/fetch_event/{quote(sent)}").status_code == 200
    missing = admin.get("/_synapse/admin/v1/fetch_event/$no")
    assert refusal(missing) == (404, "M_NOT_FOUND")
