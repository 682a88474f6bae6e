"""Two users with matrix-nio: what a bot or a terminal client in Python does all day."""

import asyncio
import contextlib
import io
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import nio
from PIL import Image

from tests.clients import nio_client
from tests.clients.nio_client import NioPerson, ok
from tests.helpers.server import ROOT


@contextlib.asynccontextmanager
async def two_in_a_room(url: str) -> AsyncIterator[tuple[NioPerson, NioPerson, str]]:
    """Alice and Bob, both registered and syncing, in a room to which she invited him."""
    async with nio_client.person(url, "alice") as alice, nio_client.person(url, "bob") as bob:
        room_id = await alice.create_room(bob.user_id)
        await bob.join(room_id)
        await alice.see_member(room_id, bob.user_id)
        yield alice, bob, room_id


async def test_two_people_talk_both_ways(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        question = await alice.say(room_id, "Milk or lemon?")
        heard_by_bob = await bob.hear(room_id, "Milk or lemon?")
        answer = await bob.say(room_id, "Both 🍋")
        heard_by_alice = await alice.hear(room_id, "Both 🍋")

        assert heard_by_bob == (room_id, alice.user_id, "Milk or lemon?", question)
        assert heard_by_alice == (room_id, bob.user_id, "Both 🍋", answer)


async def test_a_second_login_finds_the_rooms_and_messages_of_the_first(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        await alice.say(room_id, "Are you at the telephone?")
        telephone = nio_client.client(server, bob.name)
        try:
            login = ok(await telephone.login(nio_client.PASSWORD, device_name="telephone"))
            first_sync = ok(await telephone.sync(timeout=0, full_state=True))
        finally:
            await telephone.close()

        timeline = first_sync.rooms.join[room_id].timeline
        assert (login.user_id, login.device_id != bob.nio.device_id) == (bob.user_id, True)
        assert timeline.events[-1].body == "Are you at the telephone?"


async def test_a_wrong_password_is_refused(server: str) -> None:
    async with nio_client.person(server, "alice") as alice:
        mallory = nio_client.client(server, alice.name)
        try:
            answer = await mallory.login("a guess")
        finally:
            await mallory.close()

        assert isinstance(answer, nio.LoginError)
        assert answer.status_code == "M_FORBIDDEN"


async def test_the_other_sees_who_types_and_who_stops(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        ok(await alice.nio.room_typing(room_id, typing_state=True, timeout=20_000))
        await bob.see_typing(room_id, alice.user_id)

        ok(await alice.nio.room_typing(room_id, typing_state=False))
        await bob.see_typing(room_id)


async def test_a_read_receipt_reaches_the_sender(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        event_id = await alice.say(room_id, "Have you read this?")
        await bob.hear(room_id, "Have you read this?")

        ok(await bob.nio.room_read_markers(room_id, event_id, read_event=event_id))

        await alice.see_receipt(room_id, event_id, bob.user_id)


async def test_an_image_comes_back_byte_for_byte_and_small(server: str, image: bytes) -> None:
    async with two_in_a_room(server) as (alice, bob, _room_id):
        upload, _no_keys = await alice.nio.upload(
            io.BytesIO(image), "image/png", "gradient.png", filesize=len(image)
        )
        mxc = ok(upload).content_uri
        server_name, media_id = mxc.removeprefix("mxc://").split("/")
        file = ok(await bob.nio.download(mxc))
        thumbnail = ok(await bob.nio.thumbnail(server_name, media_id, 64, 64))

        assert (file.body, file.content_type) == (image, "image/png")
        assert file.filename == "gradient.png"
        assert 64 <= Image.open(io.BytesIO(thumbnail.body)).width < 640


async def test_a_new_name_and_avatar_reach_the_others_room(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        upload, _no_keys = await alice.nio.upload(io.BytesIO(b"\x89PNG"), "image/png", filesize=4)
        mxc = ok(upload).content_uri

        ok(await alice.nio.set_displayname("Alice in Wonderland"))
        ok(await alice.nio.set_avatar(mxc))

        await bob.see_profile(room_id, alice.user_id, "Alice in Wonderland", mxc)
        profile = ok(await bob.nio.get_profile(alice.user_id))
        assert (profile.displayname, profile.avatar_url) == ("Alice in Wonderland", mxc)


async def test_history_is_read_backwards_page_by_page(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        said = [f"line {number}" for number in range(25)]
        for body in said:
            await alice.say(room_id, body)
        await bob.hear(room_id, "line 24")

        pages: list[list[str]] = []
        start: str | None = bob.nio.next_batch
        while start and len(pages) < 20:
            page = ok(await bob.nio.room_messages(room_id, start, limit=10))
            pages.append([event.body for event in page.chunk if hasattr(event, "body")])
            start = page.end

        read = [body for page in pages for body in page]
        assert read[::-1] == said
        assert len(pages) >= 3
        assert start is None, "the last page must have no end"


async def test_history_is_read_forwards_from_the_beginning(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        said = [f"line {number}" for number in range(5)]
        for body in said:
            await bob.say(room_id, body)

        direction = nio.MessageDirection.front
        page = ok(await alice.nio.room_messages(room_id, direction=direction, limit=100))

        assert page.chunk[0].source["type"] == "m.room.create"
        assert [event.body for event in page.chunk if hasattr(event, "body")] == said


async def test_who_leaves_is_gone_for_those_who_stay(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        ok(await bob.nio.room_leave(room_id))

        await alice.see_no_member(room_id, bob.user_id)
        refusal = await bob.nio.room_send(room_id, "m.room.message", {"body": "still here"})
        assert isinstance(refusal, nio.RoomSendError)
        assert refusal.status_code == "M_FORBIDDEN"


async def test_after_logout_the_access_token_is_refused(server: str) -> None:
    async with nio_client.person(server, "alice") as alice:
        # a second object for the same session, as nio's sync fails once its own has logged out
        session = alice.user_id, alice.nio.device_id, alice.nio.access_token
        ghost = nio_client.client(server)
        ghost.restore_login(*session)
        try:
            before = ok(await ghost.whoami())
            ok(await ghost.logout())
            ghost.restore_login(*session)
            after = await ghost.whoami()
        finally:
            await ghost.close()

        assert before.user_id == alice.user_id
        assert isinstance(after, nio.WhoamiError)
        assert after.status_code == "M_UNKNOWN_TOKEN"


async def test_the_list_of_devices_is_understood(server: str) -> None:
    # nio refuses the whole list when a device lacks one of the keys
    async with nio_client.person(server, "alice") as alice:
        phone = nio_client.client(server, alice.name)
        try:
            await phone.login(nio_client.PASSWORD)  # gives the device no name
        finally:
            await phone.close()

        devices = {it.id: it for it in ok(await alice.nio.devices()).devices}

        assert set(devices) == {alice.nio.device_id, phone.device_id}
        assert all(it.last_seen_ip == "127.0.0.1" for it in devices.values())
        assert all(it.last_seen_date is not None for it in devices.values())


async def test_a_new_user_has_a_name_in_rooms(server: str) -> None:
    async with two_in_a_room(server) as (alice, bob, room_id):
        assert bob.nio.rooms[room_id].user_name(alice.user_id) == alice.name


async def test_the_bot_of_the_quick_start_joins_and_answers(server: str) -> None:
    (bot,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/quick-start.md").read_text(), re.DOTALL
    )
    notices: list[tuple[str, str]] = []

    async def note(_room: Any, event: Any) -> None:
        notices.append((event.sender, event.body))

    async with nio_client.person(server, "alice") as alice:
        alice.nio.add_event_callback(note, nio.RoomMessageNotice)
        dora = NioPerson(server, "dora")
        await dora.register()
        await dora.nio.close()
        for shown, here in (
            ("http://localhost:8008", server),
            ("@dora:localhost", dora.user_id),
            ("wonderland-7", nio_client.PASSWORD),
        ):
            bot = bot.replace(shown, here)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", bot)
        try:
            room_id = await alice.create_room(dora.user_id)
            await alice.see_member(room_id, dora.user_id)
            await alice.say(room_id, "Tea?")
            await alice.until(lambda: notices, "answer of the bot")
        finally:
            process.terminate()
            await process.wait()

    assert notices == [(dora.user_id, "Tea?")]
