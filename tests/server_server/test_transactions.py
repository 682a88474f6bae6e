"""PUT /send: what fits into a transaction, how often it counts, and soft failure."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from homebody.models.events import SOFT_FAILED
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import ends, standing
from tests.helpers.peers import Answer
from tests.helpers.remote import Remote, Remotes, edu
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import state_of

Json = dict[str, Any]
KEYS = "/_matrix/key/v2/server"
CAROL = "@carol:b.test"


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def room(b: Remote, alice: Person) -> RemoteRoom:
    """A room of Alice's that Carol of b.test has joined."""
    levels = {"users": {alice.user_id: 100, CAROL: 50}}
    return b.join(
        alice.create_room(preset="public_chat", power_level_content_override=levels), "carol"
    )


def bodies(person: Person, room_id: str) -> list[str]:
    """The texts of the messages in the room."""
    timeline = person.sync()["rooms"]["join"][room_id]["timeline"]["events"]
    return [it["content"]["body"] for it in timeline if it["type"] == "m.room.message"]


# Size


def test_fifty_events_and_a_hundred_edus_are_taken_in(
    b: Remote, alice: Person, room: RemoteRoom
) -> None:
    events = [room.message(f"{number}") for number in range(50)]
    typing = {"room_id": room.id, "user_id": CAROL, "typing": True}

    results = b.send(*events, edus=[edu("m.typing", typing)] * 100)

    assert results == {it.event_id: {} for it in events}
    assert bodies(alice, room.id)[-1] == "49"


@pytest.mark.parametrize(("pdus", "edus"), [(51, 0), (0, 101)])
def test_more_are_refused_as_a_whole(
    b: Remote, alice: Person, room: RemoteRoom, pdus: int, edus: int
) -> None:
    events = [room.message(f"{number}", add=False) for number in range(pdus)]

    answer = b.try_to_send(*events, edus=[edu("m.typing", {})] * edus)

    assert answer.refusal == (400, "M_INVALID_PARAM")
    assert bodies(alice, room.id) == []


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"edus": []}, "M_MISSING_PARAM"),
        ({"pdus": {}, "edus": []}, "M_BAD_JSON"),
        ({"pdus": [], "edus": 1}, "M_BAD_JSON"),
    ],
)
def test_what_is_not_a_transaction_is_refused(
    app: Application, b: Remote, body: Json, errcode: str
) -> None:
    assert b.put("v1", "send", "t1", json=body).refusal == (400, errcode)


# Repetitions


def test_a_repeated_transaction_gets_the_response_of_the_first(
    b: Remote, alice: Person, room: RemoteRoom
) -> None:
    event = room.message("once")
    wrong = room.message("wrong", sender="dave", add=False)
    other = room.message("not taken in", add=False)

    first = b.send(event, wrong, transaction_id="same")
    repeated = b.send(event, wrong, transaction_id="same")
    changed = b.send(other, transaction_id="same")

    assert first[event.event_id] == {}
    assert "error" in first[wrong.event_id]
    assert repeated == changed == first
    assert bodies(alice, room.id) == ["once"]


def test_the_id_of_a_transaction_is_its_servers_own(
    app: Application, b: Remote, remote: Remotes, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    of_c = c.join(room.id, "dora")
    said = of_c.message("by another server")

    b.send(transaction_id="same")

    assert c.send(said, transaction_id="same") == {said.event_id: {}}
    assert bodies(alice, room.id) == ["by another server"]


@pytest.fixture
def under_way(b: Remote, remote: Remotes, room: RemoteRoom) -> Any:
    """A transaction of b.test that waits for the keys of c.test, by whom its event is signed."""
    c = remote("c.test")
    c.hang(KEYS)
    event = room.message("slow", sender="dora", by=c, add=False)
    with ThreadPoolExecutor() as pool:

        def send(transaction_id: str) -> Future[Answer]:
            return pool.submit(b.try_to_send, event, transaction_id=transaction_id)

        first = send("slow")
        c.wait_until(lambda: c.received(KEYS), "the request for keys")
        yield send, first, c
        c.recover()


def test_another_transaction_of_a_server_waits_while_one_is_taken_in(
    b: Remote, remote: Remotes, alice: Person, room: RemoteRoom, under_way: Any
) -> None:
    _, first, c = under_way
    event = room.message("another")

    refused = b.try_to_send(event, transaction_id="another")
    of_another_server = remote("d.test").try_to_send(transaction_id="another")
    c.recover()
    first.result(20)

    assert refused.refusal == (429, "M_LIMIT_EXCEEDED")
    assert refused.json["retry_after_ms"] > 0
    assert of_another_server.status == 200
    assert b.send(event, transaction_id="another") == {event.event_id: {}}
    assert bodies(alice, room.id) == ["another"]


def test_a_repetition_waits_for_the_first_request(under_way: Any) -> None:
    send, first, c = under_way

    second = send("slow")
    is_waiting = not second.done()
    c.recover()

    assert is_waiting
    assert first.result(20) == second.result(20)
    assert first.result().status == 200
    assert len(c.received(KEYS)) == 1


def test_a_transaction_that_failed_is_taken_in_when_it_is_repeated(
    app: Application, b: Remote, alice: Person, room: RemoteRoom
) -> None:
    event = room.message("in the end")
    app.homeserver.database.writer.raw.execute("PRAGMA query_only = ON")
    failed = b.try_to_send(event, transaction_id="same")
    app.homeserver.database.writer.raw.execute("PRAGMA query_only = OFF")

    assert failed.status >= 500
    assert b.send(event, transaction_id="same") == {event.event_id: {}}
    assert bodies(alice, room.id) == ["in the end"]


# Soft failure: the example of the specification


def test_what_evades_a_ban_is_not_shown_nor_followed_but_known_to_servers(
    app: Application, b: Remote, remote: Remotes, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    c.join(room.id, "dora")
    topic = room.event("m.room.topic", {"topic": "evaded"}, "", add=False)
    said = room.message("evaded", add=False)
    alice.post(f"rooms/{quote(room.id)}/ban", json={"user_id": CAROL})

    results = b.send(topic, said)
    event_id = alice.send(room.id, "after it")

    assert results == {topic.event_id: {}, said.event_id: {}}
    assert [standing(app, it) for it in (topic, said)] == [SOFT_FAILED] * 2
    assert bodies(alice, room.id) == ["after it"]
    assert ("m.room.topic", "") not in state_of(alice, room.id)
    assert ends(app, room) == {event_id}
    assert c.get("v1", "event", said.event_id).json["pdus"][0]["content"]["body"] == "evaded"


def test_what_follows_both_a_soft_failed_event_and_the_ban_is_shown(
    app: Application, b: Remote, remote: Remotes, alice: Person, room: RemoteRoom
) -> None:
    c = remote("c.test")
    of_c = c.join(room.id, "dora")
    evaded = room.message("evaded", add=False)
    alice.post(f"rooms/{quote(room.id)}/ban", json={"user_id": CAROL})
    (ban,) = ends(app, room)
    b.send(evaded)
    both = of_c.message("both", prev_events=[ban, evaded.event_id])

    results = c.send(both)

    assert results == {both.event_id: {}}
    assert bodies(alice, room.id) == ["both"]
    assert ends(app, room) == {both.event_id}
