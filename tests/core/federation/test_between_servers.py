"""Users of two real servers encrypt: their devices, one-time keys, and what passes by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.helpers.live import Person
from tests.helpers.network import Network

Json = dict[str, Any]
CURVE = "signed_curve25519"
SECONDS = 15.0


class Device:
    """A user with one device, and a token of /sync that goes on."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.user_id = person.user_id
        self.device_id: str = person.ask("GET", "/account/whoami")["device_id"]
        self._since = ""

    def upload(self, **more: Any) -> None:
        keys = {f"{it}:{self.device_id}": "k" * 43 for it in ("ed25519", "curve25519")}
        device_keys = {
            "user_id": self.user_id,
            "device_id": self.device_id,
            "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": keys,
            "signatures": {self.user_id: {f"ed25519:{self.device_id}": "s"}},
        }
        self.person.ask("POST", "/keys/upload", {"device_keys": device_keys, **more})

    def wait_for(self, part: Callable[[Json], Any]) -> Any:
        """Return the first true value that `part` returns for a response of /sync."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            path = f"/sync?timeout=1000&since={self._since}" if self._since else "/sync"
            response = self.person.ask("GET", path)
            self._since = response["next_batch"]
            if found := part(response):
                return found
        raise AssertionError(f"nothing came within {SECONDS} s")

    def devices_of(self, other: Device) -> Json:
        wanted: Json = {"device_keys": {other.user_id: []}}
        response: Json = self.person.ask("POST", "/keys/query", wanted)
        found: Json = response["device_keys"][other.user_id]
        return found


def ephemeral(room_id: str, event_type: str) -> Callable[[Json], Any]:
    """Return the content of an ephemeral event in a response."""

    def look(response: Json) -> Any:
        room = response.get("rooms", {}).get("join", {}).get(room_id, {})
        events = room.get("ephemeral", {}).get("events", [])
        return next((it["content"] for it in events if it["type"] == event_type), None)

    return look


def changed(device: Device) -> Callable[[Json], bool]:
    return lambda response: device.user_id in response.get("device_lists", {}).get("changed", [])


@pytest.fixture
def shared(two_servers: Network) -> tuple[Device, Device, str]:
    """Alice of one server and Bob of the other in a room."""
    a, b = two_servers["a.test"], two_servers["b.test"]
    alice, bob = Device(a.person("alice")), Device(b.person("bob"))
    room_id = alice.person.create_room(preset="public_chat")
    bob.person.ask("POST", f"/join/{quote(room_id)}?via=a.test")
    alice.wait_for(lambda response: bob.user_id in str(response))
    bob.wait_for(lambda response: room_id in response["rooms"]["join"])
    return alice, bob, room_id


def test_devices_are_followed_and_keys_claimed(shared: tuple[Device, Device, str]) -> None:
    alice, bob, _room_id = shared
    key = {f"{CURVE}:a": {"key": "k" * 43, "signatures": {}}}

    bob.upload(one_time_keys=key)
    alice.wait_for(changed(bob))
    first = alice.devices_of(bob)
    bob.person.ask("PUT", f"/devices/{bob.device_id}", {"display_name": "Phone"})
    alice.wait_for(changed(bob))
    wanted = {"one_time_keys": {bob.user_id: {bob.device_id: CURVE}}}
    claimed = [alice.person.ask("POST", "/keys/claim", wanted) for _ in range(2)]

    assert list(first) == [bob.device_id]
    name = alice.devices_of(bob)[bob.device_id]["unsigned"]["device_display_name"]
    assert name == "Phone"
    assert claimed[0]["one_time_keys"] == {bob.user_id: {bob.device_id: key}}
    assert [it["failures"] for it in claimed] == [{}, {}]
    assert claimed[1]["one_time_keys"] == {}


def test_what_changes_during_a_partition_is_known_after_it(
    two_servers: Network, shared: tuple[Device, Device, str]
) -> None:
    alice, bob, _room_id = shared
    bob.upload()
    alice.wait_for(changed(bob))
    alice.devices_of(bob)

    two_servers.partition()
    bob.person.ask("PUT", f"/devices/{bob.device_id}", {"display_name": "Phone"})
    time.sleep(0.5)  # until an attempt has failed
    two_servers.heal()

    alice.wait_for(changed(bob))
    name = alice.devices_of(bob)[bob.device_id]["unsigned"]["device_display_name"]
    assert name == "Phone"


def test_messages_to_devices_survive_a_kill(
    two_servers: Network, shared: tuple[Device, Device, str]
) -> None:
    alice, bob, _room_id = shared
    two_servers.partition()
    for number in range(3):
        message = {"messages": {alice.user_id: {alice.device_id: {"n": number}}}}
        bob.person.ask("PUT", f"/sendToDevice/org.example.ping/t{number}", message)

    two_servers["b.test"].restart(kill=True)
    two_servers.heal()

    numbers: list[int] = []

    def collect(response: Json) -> bool:
        events = response.get("to_device", {}).get("events", [])
        numbers.extend(it["content"]["n"] for it in events)
        return len(numbers) >= 3

    alice.wait_for(collect)
    assert numbers == [0, 1, 2]


def test_typing_receipts_and_presence_reach_the_other_server(
    shared: tuple[Device, Device, str],
) -> None:
    alice, bob, room_id = shared
    event_id = alice.person.send(room_id)
    bob.wait_for(lambda response: event_id in str(response))

    path = f"/rooms/{quote(room_id)}"
    bob.person.ask("PUT", f"{path}/typing/{bob.user_id}", {"typing": True, "timeout": 30_000})
    typing = alice.wait_for(ephemeral(room_id, "m.typing"))
    bob.person.ask("POST", f"{path}/receipt/m.read/{quote(event_id)}")
    receipt = alice.wait_for(ephemeral(room_id, "m.receipt"))
    status = {"presence": "unavailable", "status_msg": "away"}
    bob.person.ask("PUT", f"/presence/{bob.user_id}/status", status)

    def presence(response: Json) -> Any:
        events = response.get("presence", {}).get("events", [])
        return next((it for it in events if it["content"].get("status_msg") == "away"), None)

    shown = alice.wait_for(presence)
    assert typing == {"user_ids": [bob.user_id]}
    assert list(receipt[event_id]["m.read"]) == [bob.user_id]
    assert shown["sender"] == bob.user_id
