"""Changes of devices of users of other servers: applied, or noticed when they were lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from homebody.core.federation import device_resync
from homebody.models.remote_users import RemoteUser
from homebody.web import Application
from tests.conftest import Login, Person
from tests.core.federation.test_remote_keys import QUERY, query, rows
from tests.helpers import encryption
from tests.helpers.remote import Remote, Remotes, edu
from tests.helpers.shared_rooms import join, leave, shared_room
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
UPDATE, SIGNING_UPDATE = "m.device_list_update", "m.signing_key_update"
DEVICES = "/user/devices/"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(app: Application, remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def carol(b: Remote) -> str:
    return b.user_id("carol")


@pytest.fixture
def resync(app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the server fetch lists again, soon after failures."""
    monkeypatch.setattr(device_resync, "FIRST_WAIT_S", 0.05)
    app.homeserver.device_resync.start()
    yield
    app.homeserver.device_resync.stop()


def change(b: Remote, device_id: str, stream_id: int, *prev_ids: int, **more: Any) -> Json:
    """Return the content of an update of one of carol's devices."""
    carol = b.user_id("carol")
    keys = b.devices.get(carol, {}).get(device_id)
    content: Json = {
        "user_id": carol,
        "device_id": device_id,
        "device_display_name": f"Device {device_id}",
        "stream_id": stream_id,
        "prev_id": list(prev_ids),
    }
    return {**content, **({"keys": keys} if keys else {}), **more}


def changed(person: Person, since: str) -> list[str]:
    """Return the users whose devices have changed."""
    found: list[str] = person.sync(since).get("device_lists", {}).get("changed", [])
    return found


def devices(person: Person, user_id: str) -> list[str]:
    return sorted(query(person, user_id)["device_keys"].get(user_id, {}))


def is_stale(app: Application) -> bool:
    with app.homeserver.database.read() as tx:
        return any(tx.sql.execute(select(RemoteUser.is_stale)).scalars())


def stream_id(app: Application) -> int | None:
    with app.homeserver.database.read() as tx:
        found: int | None = tx.sql.execute(select(RemoteUser.devices_stream_id)).scalar()
        return found


def followed(app: Application, alice: Person, b: Remote) -> str:
    """Make a room with carol, whose list is kept up to the stream id 2, and return the room."""
    room_id = shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, b.user_id("carol"))
    b.add_device("carol", "TABLET")
    b.send_edu(UPDATE, change(b, "TABLET", 2, 1))
    wait_for(lambda: stream_id(app) == 2, "the list")
    return room_id


def test_a_lost_change_leads_to_the_whole_list(
    app: Application, alice: Person, b: Remote, carol: str, resync: None
) -> None:
    followed(app, alice, b)

    assert devices(alice, carol) == ["PHONE", "TABLET"]
    assert len(b.received(QUERY)) == 1
    assert len(b.received(DEVICES)) == 1
    assert query(alice, carol)["device_keys"][carol]["PHONE"]["unsigned"] == {
        "device_display_name": "Device PHONE"
    }


def test_changes_in_order_are_applied_without_a_request(
    app: Application, alice: Person, b: Remote, carol: str, resync: None
) -> None:
    followed(app, alice, b)
    keys = b.add_device("carol", "WATCH")

    b.send(
        edus=[
            edu(UPDATE, change(b, "WATCH", 3, 2)),
            edu(UPDATE, change(b, "PHONE", 4, 3, deleted=True)),
            edu(UPDATE, change(b, "TABLET", 5, 4, device_display_name="Renamed")),
        ]
    )

    found = query(alice, carol)["device_keys"][carol]
    assert sorted(found) == ["TABLET", "WATCH"]
    assert found["WATCH"] == {**keys, "unsigned": {"device_display_name": "Device WATCH"}}
    assert found["TABLET"]["unsigned"] == {"device_display_name": "Renamed"}
    assert stream_id(app) == 5
    assert (len(b.received(QUERY)), len(b.received(DEVICES))) == (1, 1)


def test_a_list_from_a_query_follows_the_change_that_came_before_it(
    app: Application, alice: Person, b: Remote, carol: str, resync: None
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    b.send_edu(UPDATE, change(b, "PHONE", 7))
    b.send_edu(SIGNING_UPDATE, {"user_id": carol})  # which has no stream id
    query(alice, carol)
    b.add_device("carol", "WATCH")

    b.send_edu(UPDATE, change(b, "WATCH", 9, 7))

    assert devices(alice, carol) == ["PHONE", "WATCH"]
    assert stream_id(app) == 9
    assert (len(b.received(QUERY)), len(b.received(DEVICES))) == (1, 0)


def test_a_change_that_is_lost_after_a_query_is_noticed(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    b.send_edu(UPDATE, change(b, "PHONE", 7))
    query(alice, carol)

    b.send_edu(UPDATE, change(b, "WATCH", 9, 8))

    assert is_stale(app)


def test_a_device_without_keys_is_not_shown(
    app: Application, alice: Person, b: Remote, carol: str, resync: None
) -> None:
    followed(app, alice, b)

    b.send_edu(UPDATE, change(b, "BARE", 3, 2))

    assert devices(alice, carol) == ["PHONE", "TABLET"]
    assert stream_id(app) == 3


def test_a_change_that_is_sent_again_changes_nothing(
    app: Application, alice: Person, b: Remote, resync: None
) -> None:
    followed(app, alice, b)
    since = alice.sync()["next_batch"]

    b.send_edu(UPDATE, change(b, "TABLET", 2, 1))

    assert changed(alice, since) == []
    assert not is_stale(app)


@pytest.mark.parametrize("prev_ids", [(), (1,), (7,), (2, 7)])
def test_every_change_with_other_predecessors_makes_the_list_stale(
    app: Application, alice: Person, b: Remote, prev_ids: tuple[int, ...]
) -> None:
    app.homeserver.device_resync.start()
    followed(app, alice, b)
    app.homeserver.device_resync.stop()

    b.send_edu(UPDATE, change(b, "TABLET", 9, *prev_ids))

    assert is_stale(app)


def test_clients_who_share_a_room_are_notified_of_changes(
    app: Application, alice: Person, login: Login, b: Remote, carol: str
) -> None:
    bob = login("bob")
    shared_room(app, alice, b)
    tokens = {person: person.sync()["next_batch"] for person in (alice, bob)}

    b.send_edu(UPDATE, change(b, "PHONE", 1))

    assert changed(alice, tokens[alice]) == [carol]
    assert changed(bob, tokens[bob]) == []
    assert rows(app) == (0, 0)


def test_changes_of_users_who_share_no_room_are_ignored(
    app: Application, alice: Person, b: Remote
) -> None:
    since = alice.sync()["next_batch"]

    b.send_edu(UPDATE, change(b, "PHONE", 1))

    assert changed(alice, since) == []
    assert rows(app) == (0, 0)


def test_clients_are_notified_of_users_who_leave(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    since = alice.sync()["next_batch"]

    leave(app, room_id, carol)

    assert alice.sync(since)["device_lists"] == {"changed": [], "left": [carol]}


@pytest.mark.parametrize("status", [403, 404])
def test_a_user_whom_the_server_does_not_know_has_no_devices(
    app: Application, alice: Person, b: Remote, carol: str, resync: None, status: int
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, carol)
    b.fail(DEVICES, status)

    b.send_edu(UPDATE, change(b, "PHONE", 7, 6))

    wait_for(lambda: rows(app) == (1, 0), "the empty list")
    assert not is_stale(app)


def test_a_server_that_fails_is_asked_again_later(
    app: Application, alice: Person, b: Remote, carol: str, resync: None
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, carol)
    b.fail(DEVICES, 500, times=2)

    b.send_edu(UPDATE, change(b, "PHONE", 7, 6))

    wait_for(lambda: not is_stale(app), "the list")
    assert len(b.received(DEVICES)) == 3


def test_a_server_that_is_there_again_is_asked_at_once(
    app: Application,
    alice: Person,
    b: Remote,
    carol: str,
    resync: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_resync, "FIRST_WAIT_S", 3600.0)
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, carol)
    b.fail(DEVICES, 500, times=1)
    b.send_edu(UPDATE, change(b, "PHONE", 7, 6))
    b.wait_until(lambda: b.received(DEVICES), "the request that fails")

    time.sleep(0.1)  # until it is noted
    b.send()

    wait_for(lambda: not is_stale(app), "the list")


def test_lists_that_were_stale_at_the_stop_are_fetched_at_the_start(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, carol)
    b.send_edu(UPDATE, change(b, "PHONE", 7, 6))
    assert is_stale(app)

    app.homeserver.device_resync.start()

    wait_for(lambda: not is_stale(app), "the list")
    app.homeserver.device_resync.stop()


def test_few_servers_are_asked_at_once_and_each_by_one_request(
    app: Application, alice: Person, b: Remote, resync: None
) -> None:
    room_id = shared_room(app, alice, b)
    users = [b.user_id(f"u{number}") for number in range(8)]
    join(app, room_id, *users)
    for user_id in users:
        b.add_device(user_id, "PHONE")
    query(alice, *users)
    b.delay(DEVICES, 0.02)

    b.send(edus=[edu(UPDATE, change(b, "PHONE", 7, 6, user_id=it, keys=None)) for it in users])

    wait_for(lambda: not is_stale(app), "the lists")
    assert sorted(it.path.rpartition("/")[2] for it in b.received(DEVICES)) == users


def test_a_change_during_the_request_leads_to_another(
    app: Application, alice: Person, b: Remote, carol: str, resync: None
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, carol)
    b.delay(DEVICES, 0.5, times=1)
    b.send_edu(UPDATE, change(b, "PHONE", 7, 6))
    b.wait_until(lambda: b.received(DEVICES), "the first request")

    b.add_device("carol", "TABLET")
    b.send_edu(UPDATE, change(b, "TABLET", 8, 7))

    wait_for(lambda: not is_stale(app), "the list")
    assert devices(alice, carol) == ["PHONE", "TABLET"]
    assert len(b.received(DEVICES)) == 2


@pytest.mark.parametrize("edu_type", [SIGNING_UPDATE, "org.matrix.signing_key_update"])
def test_cross_signing_keys_are_replaced(
    app: Application, alice: Person, b: Remote, carol: str, edu_type: str
) -> None:
    shared_room(app, alice, b)
    b.add_device("carol", "PHONE")
    query(alice, carol)
    since = alice.sync()["next_batch"]
    identity = encryption.Identity(carol)
    master, self_signing = identity.key("master"), identity.key("self_signing")

    content = {"user_id": carol, "master_key": master, "self_signing_key": self_signing}
    b.send_edu(edu_type, content)

    found = query(alice, carol)
    assert found["master_keys"][carol] == {**master, "signatures": {}}
    assert found["self_signing_keys"][carol] == self_signing
    assert changed(alice, since) == [carol]
    assert len(b.received(QUERY)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": "@carol:c.test"},
        {"user_id": "@alice:localhost"},
        {"device_id": 7},
        {"stream_id": "3"},
        {"prev_id": "2"},
        {"keys": {"user_id": "@carol:b.test"}},
    ],
)
def test_malformed_changes_are_dropped_alone(
    app: Application, alice: Person, b: Remote, carol: str, resync: None, wrong: Json
) -> None:
    followed(app, alice, b)
    b.add_device("carol", "WATCH")

    b.send(
        edus=[
            edu(UPDATE, change(b, "PHONE", 3, 2, deleted=True) | wrong),
            edu(UPDATE, change(b, "WATCH", 3, 2)),
        ]
    )

    assert devices(alice, carol) == ["PHONE", "TABLET", "WATCH"]


def test_senseless_edus_do_not_make_a_transaction_fail(alice: Person, b: Remote) -> None:
    wrong: list[Any] = [None, 7, [], {}, {"edu_type": UPDATE}, {"edu_type": 1, "content": {}}]
    wrong += [{"edu_type": UPDATE, "content": []}, {"edu_type": "org.example.x", "content": {}}]
    wrong += [{"edu_type": it, "content": {"x": None}} for it in (UPDATE, SIGNING_UPDATE)]
    since = alice.sync()["next_batch"]

    assert b.send(edus=wrong) == {}

    assert changed(alice, since) == []
