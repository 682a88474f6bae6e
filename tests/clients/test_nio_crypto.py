"""Two users who encrypt, with matrix-nio and vodozemac: what a bot in an encrypted room does.

They send only to devices they have verified: nio refuses others.
"""

import asyncio
import contextlib
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nio
import pytest

from tests.clients import nio_client
from tests.clients.nio_client import NioPerson, ok

_ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


class SecretPerson(NioPerson):
    """A user whose client encrypts; `sealed` has the IDs of events that it could not decrypt."""

    def __init__(self, url: str, name: str, store: Path) -> None:
        super().__init__(url, name)
        self.sealed: list[str] = []
        self._url = url
        self._store = store

    def _use_keys(self, name: str, device: str) -> None:
        folder = self._store / name / device
        folder.mkdir(parents=True)
        self.name = name
        self.nio = nio_client.client(self._url, name, str(folder))
        self.nio.add_event_callback(self._note_sealed, nio.MegolmEvent)

    async def register(self) -> None:
        self._use_keys(self.name, "first")
        await super().register()

    async def login(self, name: str) -> None:
        """Become another device of the user with this name."""
        self._use_keys(name, "telephone")
        ok(await self.nio.login(nio_client.PASSWORD, device_name="telephone"))

    async def _note_sealed(self, _room: Any, event: Any) -> None:
        self.sealed.append(event.event_id)

    async def see_keys(self, other: NioPerson) -> Any:
        """The device of the other as the server sent it, once it has."""

        def look() -> Any:
            devices = self.nio.device_store.active_user_devices(other.user_id)
            return next((one for one in devices if one.id == other.nio.device_id), None)

        return await self.until(look, f"keys of {other.nio.device_id}")

    async def trust(self, other: NioPerson) -> None:
        """Verify the device of the other by its fingerprint."""
        device = await self.see_keys(other)
        assert device.ed25519 == other.nio.olm.account.identity_keys["ed25519"]
        assert self.nio.verify_device(device)

    async def create_secret_room(self, *invited: str) -> str:
        answer = ok(await self.nio.room_create(invite=invited, initial_state=[_ENCRYPTION]))
        room_id = str(answer.room_id)
        await self.see_encryption(room_id)
        return room_id

    async def see_encryption(self, room_id: str) -> None:
        """Wait until the room is here and known as an encrypted one."""
        await self.until(lambda: getattr(self.room(room_id), "encrypted", False), "encryption")

    async def stored(self, room_id: str, event_id: str) -> Any:
        """The event as the server has it, by a request of which nio knows nothing."""
        path = f"{urllib.parse.quote(room_id)}/event/{urllib.parse.quote(event_id)}"
        asked = urllib.request.Request(  # noqa: S310 - loopback
            f"{self._url}/_matrix/client/v3/rooms/{path}",
            headers={"Authorization": f"Bearer {self.nio.access_token}"},
        )

        def ask() -> Any:
            with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - loopback
                return json.load(answer)

        return await asyncio.to_thread(ask)


@contextlib.asynccontextmanager
async def newcomer(url: str, name: str, store: Path) -> AsyncIterator[SecretPerson]:
    """Someone newly registered, who syncs and encrypts."""
    someone = SecretPerson(url, name, store)
    try:
        await someone.register()
        someone.start()
        yield someone
    finally:
        await someone.stop()


@contextlib.asynccontextmanager
async def on_another_device(
    url: str, who: SecretPerson, store: Path
) -> AsyncIterator[SecretPerson]:
    """The same user with a client that knows nothing yet."""
    someone = SecretPerson(url, "again", store)
    try:
        await someone.login(who.name)
        someone.start()
        yield someone
    finally:
        await someone.stop()


@contextlib.asynccontextmanager
async def a_secret_room(
    url: str, store: Path
) -> AsyncIterator[tuple[SecretPerson, SecretPerson, str]]:
    """Alice and Bob in an encrypted room; each has verified the device of the other."""
    async with newcomer(url, "alice", store) as alice, newcomer(url, "bob", store) as bob:
        room_id = await alice.create_secret_room(bob.user_id)
        await bob.join(room_id)
        await bob.see_encryption(room_id)
        await alice.see_member(room_id, bob.user_id)
        await alice.trust(bob)
        await bob.trust(alice)
        yield alice, bob, room_id


async def test_two_bots_talk_both_ways_in_an_encrypted_room(server: str, tmp_path: Path) -> None:
    async with a_secret_room(server, tmp_path) as (alice, bob, room_id):
        question = await alice.say(room_id, "Where is the treasure?")
        heard_by_bob = await bob.hear(room_id, "Where is the treasure?")
        answer = await bob.say(room_id, "Under the 🌴")
        heard_by_alice = await alice.hear(room_id, "Under the 🌴")

        assert heard_by_bob == (room_id, alice.user_id, "Where is the treasure?", question)
        assert heard_by_alice == (room_id, bob.user_id, "Under the 🌴", answer)
        assert alice.sealed + bob.sealed == []


async def test_the_server_has_nothing_but_the_sealed_message(server: str, tmp_path: Path) -> None:
    async with a_secret_room(server, tmp_path) as (alice, bob, room_id):
        event_id = await alice.say(room_id, "Where is the treasure?")
        await bob.hear(room_id, "Where is the treasure?")

        event = await bob.stored(room_id, event_id)

        assert event["type"] == "m.room.encrypted"
        assert event["content"]["algorithm"] == "m.megolm.v1.aes-sha2"
        assert "treasure" not in json.dumps(event)


async def test_a_second_device_reads_what_is_said_after_its_login(
    server: str, tmp_path: Path
) -> None:
    async with a_secret_room(server, tmp_path) as (alice, bob, room_id):
        before = await alice.say(room_id, "Are you at the telephone?")
        await bob.hear(room_id, "Are you at the telephone?")

        async with on_another_device(server, bob, tmp_path) as telephone:
            await telephone.see_encryption(room_id)
            await alice.trust(telephone)
            after = await alice.say(room_id, "Now you are")
            heard_by_telephone = await telephone.hear(room_id, "Now you are")
            await bob.hear(room_id, "Now you are")

        assert heard_by_telephone == (room_id, alice.user_id, "Now you are", after)
        assert telephone.sealed == [before], "what was said before was not for this device"
        assert alice.sealed + bob.sealed == []


async def test_a_new_device_is_told_to_the_sender_who_refuses_it_unverified(
    server: str, tmp_path: Path
) -> None:
    async with (
        a_secret_room(server, tmp_path) as (alice, bob, room_id),
        on_another_device(server, bob, tmp_path) as telephone,
    ):
        await alice.see_keys(telephone)

        with pytest.raises(nio.OlmUnverifiedDeviceError) as refusal:
            await alice.say(room_id, "Is that you?")

        assert refusal.value.device.id == telephone.nio.device_id
