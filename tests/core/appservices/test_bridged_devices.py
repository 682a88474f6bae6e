"""Bridges with encryption: messages to devices of their users, counts of keys, device lists."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from homebody.core import outbox
from homebody.core.appservices import bridged_devices
from homebody.web import Application
from tests.client_server.test_appservices import BOT, GHOST, Irc
from tests.conftest import Login, MakeApp, Person
from tests.helpers import bridge, encryption
from tests.helpers.bridge import AS_TOKEN, Bridge
from tests.helpers.rooms import act

Json = dict[str, Any]
Room = Callable[..., str]
TO_DEVICE = "de.sorunome.msc2409.to_device"
LISTS = "org.matrix.msc3202.device_lists"
COUNTS = "org.matrix.msc3202.device_one_time_keys_count"
FALLBACKS = "org.matrix.msc3202.device_unused_fallback_key_types"
DEVICE = "GHOSTDEV"
TRANSACTIONS = itertools.count()


class Ghost(Irc):
    """A bridge that acts as one of its users, with a device."""

    def request(self, method: str, path: str, **kwargs: Any) -> TestResponse:
        query = {"user_id": self.user_id, "org.matrix.msc3202.device_id": self.device_id}
        query |= kwargs.pop("query_string", {})
        return super().request(method, path, query_string=query, **kwargs)


@pytest.fixture
def irc_server() -> Iterator[Bridge]:
    with bridge.running() as running:
        yield running


@pytest.fixture
def start(
    make_app: MakeApp, tmp_path: Path, irc_server: Bridge
) -> Iterator[Callable[..., Application]]:
    """A server with a bridge, to which it delivers."""
    started: list[Application] = []

    def begin(**changes: Any) -> Application:
        told = bridge.registration(irc_server.url, **{"org.matrix.msc3202": True, **changes})
        app = make_app(appservices=f'["{bridge.write(tmp_path, told)}"]')
        app.homeserver.delivery.start()
        started.append(app)
        return app

    yield begin
    for app in started:
        app.homeserver.delivery.stop()


@pytest.fixture
def app(start: Callable[..., Application]) -> Application:
    return start()


@pytest.fixture
def client(app: Application) -> Any:
    return app.test_client()


@pytest.fixture
def ghost(client: Any) -> Ghost:
    return made_ghost(client)


def made_ghost(client: Any) -> Ghost:
    """A ghost with a device."""
    irc = Irc(client, BOT, AS_TOKEN, "")
    irc.make_ghost()
    answer = irc.as_user(GHOST, "PUT", f"devices/{DEVICE}", json={})
    assert answer.status_code == 201, answer.get_json()
    return Ghost(client, GHOST, AS_TOKEN, DEVICE)


def sections(irc_server: Bridge, name: str) -> list[Any]:
    """The contents of a section in all transactions."""
    calls = irc_server.asked("/transactions/")
    return [call.body[name] for call in calls if name in call.body]


def key(person: Person, number: int, **more: Any) -> Json:
    """A key that the device signs."""
    signing = encryption.device_key(person)
    return encryption.sign({"key": f"{number}", **more}, person.user_id, DEVICE, signing)


def send(person: Person, messages: Json, event_type: str = "m.room_key_request") -> None:
    path = f"sendToDevice/{event_type}/{next(TRANSACTIONS)}"
    assert person.put(path, json={"messages": messages}).status_code == 200


def upload(person: Person, **body: Any) -> None:
    answer = person.post("keys/upload", json=body)
    assert answer.status_code == 200, answer.get_json()


def test_messages_to_devices_come_with_a_transaction(
    ghost: Ghost, irc_server: Bridge, login: Login
) -> None:
    alice = login("alice")

    send(alice, {GHOST: {DEVICE: {"n": 1}, "UNKNOWN": {}}, alice.user_id: {"*": {"n": 2}}})
    send(alice, {GHOST: {"*": {"n": 3}}})
    irc_server.wait_until(lambda: sum(map(len, sections(irc_server, TO_DEVICE))) == 2)

    messages = [it for some in sections(irc_server, TO_DEVICE) for it in some]
    to = {"to_user_id": GHOST, "to_device_id": DEVICE}
    common = {"type": "m.room_key_request", "sender": alice.user_id, **to}
    assert messages == [{**common, "content": {"n": n}} for n in (1, 3)]
    assert ghost.sync()["to_device"]["events"] == []
    assert [it["content"] for it in alice.sync()["to_device"]["events"]] == [{"n": 2}]


def test_the_counts_of_keys_come_after_each_change(
    ghost: Ghost, irc_server: Bridge, login: Login
) -> None:
    alice = login("alice")
    encryption.upload_device_keys(ghost)
    one_time = {f"signed_curve25519:{number}": key(ghost, number) for number in range(2)}

    upload(ghost, one_time_keys=one_time)
    irc_server.wait_until(lambda: sections(irc_server, COUNTS))
    upload(ghost, fallback_keys={"signed_curve25519:f": key(ghost, 9, fallback=True)})
    irc_server.wait_until(lambda: len(sections(irc_server, COUNTS)) == 2)
    wanted = {"one_time_keys": {GHOST: {DEVICE: "signed_curve25519"}}}
    assert alice.post("keys/claim", json=wanted).status_code == 200
    irc_server.wait_until(lambda: len(sections(irc_server, COUNTS)) == 3)

    numbers = [it[GHOST][DEVICE]["signed_curve25519"] for it in sections(irc_server, COUNTS)]
    fallbacks = [it[GHOST][DEVICE] for it in sections(irc_server, FALLBACKS)]
    assert numbers == [2, 2, 1]
    assert fallbacks == [[], ["signed_curve25519"], ["signed_curve25519"]]


def test_messages_come_with_the_counts_of_their_devices(
    ghost: Ghost, irc_server: Bridge, login: Login
) -> None:
    send(login("alice"), {ghost.user_id: {DEVICE: {}}})

    irc_server.wait_until(lambda: sections(irc_server, TO_DEVICE))

    assert sections(irc_server, COUNTS) == [{GHOST: {DEVICE: {"signed_curve25519": 0}}}]


def test_changed_devices_of_users_in_a_room_with_its_users_are_listed(
    ghost: Ghost, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice, mallory = login("alice"), login("mallory")
    room_id = room(alice)
    assert ghost.post(f"rooms/{quote(room_id)}/join").status_code == 200

    encryption.upload_device_keys(mallory)
    encryption.upload_device_keys(alice)
    irc_server.wait_until(lambda: sections(irc_server, LISTS))

    assert sections(irc_server, LISTS) == [{"changed": [alice.user_id], "left": []}]


def test_users_who_come_and_go_are_listed(
    ghost: Ghost, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice), room(alice, bob)
    for it in (room_id, other):
        assert ghost.post(f"rooms/{quote(it)}/join").status_code == 200
    irc_server.wait_until(lambda: len(irc_server.events("m.room.member")) == 2)

    act(bob, room_id, "join")
    irc_server.wait_until(lambda: len(irc_server.events("m.room.member")) == 3)
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Robert"})
    act(bob, room_id, "leave")
    irc_server.wait_until(lambda: len(irc_server.events("m.room.member")) == 6)
    act(bob, other, "leave")
    irc_server.wait_until(lambda: len(irc_server.events("m.room.member")) == 7)

    assert sections(irc_server, LISTS) == [
        {"changed": [bob.user_id], "left": []},
        {"changed": [], "left": [bob.user_id]},
    ]


def test_a_user_who_joins_an_encrypted_room_gets_its_members_listed(
    ghost: Ghost, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    algorithm = {"algorithm": "m.megolm.v1.aes-sha2"}
    assert alice.set_state(room_id, "m.room.encryption", algorithm).status_code == 200

    assert ghost.post(f"rooms/{quote(room_id)}/join").status_code == 200
    irc_server.wait_until(lambda: sections(irc_server, LISTS))

    assert sections(irc_server, LISTS) == [{"changed": [alice.user_id, bob.user_id], "left": []}]


def test_while_too_much_waits_messages_stay_in_the_inbox(
    monkeypatch: pytest.MonkeyPatch,
    app: Application,
    ghost: Ghost,
    irc_server: Bridge,
    login: Login,
) -> None:
    monkeypatch.setattr(bridged_devices, "MAX_WAITING", 2)
    alice = login("alice")
    app.homeserver.delivery.stop()

    for number in range(5):
        send(alice, {GHOST: {DEVICE: {"n": number}}})

    with app.homeserver.database.read() as tx:
        rows = outbox.first(tx, "appservice", "irc", 10)
    assert [it.payload["to_device"]["content"] for it in rows] == [{"n": n} for n in range(3)]
    assert [it["content"] for it in ghost.sync()["to_device"]["events"]] == [{"n": 3}, {"n": 4}]


@pytest.mark.parametrize(
    "changes",
    [
        {"org.matrix.msc3202": False},
        {"namespaces": {"users": [{"regex": "@_irc_.*", "exclusive": False}]}},
    ],
    ids=["it does not want them", "the users are not its own"],
)
def test_other_services_leave_messages_in_the_inbox(
    start: Callable[..., Application], irc_server: Bridge, changes: Json
) -> None:
    app = start(**changes)
    ghost = made_ghost(app.test_client())
    irc = Irc(app.test_client(), BOT, AS_TOKEN, "")

    send(irc, {GHOST: {DEVICE: {"n": 1}}})
    upload(ghost, one_time_keys={"signed_curve25519:1": key(ghost, 1)})

    assert [it["content"] for it in ghost.sync()["to_device"]["events"]] == [{"n": 1}]
    with app.homeserver.database.read() as tx:
        rows = outbox.first(tx, "appservice", "irc", 10)
    assert (rows, irc_server.asked("/transactions/")) == ([], [])
