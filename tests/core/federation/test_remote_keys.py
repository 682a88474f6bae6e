"""Clients query and claim keys of users of other servers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import select

from homebody.core.encryption import remote_devices
from homebody.core.federation import remote_keys
from homebody.models.remote_users import RemoteDevice, RemoteUser
from homebody.spec.device_lists import DeviceList
from homebody.spec.edus import DeviceListUpdate
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import encryption
from tests.helpers.remote import Remote, Remotes
from tests.helpers.scripted_server import Response
from tests.helpers.shared_rooms import join, leave, shared_room

Json = dict[str, Any]
CURVE = "signed_curve25519"
QUERY, CLAIM = "/user/keys/query", "/user/keys/claim"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(app: Application, remote: Remotes) -> Remote:
    return remote("b.test")


def query(person: Person, *user_ids: str, **body: Any) -> Json:
    asked = {"device_keys": {user_id: [] for user_id in user_ids}, **body}
    answer = person.post("keys/query", json=asked)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def claim(person: Person, wanted: Json, **body: Any) -> Json:
    answer = person.post("keys/claim", json={"one_time_keys": wanted, **body})
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def named(keys: Json) -> Json:
    """Return the keys of a device as the remote responds with them."""
    return {**keys, "unsigned": {}}


def rows(app: Application) -> tuple[int, int]:
    """Return how many lists and devices are kept."""
    with app.homeserver.database.read() as tx:
        return len(tx.sql.execute(select(RemoteUser.user_id)).all()), len(
            tx.sql.execute(select(RemoteDevice.device_id)).all()
        )


def note_changes(app: Application, user_id: str, stream_id: int, *prev_ids: int) -> None:
    """Have a change of a device arrive."""
    with app.homeserver.database.write() as tx:
        change = DeviceListUpdate(user_id, "NEW", stream_id, list(prev_ids), False, None, None)
        remote_devices.update_device(tx, change)


def test_keys_are_requested_from_their_server_and_then_kept(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    keys = b.add_device("carol", "PHONE")
    carol = b.user_id("carol")

    found = [query(alice, carol)["device_keys"] for _ in range(3)]

    assert found == [{carol: {"PHONE": named(keys)}}] * 3
    assert len(b.received(QUERY)) == 1


def test_keys_of_users_who_share_no_room_are_requested_each_time(
    app: Application, alice: Person, b: Remote
) -> None:
    b.add_device("dave", "PHONE")
    dave = b.user_id("dave")

    for _ in range(2):
        assert list(query(alice, dave)["device_keys"][dave]) == ["PHONE"]

    assert len(b.received(QUERY)) == 2
    assert rows(app) == (0, 0)


def test_one_request_asks_for_all_users_of_a_server(
    app: Application, alice: Person, b: Remote, remote: Remotes
) -> None:
    c = remote("c.test")
    room_id = shared_room(app, alice, b, c)
    join(app, room_id, b.user_id("dave"))
    for user in ("carol", "dave"):
        b.add_device(user, "PHONE")
    c.add_device("carol", "TABLET")
    encryption.upload_device_keys(alice)

    users = [b.user_id("carol"), b.user_id("dave"), c.user_id("carol"), alice.user_id]
    found = query(alice, *users)

    assert {user: list(devices) for user, devices in found["device_keys"].items()} == {
        b.user_id("carol"): ["PHONE"],
        b.user_id("dave"): ["PHONE"],
        c.user_id("carol"): ["TABLET"],
        alice.user_id: [alice.device_id],
    }
    assert found["failures"] == {}
    assert (len(b.received(QUERY)), len(c.received(QUERY))) == (1, 1)


def test_only_the_devices_that_the_client_names_are_returned(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    b.add_device("carol", "TABLET")
    carol = b.user_id("carol")

    for _ in range(2):  # from the server, and from the database
        answer = alice.post("keys/query", json={"device_keys": {carol: ["TABLET", "GONE"]}})
        assert list(answer.get_json()["device_keys"][carol]) == ["TABLET"]


def test_unknown_users_are_left_out_and_the_server_has_not_failed(alice: Person, b: Remote) -> None:
    b.answer(QUERY, Response(200, {"device_keys": {}}))

    found = query(alice, b.user_id("nobody"))

    assert found["device_keys"] == {}
    assert found["failures"] == {}


def test_a_server_that_is_down_is_a_failure_and_does_not_hold_up_others(
    app: Application, alice: Person, b: Remote, remote: Remotes
) -> None:
    c = remote("c.test")
    shared_room(app, alice, b, c)
    b.add_device("carol", "PHONE")
    c.hang(QUERY)

    began = time.monotonic()
    found = query(alice, b.user_id("carol"), c.user_id("carol"), timeout=1000)
    took_s = time.monotonic() - began

    assert list(found["failures"]) == ["c.test"]
    assert list(found["device_keys"]) == [b.user_id("carol")]
    assert took_s < 4


def test_a_stale_list_is_returned_together_with_the_failure(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    carol = b.user_id("carol")
    query(alice, carol)
    note_changes(app, carol, 7, 6)
    b.fail(QUERY, 500)

    found = query(alice, carol)

    assert list(found["device_keys"][carol]) == ["PHONE"]
    assert list(found["failures"]) == ["b.test"]


def test_a_change_that_was_not_announced_makes_a_list_stale(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    carol = b.user_id("carol")
    query(alice, carol)
    b.add_device("carol", "TABLET")
    note_changes(app, carol, 7, 6)

    found = [sorted(query(alice, carol)["device_keys"][carol]) for _ in range(2)]

    assert found == [["PHONE", "TABLET"]] * 2
    assert len(b.received(QUERY)) == 2


def test_a_response_is_not_kept_if_a_change_came_meanwhile(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    carol = b.user_id("carol")
    b.delay(QUERY, 1.0)
    first = threading.Thread(target=query, args=(alice, carol))
    first.start()
    b.wait_until(lambda: b.received(QUERY), "the query")
    note_changes(app, carol, 7, 6)

    second = query(alice, carol)  # must not get the response to the query of before the change
    first.join()

    assert list(second["device_keys"][carol]) == ["PHONE"]
    assert len(b.received(QUERY)) == 2


def test_a_list_from_before_a_change_or_of_a_stranger_is_not_kept(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    carol, dave = b.user_id("carol"), b.user_id("dave")
    lists = {carol: DeviceList({}), dave: DeviceList({})}
    with app.homeserver.database.read() as reading:
        since = reading.position
    note_changes(app, carol, 7, 6)

    with app.homeserver.database.write() as tx:
        assert remote_devices.keep(tx, lists, since) == {carol, dave}
        assert remote_devices.keep(tx, lists, tx.position) == {dave}

    assert rows(app) == (1, 0)


def test_clients_that_query_at_the_same_time_share_one_request(
    app: Application, alice: Person, login: Login, b: Remote
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    carol, bob = b.user_id("carol"), login("bob")
    b.delay(QUERY, 0.5)
    found: list[Json] = []
    threads = [
        threading.Thread(target=lambda person=person: found.append(query(person, carol)))
        for person in (alice, bob)
    ]
    threads[0].start()
    b.wait_until(lambda: b.received(QUERY), "the query")
    threads[1].start()
    for thread in threads:
        thread.join()

    assert [list(it["device_keys"][carol]) for it in found] == [["PHONE"]] * 2
    assert len(b.received(QUERY)) == 1


@pytest.mark.parametrize("is_local", [True, False])
def test_a_list_is_deleted_when_no_room_is_shared_any_more(
    app: Application, alice: Person, b: Remote, *, is_local: bool
) -> None:
    room_id = shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    carol = b.user_id("carol")
    query(alice, carol)
    assert rows(app) == (1, 1)

    leave(app, room_id, alice.user_id if is_local else carol)

    assert rows(app) == (0, 0)


def test_a_list_is_kept_while_another_room_is_shared(
    app: Application, alice: Person, b: Remote
) -> None:
    room_id = shared_room(app, alice, b)
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    carol = b.user_id("carol")
    query(alice, carol)

    leave(app, room_id, carol)

    assert rows(app) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": "@mallory:b.test"},
        {"device_id": "OTHER"},
        {"algorithms": "none"},
        {"keys": {"ed25519:PHONE": 7}},
        {"signatures": []},
        {"more": "x" * 70_000},
    ],
)
def test_malformed_keys_are_dropped_alone(alice: Person, b: Remote, wrong: Json) -> None:
    keys = b.add_device("carol", "PHONE")
    carol = b.user_id("carol")
    good = {**keys, "device_id": "TABLET"}
    b.answer(
        QUERY, Response(200, {"device_keys": {carol: {"PHONE": {**keys, **wrong}, "TABLET": good}}})
    )

    found = query(alice, carol)

    assert found["device_keys"] == {carol: {"TABLET": named(good)}}


def test_a_server_can_not_answer_for_users_of_others(
    app: Application, alice: Person, b: Remote, remote: Remotes
) -> None:
    c = remote("c.test")
    shared_room(app, alice, b, c)
    keys = c.add_device("carol", "PHONE")
    answer = {c.user_id("carol"): {"PHONE": keys}, alice.user_id: {"FAKE": keys}}
    b.answer(QUERY, Response(200, {"device_keys": answer}))

    found = query(alice, b.user_id("carol"))

    assert found["device_keys"] == {}
    assert rows(app) == (0, 0)


@pytest.mark.parametrize(
    "answer", [[], {}, {"device_keys": []}, {"device_keys": {"@carol:b.test": 1}}]
)
def test_a_senseless_response_is_not_an_error(alice: Person, b: Remote, answer: Any) -> None:
    b.answer(QUERY, Response(200, answer))

    found = query(alice, b.user_id("carol"))

    assert found["device_keys"].get(b.user_id("carol"), {}) == {}


def test_users_sign_the_master_keys_of_users_of_other_servers(
    app: Application, alice: Person, login: Login, b: Remote
) -> None:
    shared_room(app, alice, b)
    carol, bob = b.user_id("carol"), login("bob")
    of_carol, of_alice = encryption.Identity(carol), encryption.Identity(alice.user_id)
    b.add_device("carol", "PHONE")
    b.cross_signing[carol] = {
        "master_key": of_carol.key("master"),
        "self_signing_key": of_carol.key("self_signing"),
    }
    assert query(alice, carol)["self_signing_keys"][carol] == of_carol.key("self_signing")
    alice.post("keys/device_signing/upload", json=of_alice.upload())
    signed = of_alice.sign(of_carol.key("master"), "user_signing")

    answer = alice.post("keys/signatures/upload", json={carol: {of_carol.public("master"): signed}})

    assert answer.get_json() == {"failures": {}}
    assert query(alice, carol)["master_keys"][carol]["signatures"] == signed["signatures"]
    assert query(bob, carol)["master_keys"][carol]["signatures"] == {}


def test_one_time_keys_are_claimed_at_their_server(alice: Person, b: Remote) -> None:
    b.add_device("carol", "PHONE", "a")
    b.add_device("carol", "TABLET", "b")
    carol = b.user_id("carol")

    found = claim(alice, {carol: {"PHONE": CURVE, "TABLET": CURVE}})

    keys = found["one_time_keys"][carol]
    assert {device: list(key) for device, key in keys.items()} == {
        "PHONE": [f"{CURVE}:a"],
        "TABLET": [f"{CURVE}:b"],
    }
    assert found["failures"] == {}
    assert len(b.received(CLAIM)) == 1


def test_a_failed_claim_is_not_repeated(alice: Person, b: Remote) -> None:
    b.add_device("carol", "PHONE", "a")
    b.fail(CLAIM, 502)

    found = claim(alice, {b.user_id("carol"): {"PHONE": CURVE}})

    assert found["one_time_keys"] == {}
    assert list(found["failures"]) == ["b.test"]
    assert len(b.received(CLAIM)) == 1


def test_claims_here_succeed_while_another_server_fails(
    alice: Person, login: Login, b: Remote
) -> None:
    bob = login("bob")
    bob.post("keys/upload", json={"one_time_keys": {"curve25519:a": "k" * 43}})
    b.fail(CLAIM, 500)

    wanted = {bob.user_id: {bob.device_id: "curve25519"}, b.user_id("carol"): {"D": CURVE}}
    found = claim(alice, wanted)

    assert found["one_time_keys"] == {bob.user_id: {bob.device_id: {"curve25519:a": "k" * 43}}}
    assert list(found["failures"]) == ["b.test"]


def test_keys_that_were_not_claimed_are_dropped(alice: Person, b: Remote) -> None:
    carol, dave = b.user_id("carol"), b.user_id("dave")
    answer = {
        carol: {"PHONE": {f"{CURVE}:a": {"key": "k"}}, "OTHER": {f"{CURVE}:b": {"key": "k"}}},
        dave: {"PHONE": {f"{CURVE}:a": {"key": "k"}}},
        alice.user_id: {alice.device_id: {f"{CURVE}:a": {"key": "k"}}},
    }
    b.answer(CLAIM, Response(200, {"one_time_keys": answer}))

    found = claim(alice, {carol: {"PHONE": CURVE, "TABLET": CURVE}})

    assert found["one_time_keys"] == {carol: {"PHONE": {f"{CURVE}:a": {"key": "k"}}}}


@pytest.mark.parametrize("key", [{"other:a": "k"}, {f"{CURVE}:a": 7}, {f"{CURVE}:a": {}}, "k", []])
def test_malformed_one_time_keys_are_dropped(alice: Person, b: Remote, key: Any) -> None:
    carol = b.user_id("carol")
    b.answer(CLAIM, Response(200, {"one_time_keys": {carol: {"PHONE": key}}}))

    found = claim(alice, {carol: {"PHONE": CURVE}})

    assert found["one_time_keys"] == {}


def test_many_users_and_devices_are_split(
    app: Application, alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_keys, "USERS_AT_ONCE", 2)
    monkeypatch.setattr(remote_keys, "CLAIMS_AT_ONCE", 2)
    room_id = shared_room(app, alice, b)
    users = [b.user_id(f"u{number}") for number in range(5)]
    join(app, room_id, *users)
    for user_id in users:
        b.add_device(user_id, "PHONE", "a")

    found = query(alice, *users)
    claimed = claim(alice, {user_id: {"PHONE": CURVE} for user_id in users})

    assert sorted(found["device_keys"]) == users
    assert sorted(claimed["one_time_keys"]) == users
    assert (len(b.received(QUERY)), len(b.received(CLAIM))) == (3, 3)
    assert rows(app) == (5, 5)


def test_without_federation_users_of_other_servers_are_unknown(make_app: MakeApp) -> None:
    client = make_app().test_client()
    body = {"username": "alice", "password": "x" * 20, "auth": {"type": "m.login.dummy"}}
    token = client.post("/_matrix/client/v3/register", json=body).get_json()["access_token"]
    alice = Person(client, "@alice:localhost", token, "D")

    found = query(alice, "@carol:b.test")
    claimed = claim(alice, {"@carol:b.test": {"D": CURVE}})

    assert (found["device_keys"], found["failures"]) == ({}, {})
    assert claimed == {"one_time_keys": {}, "failures": {}}
