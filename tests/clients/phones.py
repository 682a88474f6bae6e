"""Devices with the engine of Element X, the program of element_x/."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import js_client
from tests.clients.js_client import JsPerson
from tests.clients.pages import browser, callback, sign_up
from tests.helpers.server import RunningServer

PROGRAM = Path(sys.prefix) / "element_x" / "debug" / "element-x"

MARKS = [
    pytest.mark.skipif(not PROGRAM.exists(), reason="matrix-sdk needs Rust 1.96 or later"),
    pytest.mark.timeout(240),
]


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
            found = await app.ask(
                "open", baseUrl=self.house.url, folder=str(self.folder), anyCertificate=True
            )
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


async def settled(app: JsPerson) -> None:
    """Wait until a device has all secrets, which the other one sends one by one."""
    wanted = {"verification": "Verified", "recovery": "Enabled", "backup": "Enabled"}
    for _ in range(50):
        state = await app.ask("encryptionState")
        if state == wanted:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(state)


@contextlib.asynccontextmanager
async def two(house: RunningServer, folder: Path) -> AsyncIterator[tuple[JsPerson, JsPerson, str]]:
    """Two users in an encrypted room."""
    first, second = Phone(house, folder), Phone(house, folder)
    async with (
        browser(house.url, "gerda") as hers,
        browser(house.url, "hugo") as his,
        first.app() as gerda,
        second.app() as hugo,
    ):
        await first.log_in(gerda, hers, is_new=True)
        hugo_id = await second.log_in(hugo, his, is_new=True)
        room = await gerda.ask("createRoom", name="Tea", encrypted=True, invite=[hugo_id])
        await hugo.ask("join", roomId=room)
        await gerda.ask("waitForMember", roomId=room, userId=hugo_id)
        hugo.user_id = hugo_id
        yield gerda, hugo, room
