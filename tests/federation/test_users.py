"""What homebody and Synapse exchange about users, apart from events: EDUs, profiles, devices."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

from tests.federation.users import User

MEDIA = "/_matrix/client/v1/media"


def device_keys(user: User) -> dict[str, Any]:
    """Return device keys as clients upload them, with a signature that no server verifies."""
    device = user.device_id
    return {
        "user_id": user.user_id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"ed25519:{device}": "e" * 43, f"curve25519:{device}": "c" * 43},
        "signatures": {user.user_id: {f"ed25519:{device}": "s" * 86}},
    }


def test_typing_is_shown_on_the_other_server(alice: User, bob: User, shared_room: str) -> None:
    typing = f"/rooms/{shared_room}/typing/{bob.user_id}"

    bob.ask("PUT", typing, {"typing": True, "timeout": 20_000})

    alice.sees_ephemeral("m.typing", lambda it: it["content"]["user_ids"] == [bob.user_id])


def test_a_read_receipt_reaches_the_other_server(alice: User, bob: User, shared_room: str) -> None:
    event_id = alice.send(shared_room, "read this")
    bob.sees(shared_room, "read this")

    bob.act(shared_room, f"receipt/m.read/{quote(event_id)}")

    alice.sees_ephemeral(
        "m.receipt",
        lambda it: bob.user_id in it["content"].get(event_id, {}).get("m.read", {}),
    )


def test_a_profile_is_read_and_its_changes_come(alice: User, bob: User, shared_room: str) -> None:
    alice.ask("PUT", f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})

    profile = bob.ask("GET", f"/profile/{alice.user_id}")
    bob.until(
        lambda: bob.sees_member(shared_room, alice).get("displayname") == "Alice", "her new name"
    )

    assert profile["displayname"] == "Alice"


def test_the_rooms_of_a_server_are_listed_on_the_other(alice: User, bob: User) -> None:
    room_id = alice.create_room(preset="public_chat", visibility="public", name="Tea")

    listed = bob.ask("POST", f"/publicRooms?server={alice.home.name}", {"limit": 100})

    assert {it["room_id"]: it["name"] for it in listed["chunk"]}[room_id] == "Tea"


def test_a_file_is_downloaded_from_the_other_server(alice: User, bob: User) -> None:
    content = b"not quite an image" * 1000

    status, answer = alice.raw("POST", "/_matrix/media/v3/upload?filename=a.bin", content)
    assert status == 200, answer
    uri = json.loads(answer)["content_uri"].removeprefix("mxc://")
    status, received = bob.raw("GET", f"{MEDIA}/download/{uri}")

    assert (status, received) == (200, content)


def test_device_keys_and_one_time_keys_come_from_the_other_server(
    alice: User, bob: User, shared_room: str
) -> None:
    keys = device_keys(alice)
    one_time = {"curve25519:AAAA": "d" * 43}
    alice.ask("POST", "/keys/upload", {"device_keys": keys, "one_time_keys": one_time})
    claim = {"one_time_keys": {alice.user_id: {alice.device_id: "curve25519"}}}

    def queried() -> object:
        answer = bob.ask("POST", "/keys/query", {"device_keys": {alice.user_id: []}})
        return answer["device_keys"].get(alice.user_id, {}).get(alice.device_id, {}).get("keys")

    bob.until(lambda: queried() == keys["keys"], "her device keys")
    claimed = bob.ask("POST", "/keys/claim", claim)

    assert claimed["one_time_keys"] == {alice.user_id: {alice.device_id: one_time}}


def test_a_new_device_is_announced_to_the_other_server(
    alice: User, bob: User, shared_room: str
) -> None:
    bob.sync()
    bob.changed_devices.clear()

    alice.ask("POST", "/keys/upload", {"device_keys": device_keys(alice)})

    bob.until(lambda: alice.user_id in bob.changed_devices, "the change of her devices")


def test_a_to_device_message_reaches_the_other_server(
    alice: User, bob: User, shared_room: str
) -> None:
    body = {"messages": {bob.user_id: {bob.device_id: {"n": 1}}}}

    alice.ask("PUT", f"/sendToDevice/org.example.ping/{time.time_ns()}", body)

    (message,) = bob.until(lambda: bob.to_device, "the message")
    assert message == {
        "type": "org.example.ping",
        "sender": alice.user_id,
        "content": {"n": 1},
    }


def test_to_device_messages_wait_while_a_server_is_down(
    alice: User, bob: User, shared_room: str
) -> None:
    bob.sync()
    bob.home.stop()
    for number in range(3):
        body = {"messages": {bob.user_id: {bob.device_id: {"n": number}}}}
        alice.ask("PUT", f"/sendToDevice/org.example.ping/{time.time_ns()}", body)
    bob.home.start()
    bob.server = bob.home.running

    bob.send(shared_room, "back")  # so that the other server knows
    bob.until(lambda: len(bob.to_device) == 3, "all messages")

    assert [it["content"]["n"] for it in bob.to_device] == [0, 1, 2]
