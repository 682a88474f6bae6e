"""Invitations and the pages of an account, in headless Chromium: also without JavaScript.

axe-core looks at every page, in dark and in light; the content security policy is real.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.js_client import JsPerson
from tests.clients.pages import PASSWORD, browser, check_accessible
from tests.helpers.pages import TERMS
from tests.helpers.server import ROOT, RunningServer, start

NEW = "another long password"
ACCOUNT = "/_homebody/account/"
PAGES = (
    "/_homebody/start",
    ACCOUNT,
    f"{ACCOUNT}password",
    f"{ACCOUNT}email",
    f"{ACCOUNT}export",
    f"{ACCOUNT}deactivate",
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on which nobody can register, with rules."""
    settings = {"registration": "closed", "terms": TERMS, "smtp__host": "127.0.0.1"}
    running = start(tmp_path_factory.mktemp("house"), **settings)
    yield running
    running.stop()


def command(house: RunningServer, *words: str) -> Any:
    """What `homebody … --json` prints."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= {"HOMEBODY_DATA_DIR": str(house.log.parent), "HOMEBODY_PUBLIC_URL": house.url}
    homebody = str(Path(sys.executable).parent / "homebody")
    printed = subprocess.check_output([homebody, *words, "--json"], env=environ, cwd=ROOT)
    return json.loads(printed)


async def accept(window: JsPerson, link: str, *, name: str | None = None) -> None:
    """Register by a link."""
    await window.ask("open", url=link)
    if name is not None:
        await window.ask("fill", label="User name", text=name)
    await window.ask("fill", label="New password", text=PASSWORD)
    await window.ask("fill", label="The password again", text=PASSWORD)
    await window.ask("check", label="I agree to them")
    await window.ask("press", button="Create my account")


@pytest.mark.parametrize("options", [(), ("no-script",)])
async def test_a_person_who_is_invited_reaches_the_first_steps(
    house: RunningServer, options: tuple[str, ...]
) -> None:
    link = command(house, "invite")["link"]
    async with browser(house.url, "maria", *options) as window:
        await accept(window, link, name=window.name)

        await window.ask("waitFor", text=f"Welcome, {window.name}")
        shown = await window.ask("text")
        await window.ask("open", url=link)
        await window.ask("waitFor", text="This link is not valid")

        assert f"@{window.name}:localhost" in shown
        assert await window.ask("faults") == []
        assert f"@{window.name}:localhost" in {
            it["user_id"] for it in command(house, "user", "list")
        }


async def test_errors_stand_beside_their_fields(house: RunningServer) -> None:
    async with browser(house.url, "maria") as window:
        await window.ask("open", url=command(house, "invite")["link"])
        await window.ask("fill", label="User name", text="not a name")
        await window.ask("fill", label="New password", text=PASSWORD)
        await window.ask("fill", label="The password again", text="something else")
        await window.ask("check", label="I agree to them")
        await window.ask("press", button="Create my account")

        await window.ask("waitFor", text="A user name consists of")
        described = await window.ask(
            "evaluate",
            script="['name', 'again'].map((id) => document.getElementById("
            "document.getElementById(id).getAttribute('aria-describedby').split(' ').at(-1)"
            ").textContent)",
        )
        await check_accessible(window)

        assert described[0].startswith("A user name consists of")
        assert described[1] == "The two passwords are not the same."


@pytest.mark.parametrize("options", [(), ("no-script",)])
async def test_a_lost_password_is_replaced(house: RunningServer, options: tuple[str, ...]) -> None:
    async with browser(house.url, "olga", *options) as window:
        await accept(window, command(house, "invite", window.name)["link"])
        await window.ask("waitFor", text="Welcome")
        link = command(house, "user", "reset-link", window.name)["link"]

        await window.ask("open", url=link)
        await window.ask("fill", label="New password", text=NEW)
        await window.ask("fill", label="The password again", text=NEW)
        await window.ask("press", button="Set the password")
        await window.ask("waitFor", text="Your new password is set")
        await window.ask("follow", link="with this browser")
        await window.ask("fill", label="User name or e-mail address", text=window.name)
        await window.ask("fill", label="Password", text=NEW)
        await window.ask("press", button="Log in")

        await window.ask("waitFor", text="Browsers on these pages")
        assert await window.ask("faults") == []


async def test_every_page_is_accessible(house: RunningServer) -> None:
    async with browser(house.url, "paul") as window:
        link = command(house, "invite", window.name)["link"]
        for path in ("/_homebody/login", "/_homebody/start", "/_homebody/invite/wrong"):
            await window.ask("open", url=house.url + path)
            await check_accessible(window)
        await window.ask("open", url=link)
        await check_accessible(window)
        await accept(window, link)
        await window.ask("waitFor", text="Welcome")

        for path in PAGES:
            await window.ask("open", url=house.url + path)
            await check_accessible(window)
        reset = command(house, "user", "reset-link", window.name)["link"]
        await window.ask("open", url=reset)
        await check_accessible(window)

        assert await window.ask("faults") == []


async def test_an_account_is_closed_without_script_and_by_keys(house: RunningServer) -> None:
    async with browser(house.url, "vera", "no-script") as window:
        await accept(window, command(house, "invite", window.name)["link"])
        await window.ask("waitFor", text="Welcome")

        await window.ask("follow", link="Your account")
        await window.ask("follow", link="Close your account")
        await window.ask("check", label="I want to close my account")
        await window.ask("fill", label="Your password", text=PASSWORD)
        await window.ask("key", name="Enter")

        await window.ask("waitFor", text="Your account is closed")
        (user,) = (
            it
            for it in command(house, "user", "list")
            if it["user_id"] == f"@{window.name}:localhost"
        )
        assert user["is_deactivated"]
