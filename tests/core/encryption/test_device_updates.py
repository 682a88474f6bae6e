"""What other servers are sent when devices and cross-signing keys of local users change."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import outgoing
from homebody.spec import edus
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import encryption
from tests.helpers.remote import Remote, Remotes
from tests.helpers.shared_rooms import join, leave, shared_room

Json = dict[str, Any]
UPDATE, SIGNING_UPDATE = "m.device_list_update", "m.signing_key_update"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(app: Application, remote: Remotes) -> Remote:
    return remote("b.test")


def queued(app: Application, edu_type: str = UPDATE, server: str = "b.test") -> list[Json]:
    """Return the contents of the EDUs of a type in the outbox."""
    with app.homeserver.database.read() as tx:
        rows = outgoing.edus(tx, server, 0, 1000)
    return [it.payload["content"] for it in rows if it.payload["edu_type"] == edu_type]


def chain(contents: list[Json]) -> list[tuple[int, list[int]]]:
    return [(it["stream_id"], it["prev_id"]) for it in contents]


def rename(person: Person, name: str) -> None:
    path = f"devices/{person.device_id}"
    assert person.put(path, json={"display_name": name}).status_code == 200


def test_new_keys_names_and_the_end_of_a_device_are_sent_in_a_chain(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    device = {"user_id": alice.user_id, "device_id": alice.device_id}

    keys = encryption.upload_device_keys(alice)
    rename(alice, "Phone")
    alice.post("logout")

    added, renamed, removed = queued(app)
    (first, nothing), (second, after_first), (third, after_second) = chain(queued(app))
    assert (nothing, after_first, after_second) == ([], [first], [second])
    assert first < second < third
    assert added == {**device, "stream_id": first, "prev_id": [], "keys": keys}
    name = {"device_display_name": "Phone"}
    assert renamed == {**added, **name, "stream_id": second, "prev_id": [first]}
    assert removed == {**device, "stream_id": third, "prev_id": [second], "deleted": True}


def test_they_have_the_form_that_servers_accept(app: Application, alice: Person, b: Remote) -> None:
    shared_room(app, alice, b)
    encryption.upload_device_keys(alice)
    alice.post("keys/device_signing/upload", json=encryption.Identity(alice.user_id).upload())
    alice.post("logout")

    added, removed = queued(app)
    for content in (added, removed):
        assert edus.device_list_update(content, "localhost") is not None
    (keys,) = queued(app, SIGNING_UPDATE)
    assert edus.signing_key_update(keys, "localhost") is not None


def test_devices_without_keys_are_not_sent(app: Application, alice: Person, b: Remote) -> None:
    shared_room(app, alice, b)

    rename(alice, "Phone")
    alice.post("logout")

    assert queued(app) == []


def test_several_devices_are_several_links_of_the_chain(
    app: Application, login: Login, alice: Person, b: Remote
) -> None:
    others = [login("alice") for _ in range(3)]
    for person in (alice, *others):
        encryption.upload_device_keys(person)
    shared_room(app, alice, b)
    before = len(queued(app))

    body = {"devices": [it.device_id for it in others], "auth": encryption.password_of(alice)}
    assert alice.post("delete_devices", json=body).status_code == 200

    links = queued(app)[before:]
    assert sorted(it["device_id"] for it in links) == sorted(it.device_id for it in others)
    assert [it["prev_id"] for it in links[1:]] == [[it["stream_id"]] for it in links[:-1]]


def test_all_servers_that_share_a_room_get_them_and_no_others(
    app: Application, alice: Person, login: Login, b: Remote, remote: Remotes
) -> None:
    c, d = remote("c.test"), remote("d.test")
    shared_room(app, alice, b)
    shared_room(app, alice, b, c)
    shared_room(app, login("bob"), d)

    encryption.upload_device_keys(alice)

    assert [len(queued(app, server=it.name)) for it in (b, c, d)] == [1, 1, 0]


def test_the_stream_id_of_the_whole_list_is_that_of_the_last_change(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    encryption.upload_device_keys(alice)
    alice.post("keys/device_signing/upload", json=encryption.Identity(alice.user_id).upload())

    found = b.get("v1", "user/devices", alice.user_id).json
    rename(alice, "Phone")

    last, renamed = queued(app)
    assert found["stream_id"] == last["stream_id"]
    assert renamed["prev_id"] == [found["stream_id"]]


def test_cross_signing_keys_are_sent_without_the_user_signing_key(
    app: Application, alice: Person, b: Remote
) -> None:
    shared_room(app, alice, b)
    identity = encryption.Identity(alice.user_id)

    alice.post("keys/device_signing/upload", json=identity.upload())

    (found,) = queued(app, SIGNING_UPDATE)
    assert found.keys() == {"user_id", "master_key", "self_signing_key"}
    assert found["user_id"] == alice.user_id
    assert found["self_signing_key"] == identity.key("self_signing")


def test_a_new_user_signing_key_is_not_sent(app: Application, alice: Person, b: Remote) -> None:
    identity = encryption.Identity(alice.user_id)
    keys = identity.upload()
    user_signing = {"user_signing_key": keys.pop("user_signing_key")}
    alice.post("keys/device_signing/upload", json=keys)
    shared_room(app, alice, b)

    auth = {"auth": encryption.password_of(alice)}
    answer = alice.post("keys/device_signing/upload", json={**user_signing, **auth})

    assert answer.status_code == 200
    assert queued(app, SIGNING_UPDATE) == []


def test_a_signature_on_a_device_is_sent_with_its_keys(
    app: Application, alice: Person, b: Remote
) -> None:
    identity = encryption.Identity(alice.user_id)
    keys = encryption.upload_device_keys(alice)
    alice.post("keys/device_signing/upload", json=identity.upload())
    shared_room(app, alice, b)
    signed = identity.sign(keys, "self_signing")

    answer = alice.post("keys/signatures/upload", json={alice.user_id: {alice.device_id: signed}})

    assert answer.get_json() == {"failures": {}}
    found = queued(app)[-1]
    assert found["keys"]["signatures"] == signed["signatures"]
    assert queued(app, SIGNING_UPDATE) == []


def test_a_signature_on_the_master_key_is_sent_with_it(
    app: Application, alice: Person, b: Remote
) -> None:
    identity = encryption.Identity(alice.user_id)
    encryption.upload_device_keys(alice)
    alice.post("keys/device_signing/upload", json=identity.upload())
    shared_room(app, alice, b)
    before = len(queued(app))
    key = encryption.device_key(alice)
    signed = encryption.sign(identity.key("master"), alice.user_id, alice.device_id, key)

    body = {alice.user_id: {identity.public("master"): signed}}
    assert alice.post("keys/signatures/upload", json=body).get_json() == {"failures": {}}

    (found,) = queued(app, SIGNING_UPDATE)
    assert found["master_key"]["signatures"] == signed["signatures"]
    assert len(queued(app)) == before


def test_signatures_on_keys_of_others_are_not_sent(
    app: Application, alice: Person, login: Login, b: Remote
) -> None:
    bob = login("bob")
    of_alice, of_bob = (encryption.Identity(it.user_id) for it in (alice, bob))
    alice.post("keys/device_signing/upload", json=of_alice.upload())
    bob.post("keys/device_signing/upload", json=of_bob.upload())
    shared_room(app, alice, b)
    signed = of_alice.sign(of_bob.key("master"), "user_signing")

    answer = alice.post(
        "keys/signatures/upload", json={bob.user_id: {of_bob.public("master"): signed}}
    )

    assert answer.get_json() == {"failures": {}}
    assert queued(app) + queued(app, SIGNING_UPDATE) == []


def test_a_user_who_joins_is_announced_to_servers_that_are_new_to_them(
    app: Application, alice: Person, login: Login, b: Remote, remote: Remotes
) -> None:
    bob, c = login("bob"), remote("c.test")
    encryption.upload_device_keys(alice)
    shared_room(app, alice, b)
    room_id = shared_room(app, bob, b, c)
    before = len(queued(app))

    assert alice.post(f"rooms/{quote(room_id)}/join").status_code == 200

    assert len(queued(app)) == before
    (found,) = queued(app, server="c.test")
    assert (found["device_id"], found["prev_id"]) == (alice.device_id, [])
    assert found["stream_id"] == c.get("v1", "user/devices", alice.user_id).json["stream_id"]


def test_a_user_without_keys_is_not_announced(
    app: Application, alice: Person, login: Login, b: Remote
) -> None:
    room_id = shared_room(app, login("bob"), b)

    alice.post(f"rooms/{quote(room_id)}/join")

    assert queued(app) == []


def test_a_server_that_has_left_gets_no_changes(app: Application, alice: Person, b: Remote) -> None:
    room_id = shared_room(app, alice, b)
    leave(app, room_id, b.user_id("carol"))

    encryption.upload_device_keys(alice)

    assert queued(app) == []
    join(app, room_id, b.user_id("carol"))
    rename(alice, "Phone")
    assert len(queued(app)) == 1


def test_nothing_is_queued_without_federation(make_app: MakeApp, remote: Remotes) -> None:
    app = make_app(**{**remote.settings, "federation": "false"})
    client = app.test_client()
    body = {"username": "alice", "password": "x" * 20, "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])
    shared_room(app, alice, remote("b.test"))

    encryption.upload_device_keys(alice)

    assert queued(app) == []
