"""Alice uses matrix-nio, Bob matrix-js-sdk in Node.

matrix-js-sdk is the base of Element; with lazy loading (its default there) and without, its first
sync requests quite different responses.
"""

import base64
import io

import pytest
from PIL import Image

from tests.clients import js_client, nio_client, pairs
from tests.clients.nio_client import ok

both_ways_of_loading = pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])


@both_ways_of_loading
async def test_they_chat_both_ways_in_her_room(server: str, lazy: bool) -> None:
    async with pairs.alice_and_bob(server) as (alice, bob):
        await bob.ask("start", lazyLoadMembers=lazy)
        room_id = await alice.create_room(bob.user_id)
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)

        question = await alice.say(room_id, "Milk or lemon?")
        heard_by_bob = await bob.ask("waitForMessage", roomId=room_id, body="Milk or lemon?")
        answer = await bob.ask("send", roomId=room_id, body="Both 🍋")
        heard_by_alice = await alice.hear(room_id, "Both 🍋")

        assert heard_by_bob == {
            "eventId": question,
            "sender": alice.user_id,
            "senderName": alice.name,
        }
        assert heard_by_alice == (room_id, bob.user_id, "Both 🍋", answer)


async def test_they_chat_both_ways_in_his_room(server: str) -> None:
    async with pairs.alice_and_bob(server) as (alice, bob):
        await bob.ask("start")
        room_id = await bob.ask("createRoom", name="Workshop", invite=[alice.user_id])
        await alice.join(room_id)
        await bob.ask("waitForMembership", roomId=room_id, userId=alice.user_id, membership="join")

        await bob.ask("send", roomId=room_id, body="Mind the sawdust")
        await alice.hear(room_id, "Mind the sawdust")
        await alice.say(room_id, "I brought a broom")
        await bob.ask("waitForMessage", roomId=room_id, body="I brought a broom")

        assert alice.room(room_id).name == "Workshop"


@both_ways_of_loading
async def test_he_scrolls_back_past_the_limit_of_his_first_sync(server: str, lazy: bool) -> None:
    said = [f"line {number}" for number in range(25)]
    async with (
        nio_client.person(server, "carol") as carol,
        pairs.alice_and_bob(server) as (alice, bob),
    ):
        room_id = await alice.create_room(bob.user_id, carol.user_id)
        await carol.join(room_id)
        ok(await carol.nio.set_displayname("Carol who is silent"))
        for body in said:
            await alice.say(room_id, body)
        await bob.ask("start", initialSyncLimit=5, lazyLoadMembers=lazy)
        await bob.ask("join", roomId=room_id)

        # his join follows her lines, so they reach him in one limited timeline
        await bob.ask("waitForMessage", roomId=room_id, body="line 24")
        pages = [await bob.ask("messages", roomId=room_id)]
        while pages[-1] != said and len(pages) < 6:
            pages.append(await bob.ask("scrollback", roomId=room_id, limit=10))

        assert 0 < len(pages[0]) < len(said)
        assert pages[-1] == said
        assert [len(page) for page in pages] == sorted({len(page) for page in pages})


@both_ways_of_loading
async def test_a_first_sync_brings_silent_members_only_without_lazy_loading(
    server: str, lazy: bool
) -> None:
    async with nio_client.person(server, "carol") as carol, pairs.in_a_room(server) as three:
        alice, bob, room_id = three
        ok(await alice.nio.room_invite(room_id, carol.user_id))
        await carol.join(room_id)
        for number in range(10):
            await alice.say(room_id, f"line {number}")
        await bob.ask("waitForMessage", roomId=room_id, body="line 9")
        everybody = sorted([alice.user_id, bob.user_id, carol.user_id])

        async with js_client.in_node(server, "bob at his telephone") as telephone:
            await telephone.login(bob.name)
            await telephone.ask("start", initialSyncLimit=3, lazyLoadMembers=lazy)
            at_once = await telephone.ask("members", roomId=room_id)
            messages = await telephone.ask("messages", roomId=room_id)
            when_asked = await telephone.ask("loadMembers", roomId=room_id)

        assert messages == ["line 7", "line 8", "line 9"]
        assert (carol.user_id in at_once) == (not lazy)
        assert alice.user_id in at_once
        assert when_asked == everybody


async def test_read_receipts_cross(server: str) -> None:
    async with pairs.in_a_room(server) as (alice, bob, room_id):
        hers = await alice.say(room_id, "Read this")
        await bob.ask("waitForMessage", roomId=room_id, body="Read this")
        await bob.ask("sendReceipt", roomId=room_id, eventId=hers)
        await alice.see_receipt(room_id, hers, bob.user_id)

        his = await bob.ask("send", roomId=room_id, body="Now this")
        await alice.hear(room_id, "Now this")
        ok(await alice.nio.room_read_markers(room_id, his, read_event=his))
        await bob.ask("waitForReceipt", roomId=room_id, eventId=his, userId=alice.user_id)


async def test_each_sees_the_other_type(server: str) -> None:
    async with pairs.in_a_room(server) as (alice, bob, room_id):
        await bob.ask("sendTyping", roomId=room_id, isTyping=True)
        await alice.see_typing(room_id, bob.user_id)
        await bob.ask("sendTyping", roomId=room_id, isTyping=False)
        await alice.see_typing(room_id)

        for is_typing in (True, False):
            ok(await alice.nio.room_typing(room_id, typing_state=is_typing))
            await bob.ask("waitForTyping", roomId=room_id, userId=alice.user_id, isTyping=is_typing)


async def test_names_and_avatars_reach_the_other(server: str, image: bytes) -> None:
    async with pairs.in_a_room(server) as (alice, bob, room_id):
        await bob.ask("setDisplayName", name="Bob the Builder")
        await alice.see_profile(room_id, bob.user_id, "Bob the Builder", None)

        upload, _no_keys = await alice.nio.upload(
            io.BytesIO(image), "image/png", filesize=len(image)
        )
        mxc = ok(upload).content_uri
        ok(await alice.nio.set_avatar(mxc))
        await bob.ask("setAvatar", mxc=mxc)

        await alice.see_profile(room_id, bob.user_id, "Bob the Builder", mxc)
        await bob.ask(
            "waitForProfile", roomId=room_id, userId=alice.user_id, name=alice.name, mxc=mxc
        )


async def test_an_image_goes_from_one_to_the_other(server: str, image: bytes) -> None:
    async with pairs.in_a_room(server) as (alice, bob, room_id):
        mxc = await bob.ask(
            "sendImage",
            roomId=room_id,
            name="gradient.png",
            type="image/png",
            base64=base64.b64encode(image).decode(),
        )
        for_alice = ok(await alice.nio.download(mxc))
        for_bob = await bob.ask("download", mxc=mxc)
        thumbnail = await bob.ask("thumbnail", mxc=mxc, width=64, height=64)

        assert (for_alice.body, for_alice.content_type) == (image, "image/png")
        assert for_alice.filename == "gradient.png"
        assert base64.b64decode(for_bob["base64"]) == image
        small = Image.open(io.BytesIO(base64.b64decode(thumbnail["base64"])))
        assert 64 <= small.width < 640


async def test_he_leaves_and_logs_out(server: str) -> None:
    async with pairs.in_a_room(server) as (alice, bob, room_id):
        await bob.ask("leave", roomId=room_id)
        await alice.see_no_member(room_id, bob.user_id)

        afterwards = await bob.ask("logout")

        assert afterwards == "401 M_UNKNOWN_TOKEN"
