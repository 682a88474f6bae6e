"""The engine of Element X: matrix-sdk and matrix-sdk-ui, in a program of their own (element_x/).

Its user signs up and in by OAuth in headless Chromium.
"""

from pathlib import Path

from tests.clients import phones
from tests.clients.pages import browser
from tests.clients.phones import Phone, settled, two, verify
from tests.helpers.pages import TERMS
from tests.helpers.server import RunningServer, free_port, start

pytestmark = phones.MARKS


async def test_a_user_signs_up_writes_and_goes_on_after_restarts(tmp_path: Path) -> None:
    """Of the program, and of the server by SIGKILL."""
    place = f"127.0.0.1:{free_port()}"
    settings = {"registration": "open", "bind": place}
    house = start(tmp_path, terms=TERMS, **settings)
    phone = Phone(house, tmp_path)
    try:
        async with browser(house.url, "maria") as window, phone.app() as app:
            user_id = await phone.log_in(app, window, is_new=True)
            room = await app.ask("createRoom", name="Tea", encrypted=True)
            await app.ask("send", roomId=room, body="first")
            first = await app.ask("waitFor", roomId=room, body="first")
            refreshed = await app.ask("refresh")

        async with phone.app() as app:
            again = await app.ask("waitFor", roomId=room, body="first")
            house.kill()
            house = start(tmp_path, terms=TERMS, **settings)
            await app.ask("send", roomId=room, body="second")
            second = await app.ask("waitFor", roomId=room, body="second")
            rooms = await app.ask("rooms")
    finally:
        house.stop()

    assert refreshed["userId"] == user_id
    assert first["eventId"] == again["eventId"]
    assert second["isEncrypted"]
    assert [(it["name"], it["state"], it["isEncrypted"]) for it in rooms] == [
        ("Tea", "Joined", True)
    ]


async def test_a_second_device_is_verified_and_reads_what_was_written_before(
    house: RunningServer, tmp_path: Path
) -> None:
    phone, tablet = Phone(house, tmp_path), Phone(house, tmp_path)
    async with browser(house.url, "anton") as window, phone.app() as app, tablet.app() as other:
        await phone.log_in(app, window, is_new=True)
        room = await app.ask("createRoom", name="Tea", encrypted=True)
        await app.ask("send", roomId=room, body="from before")
        await app.ask("waitFor", roomId=room, body="from before")
        await app.ask("enableRecovery")

        await tablet.log_in(other, window, is_new=False)
        await verify(other, app)
        seen = await other.ask("waitFor", roomId=room, body="from before")
        await settled(other)

    assert seen["isEncrypted"]


async def test_a_lost_device_is_replaced_by_the_recovery_key(
    house: RunningServer, tmp_path: Path
) -> None:
    lost, found = Phone(house, tmp_path), Phone(house, tmp_path)
    async with browser(house.url, "carla") as window:
        async with lost.app() as app:
            await lost.log_in(app, window, is_new=True)
            room = await app.ask("createRoom", name="Tea", encrypted=True)
            await app.ask("send", roomId=room, body="from before")
            await app.ask("waitFor", roomId=room, body="from before")
            key = await app.ask("enableRecovery")

        async with found.app() as app:
            await found.log_in(app, window, is_new=False)
            await app.ask("recover", key=key)
            await app.ask("waitVerified")
            seen = await app.ask("waitFor", roomId=room, body="from before")

    assert seen["isEncrypted"]


async def test_two_users_talk_encrypted(house: RunningServer, tmp_path: Path) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        await gerda.ask("send", roomId=room, body="Tea?")
        asked = await hugo.ask("waitFor", roomId=room, body="Tea?")
        await hugo.ask("react", roomId=room, eventId=asked["eventId"], key="☕")
        await hugo.ask("send", roomId=room, body="With pleasure")
        answer = await gerda.ask("waitFor", roomId=room, body="With pleasure")
        shown = await gerda.ask("timeline", roomId=room)

        assert asked["isEncrypted"]
        assert answer["sender"] == hugo.user_id
        assert [it["reactions"] for it in shown if it["body"] == "Tea?"] == [["☕"]]
