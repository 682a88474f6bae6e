"""Two users who encrypt, with matrix-js-sdk and the Rust crypto that Element uses.

They talk, verify each other, back up their keys, and read old messages on a new device.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.clients import js_client, nio_client
from tests.clients.js_client import JsPerson

BODY = "Where is the treasure?"
ANSWER = "Under the 🌴"


@contextlib.asynccontextmanager
async def newcomer(url: str, name: str) -> AsyncIterator[JsPerson]:
    """Someone who has just registered, with a client that encrypts."""
    async with js_client.in_node(url, name) as someone:
        await someone.register()
        await someone.ask("initCrypto")
        await someone.ask("start")
        yield someone


@contextlib.asynccontextmanager
async def on_another_device(url: str, who: JsPerson) -> AsyncIterator[JsPerson]:
    """The same user with a client that knows nothing yet."""
    async with js_client.in_node(url, "again") as someone:
        await someone.login(who.name)
        await someone.ask("initCrypto")
        await someone.ask("start")
        yield someone


@contextlib.asynccontextmanager
async def a_secret_room(url: str) -> AsyncIterator[tuple[JsPerson, JsPerson, str]]:
    """Alice and Bob in an encrypted room."""
    async with newcomer(url, "alice") as alice, newcomer(url, "bob") as bob:
        room_id = await alice.ask("createEncryptedRoom", invite=[bob.user_id])
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        await alice.ask("waitForMembership", roomId=room_id, userId=bob.user_id, membership="join")
        yield alice, bob, room_id


async def say(sender: JsPerson, receiver: JsPerson, room_id: str, body: str) -> None:
    """One says something, the other understands it."""
    await sender.ask("send", roomId=room_id, body=body)
    heard = await receiver.ask("waitForDecrypted", roomId=room_id, body=body)
    assert heard == {"isEncrypted": True, "sender": sender.user_id}


async def verify_each_other(asker: JsPerson, other: JsPerson, room_id: str) -> None:
    """Both compare the emoji that their clients show."""
    await asker.ask("requestVerification", userId=other.user_id, roomId=room_id)
    await other.ask("acceptVerification")
    await asker.ask("startSas")
    await other.ask("followSas")
    shown = [await person.ask("emoji") for person in (asker, other)]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 7
    for person in (asker, other):
        await person.ask("confirmEmoji")
    for person in (asker, other):
        await person.ask("finishVerification")


async def test_they_talk_both_ways_in_an_encrypted_room(server: str) -> None:
    async with a_secret_room(server) as (alice, bob, room_id):
        await say(alice, bob, room_id, BODY)
        await say(bob, alice, room_id, ANSWER)


async def test_they_verify_each_other_and_their_other_devices_know(server: str) -> None:
    async with a_secret_room(server) as (alice, bob, room_id):
        recovery_key = await alice.ask("bootstrap")
        await bob.ask("bootstrap")
        before = await alice.ask("isVerified", userId=bob.user_id)

        await verify_each_other(alice, bob, room_id)

        assert before is False
        await alice.ask("waitForVerified", userId=bob.user_id)
        await bob.ask("waitForVerified", userId=alice.user_id)
        async with on_another_device(server, alice) as alice_again:
            await alice_again.ask("restore", recoveryKey=recovery_key)
            await alice_again.ask("waitForVerified", userId=bob.user_id)


async def test_the_first_keys_need_no_password_and_others_do(server: str) -> None:
    async with newcomer(server, "alice") as alice:
        await alice.ask("bootstrap")

        ready = await alice.ask("isReady")
        refused = await alice.ask("resetCrossSigning", password=nio_client.PASSWORD)

        assert ready == {"crossSigning": True, "secretStorage": True, "backup": True}
        assert refused == [401]


async def test_a_second_device_reads_old_messages_from_the_backup(server: str) -> None:
    async with a_secret_room(server) as (alice, bob, room_id):
        recovery_key = await alice.ask("bootstrap")
        await say(alice, bob, room_id, BODY)
        await say(bob, alice, room_id, ANSWER)
        await alice.ask("waitForBackup", count=2)
        await alice.ask("stop")

        async with on_another_device(server, alice) as alice_again:
            restored = await alice_again.ask("restore", recoveryKey=recovery_key)
            for body, sender in ((BODY, alice), (ANSWER, bob)):
                heard = await alice_again.ask("waitForDecrypted", roomId=room_id, body=body)
                assert heard == {"isEncrypted": True, "sender": sender.user_id}

            assert restored == {"total": 2, "imported": 2}
            ready = await alice_again.ask("isReady")
            assert ready == {"crossSigning": True, "secretStorage": True, "backup": True}
            await say(bob, alice_again, room_id, "And the key?")


async def test_who_is_logged_in_nowhere_gets_keys_by_a_dehydrated_device(server: str) -> None:
    async with a_secret_room(server) as (alice, bob, room_id):
        recovery_key = await alice.ask("bootstrap")
        await alice.ask("dehydrate")
        await alice.ask("logout")
        await bob.ask("send", roomId=room_id, body=ANSWER)

        async with on_another_device(server, alice) as alice_again:
            await alice_again.ask("restore", recoveryKey=recovery_key)
            messages = await alice_again.ask("rehydrate")

            assert messages > 0
            heard = await alice_again.ask("waitForDecrypted", roomId=room_id, body=ANSWER)
            assert heard == {"isEncrypted": True, "sender": bob.user_id}
