"""Users of homebody and Synapse who encrypt, with matrix-js-sdk and the Rust crypto of Element."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.clients import js_client
from tests.clients.js_client import JsPerson
from tests.federation.users import Home


@contextlib.asynccontextmanager
async def newcomer(home: Home, name: str) -> AsyncIterator[JsPerson]:
    """Yield a user who has just registered, with a client that encrypts."""
    async with js_client.in_node(home.running.url, name) as user:
        await user.register()
        await user.ask("initCrypto")
        await user.ask("start")
        yield user


@contextlib.asynccontextmanager
async def a_secret_room(host: Home, guest: Home) -> AsyncIterator[tuple[JsPerson, JsPerson, str]]:
    """Yield Alice and Bob in an encrypted room of the host."""
    async with newcomer(host, "alice") as alice, newcomer(guest, "bob") as bob:
        room_id = await alice.ask("createEncryptedRoom", invite=[bob.user_id])
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        await alice.ask("waitForMembership", roomId=room_id, userId=bob.user_id, membership="join")
        yield alice, bob, room_id


async def say(sender: JsPerson, receiver: JsPerson, room_id: str, body: str) -> None:
    """Send a message that the other must be able to decrypt."""
    await sender.ask("send", roomId=room_id, body=body)
    received = await receiver.ask("waitForDecrypted", roomId=room_id, body=body)
    assert received == {"isEncrypted": True, "sender": sender.user_id}


async def test_users_of_both_servers_decrypt_each_others_messages(host: Home, guest: Home) -> None:
    async with a_secret_room(host, guest) as (alice, bob, room_id):
        await say(alice, bob, room_id, "Where is the treasure?")
        await say(bob, alice, room_id, "Under the tree")


async def test_what_was_sent_while_a_server_was_down_is_decrypted(host: Home, guest: Home) -> None:
    async with a_secret_room(host, guest) as (alice, bob, room_id):
        await say(alice, bob, room_id, "Hello")  # one-time keys can't be had later
        guest.stop()
        await alice.ask("send", roomId=room_id, body="Are you there?")
        guest.start()

        received = await bob.ask("waitForDecrypted", roomId=room_id, body="Are you there?")
        await say(bob, alice, room_id, "Back again")

        assert received["isEncrypted"]
