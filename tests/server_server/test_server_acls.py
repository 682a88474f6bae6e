"""A server that a room's access control list denies neither reads the room nor writes to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Login, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import membership

Json = dict[str, Any]
FORBIDDEN = (403, "M_FORBIDDEN")
CAROL = "@carol:b.test"
READING = {
    "state": {"event_id": "$event"},
    "state_ids": {"event_id": "$event"},
    "backfill": {"v": "$event", "limit": "10"},
    "timestamp_to_event": {"ts": "0", "dir": "f"},
}
BY_USER = ("make_join", "make_leave", "make_knock")
BY_EVENT = {
    "send_join": ("v1", "v2"),
    "send_leave": ("v1", "v2"),
    "send_knock": ("v1",),
}


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def joined(b: Remote, alice: Person, room: Callable[..., str]) -> RemoteRoom:
    """A room of Alice's that Carol of b.test has joined."""
    return b.join(room(alice), "carol")


def deny(alice: Person, room_id: str, *servers: str, allow: tuple[str, ...] = ("*",)) -> None:
    content = {"allow": [*allow], "deny": [*servers]}
    assert alice.set_state(room_id, "m.room.server_acl", content).status_code == 200


def promote_carol(b: Remote, alice: Person, joined: RemoteRoom) -> None:
    content = {"users": {alice.user_id: 100, CAROL: 100}}
    learn(b, joined, alice.set_state(joined.id, "m.room.power_levels", content))


def learn(b: Remote, joined: RemoteRoom, answer: Any) -> str:
    """Tell the remote about an event that was just sent, and return its id."""
    event_id = str(answer.get_json()["event_id"])
    (pdu,) = b.get("v1", "event", event_id).json["pdus"]
    joined.receive(pdu)
    return event_id


def refused_by_acl(answer: Any) -> bool:
    return answer.refusal == FORBIDDEN and "m.room.server_acl" in answer.json["error"]


def last_message(alice: Person, room_id: str) -> str:
    """The body of the newest message in the timeline."""
    timeline = alice.sync()["rooms"]["join"][room_id]["timeline"]["events"]
    found = [it["content"]["body"] for it in timeline if it["type"] == "m.room.message"]
    return str(found[-1]) if found else ""


@pytest.mark.parametrize("operation", READING)
def test_it_reads_nothing(b: Remote, alice: Person, joined: RemoteRoom, operation: str) -> None:
    deny(alice, joined.id, "b.test")

    assert refused_by_acl(b.get("v1", operation, joined.id, query=READING[operation]))


def test_it_gets_no_single_event_and_no_missing_ones(
    b: Remote, alice: Person, joined: RemoteRoom
) -> None:
    event_id = alice.send(joined.id)
    deny(alice, joined.id, "b.test")

    body = {"earliest_events": [], "latest_events": [event_id], "limit": 10}
    answers = [
        b.get("v1", "event", event_id),
        b.get("v1", "event_auth", joined.id, event_id),
        b.post("v1", "get_missing_events", joined.id, json=body),
    ]

    assert all(refused_by_acl(it) for it in answers)


@pytest.mark.parametrize("operation", BY_USER)
def test_it_gets_no_template(b: Remote, alice: Person, joined: RemoteRoom, operation: str) -> None:
    deny(alice, joined.id, "b.test")

    query = {"ver": joined.version.name}
    assert refused_by_acl(b.get("v1", operation, joined.id, b.user_id("dave"), query=query))


@pytest.mark.parametrize(
    ("operation", "version"), [(name, one) for name, all_ in BY_EVENT.items() for one in all_]
)
def test_its_users_do_not_change_their_memberships(
    b: Remote, alice: Person, joined: RemoteRoom, operation: str, version: str
) -> None:
    deny(alice, joined.id, "b.test")
    event = joined.member(CAROL, operation.removeprefix("send_"), add=False)

    answer = b.put(version, operation, joined.id, event.event_id, json=event.pdu)

    assert refused_by_acl(answer)
    assert membership(alice, joined.id, CAROL)["membership"] == "join"


def test_its_events_do_not_come_into_the_room_whoever_sends_them(
    remote: Remotes, b: Remote, alice: Person, joined: RemoteRoom
) -> None:
    c = remote("c.test")
    deny(alice, joined.id, "b.test")
    event = joined.message("from b", add=False)

    results = [b.send(event), c.send(event)]

    for result in results:
        assert "server ACL" in result[event.event_id]["error"]
    assert last_message(alice, joined.id) != "from b"


def test_it_does_not_relay_events_of_servers_that_may_take_part(
    remote: Remotes, b: Remote, alice: Person, joined: RemoteRoom
) -> None:
    c = remote("c.test")
    in_c = c.join(joined.id, "erin")
    deny(alice, joined.id, "b.test")
    event = in_c.message("from c", add=False)

    refused = b.send(event)
    accepted = c.send(event)

    assert "server ACL" in refused[event.event_id]["error"]
    assert accepted == {event.event_id: {}}
    assert last_message(alice, joined.id) == "from c"


def test_a_server_comes_back_when_the_list_changes(
    b: Remote, alice: Person, joined: RemoteRoom
) -> None:
    deny(alice, joined.id, "b.test")
    b.send(joined.message("denied", add=False))
    deny(alice, joined.id)

    event = joined.message("allowed", add=False)

    assert b.send(event) == {event.event_id: {}}
    assert last_message(alice, joined.id) == "allowed"


def test_a_list_that_is_redacted_elsewhere_denies_all_other_servers(
    b: Remote, alice: Person, joined: RemoteRoom
) -> None:
    promote_carol(b, alice, joined)
    acl = {"allow": ["*"], "deny": ["evil.test"]}
    event_id = learn(b, joined, alice.set_state(joined.id, "m.room.server_acl", acl))
    redaction = joined.event("m.room.redaction", {"redacts": event_id}, add=False)

    assert b.send(redaction) == {redaction.event_id: {}}

    event = joined.message("after it", add=False)
    assert "server ACL" in b.send(event)[event.event_id]["error"]
    alice.send(joined.id, "this server goes on")


def test_this_server_takes_part_in_a_room_whose_list_forgets_it(
    b: Remote, alice: Person, joined: RemoteRoom
) -> None:
    promote_carol(b, alice, joined)
    acl = joined.set_state("m.room.server_acl", {"allow": ["b.test"]}, sender="carol")
    assert b.send(acl) == {acl.event_id: {}}

    alice.send(joined.id, "still here")

    assert last_message(alice, joined.id) == "still here"
