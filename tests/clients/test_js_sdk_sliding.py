"""Bob gets his rooms by sliding sync, with matrix-js-sdk's SlidingSync in Node.

Alice uses matrix-nio, which uses /sync: both must see the same.
"""

from __future__ import annotations

from tests.clients import js_client, pairs
from tests.clients.nio_client import ok


async def test_a_narrow_window_has_the_newest_room_and_a_wider_one_all(server: str) -> None:
    async with pairs.alice_and_bob(server) as (_, bob):
        rooms = [await bob.ask("createRoom", name=f"Room {number}") for number in range(3)]
        await bob.ask("startSliding", last=0)
        at_first = await bob.ask("roomNames")
        count = await bob.ask("countOfList")

        await bob.ask("widen", last=9)
        await bob.ask("waitForRoom", roomId=rooms[0])

        assert at_first == {rooms[2]: "Room 2"}
        assert count == 3
        assert await bob.ask("roomNames") == {
            room_id: f"Room {number}" for number, room_id in enumerate(rooms)
        }


async def test_they_chat_both_ways(server: str) -> None:
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, room_id):
        question = await alice.say(room_id, "Milk or lemon?")
        heard_by_bob = await bob.ask("waitForMessage", roomId=room_id, body="Milk or lemon?")
        answer = await bob.ask("send", roomId=room_id, body="Both 🍋")
        heard_by_alice = await alice.hear(room_id, "Both 🍋")

        assert (heard_by_bob["eventId"], heard_by_bob["sender"]) == (question, alice.user_id)
        assert heard_by_alice == (room_id, bob.user_id, "Both 🍋", answer)


async def test_an_open_room_shows_what_was_said_before_in_its_order(server: str) -> None:
    said = [f"line {number}" for number in range(12)]
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, room_id):
        for body in said:
            await alice.say(room_id, body)
        await bob.ask("waitForMessage", roomId=room_id, body=said[-1])

        async with js_client.in_node(server, "bob at his telephone") as telephone:
            await telephone.login(bob.name)
            await telephone.ask("startSliding")
            closed = await telephone.ask("messages", roomId=room_id)
            await telephone.ask("openRoom", roomId=room_id)
            await telephone.ask("waitForMessages", roomId=room_id, bodies=said)
            await telephone.ask(
                "waitForProfile", roomId=room_id, userId=alice.user_id, name=alice.name
            )
            await alice.say(room_id, "And now?")
            await telephone.ask("waitForMessages", roomId=room_id, bodies=[*said, "And now?"])

        assert closed == [said[-1]]


async def test_he_scrolls_back_past_what_the_window_showed(server: str) -> None:
    said = [f"line {number}" for number in range(12)]
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, room_id):
        for body in said:
            await alice.say(room_id, body)

        async with js_client.in_node(server, "bob at his telephone") as telephone:
            await telephone.login(bob.name)
            await telephone.ask("startSliding", timelineLimit=3)
            at_first = await telephone.ask("messages", roomId=room_id)
            all_of_it = await telephone.ask("scrollback", roomId=room_id, limit=50)

        assert at_first == said[-3:]
        assert all_of_it == said


async def test_names_of_rooms_and_of_people_follow(server: str) -> None:
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, tea):
        await bob.ask("waitForRoomName", roomId=tea, name="Tea")
        nameless = ok(await alice.nio.room_create(invite=[bob.user_id])).room_id
        await bob.ask("waitForInvite", roomId=nameless)
        await bob.ask("join", roomId=nameless)
        await bob.ask("waitForRoomName", roomId=nameless, name=alice.name)

        ok(await alice.nio.room_put_state(nameless, "m.room.name", {"name": "Workshop"}))
        await bob.ask("waitForRoomName", roomId=nameless, name="Workshop")
        await bob.ask("openRoom", roomId=tea)
        ok(await alice.nio.set_displayname("Alice the Carpenter"))
        await bob.ask(
            "waitForProfile", roomId=tea, userId=alice.user_id, name="Alice the Carpenter"
        )


async def test_receipts_and_typing_cross_and_unread_messages_are_counted(server: str) -> None:
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, room_id):
        hers = await alice.say(room_id, "Read this")
        await bob.ask("waitForMessage", roomId=room_id, body="Read this")
        await bob.ask("waitForUnreadCount", roomId=room_id, count=1)
        await bob.ask("sendReceipt", roomId=room_id, eventId=hers)
        await alice.see_receipt(room_id, hers, bob.user_id)
        await bob.ask("waitForUnreadCount", roomId=room_id, count=0)

        his = await bob.ask("send", roomId=room_id, body="Now this")
        await alice.hear(room_id, "Now this")
        ok(await alice.nio.room_read_markers(room_id, his, read_event=his))
        await bob.ask("waitForReceipt", roomId=room_id, eventId=his, userId=alice.user_id)
        for is_typing in (True, False):
            ok(await alice.nio.room_typing(room_id, typing_state=is_typing))
            await bob.ask("waitForTyping", roomId=room_id, userId=alice.user_id, isTyping=is_typing)


async def test_he_refuses_one_invite_and_is_thrown_out_of_another_room(server: str) -> None:
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, room_id):
        refused = await alice.create_room(bob.user_id)
        await bob.ask("waitForInvite", roomId=refused)

        await bob.ask("leave", roomId=refused)
        ok(await alice.nio.room_kick(room_id, bob.user_id))

        await bob.ask("waitForLeave", roomId=refused)
        await bob.ask("waitForLeave", roomId=room_id)


async def test_account_data_comes_at_once(server: str) -> None:
    async with pairs.alice_and_bob(server) as (_, bob):
        await bob.ask("startSliding")
        content = {"colour": "blue"}

        await bob.ask("setAccountData", type="org.example.colour", content=content)
        await bob.ask("waitForAccountData", type="org.example.colour", content=content)


async def test_a_connection_that_has_ended_begins_anew_and_misses_nothing(server: str) -> None:
    async with pairs.in_a_room(server, "startSliding") as (alice, bob, room_id):
        await bob.ask("endConnection")

        await alice.say(room_id, "Are you still there?")
        await bob.ask("waitForMessage", roomId=room_id, body="Are you still there?")
        await alice.say(room_id, "And now?")
        await bob.ask("waitForMessage", roomId=room_id, body="And now?")


async def test_two_on_sliding_sync_talk_in_an_encrypted_room(server: str) -> None:
    async with js_client.in_node(server, "alice") as alice, js_client.in_node(server, "bob") as bob:
        for person in (alice, bob):
            await person.register()
            await person.ask("initCrypto")
            await person.ask("startSliding")
        room_id = await alice.ask("createEncryptedRoom", invite=[bob.user_id])
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        for person in (alice, bob):
            await person.ask("openRoom", roomId=room_id)
        await alice.ask("waitForMembership", roomId=room_id, userId=bob.user_id, membership="join")

        for sender, receiver, body in ((alice, bob, "Where?"), (bob, alice, "Under the 🌴")):
            await sender.ask("send", roomId=room_id, body=body)
            heard = await receiver.ask("waitForDecrypted", roomId=room_id, body=body)
            assert heard == {"isEncrypted": True, "sender": sender.user_id}
