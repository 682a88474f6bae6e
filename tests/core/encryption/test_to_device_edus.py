"""Messages to devices of users of other servers, and from them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from homebody.background.federation.sender import Sender
from homebody.core import outgoing
from homebody.core.encryption import to_device, to_device_edus
from homebody.models.to_device import ReceivedMessage, ToDeviceMessage
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remote, Remotes, edu
from tests.helpers.rooms import refusal
from tests.helpers.shared_rooms import shared_room

Json = dict[str, Any]
TYPE, EDU = "org.example.ping", "m.direct_to_device"
numbers = itertools.count()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(app: Application, remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def sender(app: Application) -> Iterator[Sender]:
    """The sender of `app`, running."""
    found = app.homeserver.sender
    found.start()
    app.homeserver.delivery.start()
    yield found
    app.homeserver.delivery.stop()
    found.stop()


def send(person: Person, messages: Json, txn_id: str = "") -> None:
    txn_id = txn_id or f"t{next(numbers)}"
    answer = person.put(f"sendToDevice/{TYPE}/{txn_id}", json={"messages": messages})
    assert (answer.status_code, answer.get_json()) == (200, {})


def queued(app: Application, server: str = "b.test") -> list[Json]:
    """Return the contents of the EDUs in the outbox."""
    with app.homeserver.database.read() as tx:
        return [it.payload["content"] for it in outgoing.edus(tx, server, 0, 1000)]


def message(b: Remote, messages: Json, message_id: str = "", **changes: Any) -> Json:
    """Return the content of an EDU from carol."""
    content = {
        "sender": b.user_id("carol"),
        "type": TYPE,
        "message_id": message_id or f"m{next(numbers)}",
        "messages": messages,
    }
    return {**content, **changes}


def pings(person: Person) -> list[int]:
    """Return the numbers of the messages that wait for a device."""
    return [it["content"]["n"] for it in person.sync()["to_device"]["events"]]


def to(person: Person, number: int) -> Json:
    return {person.user_id: {person.device_id: {"n": number}}}


@pytest.mark.usefixtures("sender")
def test_messages_reach_other_servers_in_order(alice: Person, b: Remote) -> None:
    carol = b.user_id("carol")

    for number in range(3):
        send(alice, {carol: {"PHONE": {"n": number}}})

    b.wait_until(lambda: len(b.edus(EDU)) == 3, "three messages")
    found = b.edus(EDU)
    assert [it["messages"][carol]["PHONE"]["n"] for it in found] == [0, 1, 2]
    assert {(it["sender"], it["type"]) for it in found} == {(alice.user_id, TYPE)}
    ids = [it["message_id"] for it in found]
    assert len(set(ids)) == 3
    assert all(0 < len(it) <= 32 for it in ids)


@pytest.mark.usefixtures("sender")
def test_messages_to_a_server_that_is_down_arrive_later(alice: Person, b: Remote) -> None:
    b.fail("/send/", 500, times=1)

    send(alice, {b.user_id("carol"): {"*": {"n": 1}}})

    found = b.wait_for_edu(EDU)
    assert found["messages"] == {b.user_id("carol"): {"*": {"n": 1}}}


def test_each_server_gets_the_messages_to_its_own_users(
    app: Application, alice: Person, login: Login, b: Remote, remote: Remotes
) -> None:
    bob, c = login("bob"), remote("c.test")
    to_b = {b.user_id("carol"): {"X": {"n": 1}}, b.user_id("dave"): {"Y": {"n": 2}}}
    to_c = {c.user_id("carol"): {"Z": {"n": 3}}}

    send(alice, {**to_b, **to_c, **to(bob, 4)})

    assert [it["messages"] for it in queued(app)] == [to_b]
    assert [it["messages"] for it in queued(app, "c.test")] == [to_c]
    assert pings(bob) == [4]


def test_a_repeated_request_sends_nothing_again(app: Application, alice: Person, b: Remote) -> None:
    for _ in range(2):
        send(alice, {b.user_id("carol"): {"X": {"n": 1}}}, "same")

    assert len(queued(app)) == 1


def test_a_request_that_a_crash_cut_short_is_repeated_with_the_same_ids(
    app: Application, alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = {b.user_id("carol"): {"X": {"n": 1}}}
    monkeypatch.setattr(to_device, "is_done", lambda *_: False)  # the last write was lost

    for _ in range(2):
        send(alice, messages, "same")
    send(alice, {b.user_id("carol"): {"X": {"n": 2}}}, "same")

    ids = [it["message_id"] for it in queued(app)]
    assert ids[0] == ids[1] != ids[2]


def test_large_requests_are_split(
    app: Application, alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "PUT_BYTES_AT_ONCE", 100_000)
    devices = {f"D{number}": {"text": "x" * 30_000} for number in range(7)}
    carol = b.user_id("carol")

    send(alice, {carol: {**devices, "HUGE": {"text": "x" * 65_000}}})

    found = queued(app)
    assert all(len(json.dumps(it)) <= 65_536 for it in found)
    arrived = [name for it in found for name in it["messages"][carol]]
    assert sorted(arrived) == sorted([*devices, "HUGE"])
    assert len({it["message_id"] for it in found}) == len(found) == 5


@pytest.mark.parametrize("content", [{"n": 1.5}, {"n": 2**60}, {"deep": [[{"n": 0.5}]]}])
def test_what_can_not_be_signed_is_refused(
    app: Application, alice: Person, login: Login, b: Remote, content: Json
) -> None:
    bob = login("bob")
    messages = {b.user_id("carol"): {"X": content}, **to(bob, 1)}

    answer = alice.put(f"sendToDevice/{TYPE}/float", json={"messages": messages})

    assert refusal(answer) == (400, "M_BAD_JSON")
    assert queued(app) == []
    assert pings(bob) == []


def test_nothing_is_queued_for_servers_without_federation(make_app: Any, remote: Remotes) -> None:
    app = make_app(**{**remote.settings, "federation": "false"})
    client = app.test_client()
    body = {"username": "alice", "password": "x" * 20, "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])

    send(alice, {"@carol:b.test": {"X": {"n": 1.5}}})

    assert queued(app) == []


def test_messages_of_other_servers_arrive_with_their_sender(alice: Person, b: Remote) -> None:
    b.send_edu(EDU, message(b, to(alice, 1)))

    assert alice.sync()["to_device"]["events"] == [
        {"type": TYPE, "sender": b.user_id("carol"), "content": {"n": 1}}
    ]


def test_they_arrive_in_order(alice: Person, b: Remote) -> None:
    b.send(edus=[edu(EDU, message(b, to(alice, number))) for number in range(5)])

    assert pings(alice) == [0, 1, 2, 3, 4]


def test_a_star_stands_for_all_devices(login: Login, alice: Person, b: Remote) -> None:
    other, bob = login("alice"), login("bob")

    b.send_edu(EDU, message(b, {alice.user_id: {"*": {"n": 1}}}))

    assert [pings(it) for it in (alice, other, bob)] == [[1], [1], []]


def test_a_message_id_counts_once_for_each_server(
    alice: Person, b: Remote, remote: Remotes
) -> None:
    c = remote("c.test")
    for number, server in enumerate((b, b, c)):
        server.send_edu(EDU, message(server, to(alice, number), "same"))

    assert pings(alice) == [0, 2]


def test_message_ids_are_remembered_for_a_week(app: Application, alice: Person, b: Remote) -> None:
    for message_id in ("old", "young"):
        b.send_edu(EDU, message(b, to(alice, 0), message_id))
    for message_id, days in (("old", 8), ("young", 6)):
        with app.homeserver.database.write() as tx:
            ts = tx.now_ms - days * 24 * 3_600_000
            of_id = ReceivedMessage.message_id == message_id
            tx.sql.execute(update(ReceivedMessage).where(of_id).values(ts=ts))

    b.send_edu(EDU, message(b, to(alice, 0), "new"))

    with app.homeserver.database.read() as reading:
        known = set(reading.sql.execute(select(ReceivedMessage.message_id)).scalars())
    assert known == {"young", "new"}


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": "@carol:c.test"},
        {"sender": "@alice:localhost"},
        {"sender": "carol"},
        {"type": 7},
        {"type": "x" * 300},
        {"message_id": None},
        {"messages": []},
        {"messages": {"@alice:localhost": {"*": "text"}}},
        {"messages": {"@alice:localhost": {"*": {"text": "x" * 70_000}}}},
        {"messages": {"@nobody:localhost": {"*": {}}}},
        {"messages": {"@dave:c.test": {"*": {}}}},
    ],
)
def test_what_is_wrong_is_dropped_alone(
    app: Application, alice: Person, b: Remote, changes: Json
) -> None:
    wrong = message(b, to(alice, 1)) | changes
    b.send(edus=[edu(EDU, wrong), edu(EDU, message(b, to(alice, 2)))])

    assert pings(alice) == [2]
    with app.homeserver.database.read() as tx:
        assert len(tx.sql.execute(select(ToDeviceMessage.position)).all()) == 1


def test_users_who_share_no_room_have_one_share_of_the_inbox_by_server(
    app: Application, alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_FROM_ONE", 2)
    shared_room(app, alice, b)  # with carol

    for number, user in enumerate(["carol", "d", "e", "f"]):
        b.send_edu(EDU, message(b, to(alice, number), sender=b.user_id(user)))

    assert pings(alice) == [0, 2, 3]


def test_messages_are_stored_in_parts_and_recorded_with_the_last(
    app: Application, alice: Person, login: Login, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "PUT_AT_ONCE", 1)
    other = login("alice")

    for _ in range(2):
        b.send_edu(EDU, message(b, {alice.user_id: {"*": {"n": 1}}}, "same"))

    assert [pings(it) for it in (alice, other)] == [[1], [1]]
    assert to_device_edus.KEPT_MS > to_device.TRANSACTIONS_KEPT_MS
    assert app is not None
