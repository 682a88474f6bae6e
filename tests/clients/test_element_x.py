"""The engine of Element X: matrix-sdk and matrix-sdk-ui, in a program of their own (element_x/).

Its user signs up and in by OAuth in headless Chromium.
"""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import js_client
from tests.clients.js_client import JsPerson
from tests.clients.test_account_pages import TERMS, browser
from tests.clients.test_oauth import callback, sign_up
from tests.helpers.server import RunningServer, free_port, start

PROGRAM = Path(sys.prefix) / "element_x" / "debug" / "element-x"

pytestmark = [
    pytest.mark.skipif(not PROGRAM.exists(), reason="matrix-sdk needs Rust 1.96 or later"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on which anybody can register."""
    running = start(tmp_path_factory.mktemp("element"), registration="open", terms=TERMS)
    yield running
    running.stop()


class Phone:
    """A device with Element X: its program, and the folder that outlives it."""

    numbers = itertools.count(1)

    def __init__(self, house: RunningServer, folder: Path) -> None:
        self.house = house
        self.folder = folder / f"phone-{next(self.numbers)}"
        self.session: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def app(self) -> AsyncIterator[JsPerson]:
        """The program, which goes on with the session that was there before."""
        async with js_client.started(self.house.url, "phone", str(PROGRAM)) as app:
            found = await app.ask("open", baseUrl=self.house.url, folder=str(self.folder))
            assert found["slidingSync"] == "Native"
            assert found["canSignUp"] is True
            if self.session:
                await app.ask("restore", **self.session)
                await app.ask("start")
            yield app
            if self.session:
                self.session = await app.ask("session")

    async def log_in(self, app: JsPerson, window: JsPerson, *, is_new: bool) -> str:
        """Log in by OAuth, as a new user or the one who is logged in in the browser."""
        async with callback() as uri:
            await window.ask("open", url=await app.ask("link", redirectUri=uri, create=is_new))
            if is_new:
                await sign_up(window)
            else:
                await window.ask("waitFor", text="Let Example in?")
            await window.ask("press", button="Let it in")
            await window.ask("waitFor", text="Welcome back")
            me = await app.ask("complete", url=await window.ask("evaluate", script="location.href"))
        self.session = await app.ask("session")
        await app.ask("start")
        return str(me["userId"])


async def verify(new: JsPerson, old: JsPerson) -> None:
    """Verify a new device by an old one: both show the same emoji."""
    await new.ask("verify")
    await old.ask("accept")
    await new.ask("startSas")
    shown, same = await asyncio.gather(old.ask("emoji"), new.ask("emoji"))
    assert shown == same
    assert len(shown) == 7
    await asyncio.gather(old.ask("confirm"), new.ask("confirm"))
    await new.ask("waitVerified")


async def test_a_user_signs_up_writes_and_goes_on_after_restarts(tmp_path: Path) -> None:
    """Of the program, and of the server by SIGKILL."""
    place = f"127.0.0.1:{free_port()}"
    settings = {"registration": "open", "bind": place}
    house = start(tmp_path, terms=TERMS, **settings)
    phone = Phone(house, tmp_path)
    try:
        async with browser(house, "maria") as window, phone.app() as app:
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
    async with browser(house, "anton") as window, phone.app() as app, tablet.app() as other:
        await phone.log_in(app, window, is_new=True)
        room = await app.ask("createRoom", name="Tea", encrypted=True)
        await app.ask("send", roomId=room, body="from before")
        await app.ask("waitFor", roomId=room, body="from before")
        await app.ask("enableRecovery")

        await tablet.log_in(other, window, is_new=False)
        await verify(other, app)
        seen = await other.ask("waitFor", roomId=room, body="from before")
        state = await other.ask("encryptionState")

    assert seen["isEncrypted"]
    assert state == {"verification": "Verified", "recovery": "Enabled", "backup": "Enabled"}


async def test_a_lost_device_is_replaced_by_the_recovery_key(
    house: RunningServer, tmp_path: Path
) -> None:
    lost, found = Phone(house, tmp_path), Phone(house, tmp_path)
    async with browser(house, "carla") as window:
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
    phones = [Phone(house, tmp_path) for _ in range(2)]
    async with (
        browser(house, "dora") as hers,
        browser(house, "emil") as his,
        phones[0].app() as dora,
        phones[1].app() as emil,
    ):
        await phones[0].log_in(dora, hers, is_new=True)
        emil_id = await phones[1].log_in(emil, his, is_new=True)
        room = await dora.ask("createRoom", name="Tea", encrypted=True, invite=[emil_id])
        await emil.ask("join", roomId=room)
        await dora.ask("waitForMember", roomId=room, userId=emil_id)
        await dora.ask("send", roomId=room, body="Tea?")
        asked = await emil.ask("waitFor", roomId=room, body="Tea?")
        await emil.ask("react", roomId=room, eventId=asked["eventId"], key="☕")
        await emil.ask("send", roomId=room, body="With pleasure")
        answer = await dora.ask("waitFor", roomId=room, body="With pleasure")
        shown = await dora.ask("timeline", roomId=room)

    assert asked["isEncrypted"]
    assert answer["sender"] == emil_id
    assert [it["reactions"] for it in shown if it["body"] == "Tea?"] == [["☕"]]
