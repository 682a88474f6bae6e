"""The pages for logging in with a browser, in headless Chromium.

Script and content security policy are real: what the policy forbids appears in the console.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.js_client import JsPerson
from tests.clients.pages import PASSWORD, browser

LOGIN = "/_matrix/static/client/login/"


async def api(window: JsPerson, path: str, token: str = "", **body: Any) -> dict[str, Any]:
    """The answer of the server, asked by a script in the page. POST, or GET without a body."""
    options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}"} if token else {}}
    if body:
        options |= {"method": "POST", "body": json.dumps(body)}
    script = f"fetch('/_matrix/client/v3/{path}', {json.dumps(options)}).then((r) => r.json())"
    answer: dict[str, Any] = await window.ask("evaluate", script=script)
    return answer


async def register(window: JsPerson) -> None:
    """Make the account that the test logs in to."""
    await window.ask("open", url=window.url)
    auth = {"type": "m.login.dummy"}
    answer = await api(window, "register", username=window.name, password=PASSWORD, auth=auth)
    window.user_id = answer["user_id"]


async def log_in(window: JsPerson, password: str = PASSWORD) -> None:
    """Fill the form in and send it."""
    await window.ask("fill", label="User name", text=window.name)
    await window.ask("fill", label="Password", text=password)
    await window.ask("press", button="Log in")


@pytest.mark.parametrize("path", [LOGIN, "/matrix/client/api/v1/login/fallback"])
async def test_a_client_that_waits_for_it_gets_the_log_in(server: str, path: str) -> None:
    async with browser(server, "alice") as window:
        await register(window)
        waiting = "window.matrixLogin = { onLogin: (response) => { window.handed = response; } };"
        query = "?device_id=OVEN&initial_device_display_name=The%20oven&refresh_token=true"
        await window.ask("open", url=f"{server}{path}{query}", before=waiting)

        await log_in(window)

        await window.ask("waitFor", text=f"You are logged in as {window.user_id}.")
        handed = await window.ask("evaluate", script="window.handed")
        device = await api(window, "devices/OVEN", handed["access_token"])
        assert (handed["user_id"], handed["device_id"]) == (window.user_id, "OVEN")
        assert handed["refresh_token"]
        assert device["display_name"] == "The oven"
        assert await window.ask("faults") == []


@pytest.mark.parametrize("function", ["matrixLogin.onLogin", "onLogin"])
async def test_a_client_may_say_after_the_page_has_loaded_where_to(
    server: str, function: str
) -> None:
    async with browser(server, "alice") as window:
        await register(window)
        await window.ask("open", url=server + LOGIN)
        script = f"void (window.{function} = (response) => {{ window.handed = response; }})"
        await window.ask("evaluate", script=script)

        await log_in(window)

        await window.ask("waitFor", text="You are logged in")
        handed = await window.ask("evaluate", script="window.handed")
        who = await api(window, "account/whoami", handed["access_token"])
        assert who["user_id"] == window.user_id


async def test_a_wrong_password_is_told_and_can_be_corrected(server: str) -> None:
    async with browser(server, "alice") as window:
        await register(window)
        await window.ask("open", url=server + LOGIN)

        await log_in(window, "wrong")
        await window.ask("waitFor", text="wrong password.")
        await log_in(window)

        await window.ask("waitFor", text=f"You are logged in as {window.user_id}.")
        address = await window.ask("evaluate", script="location.href")
        assert address == server + LOGIN


async def test_a_stage_completed_on_a_page_is_told_to_the_client(server: str) -> None:
    async with browser(server, "alice") as window:
        await window.ask("open", url=server)
        challenge = await api(window, "register", username=window.name)
        session = challenge["session"]
        page = f"{server}/_matrix/client/v3/auth/m.login.dummy/fallback/web?session={session}"
        told = "window.onAuthDone = () => { document.title = 'the client knows'; };"
        await window.ask("open", url=page, before=told)

        await window.ask("press", button="Continue")

        await window.ask("waitFor", text="You can close this page")
        title = await window.ask("evaluate", script="document.title")
        registered = await api(window, "register", username=window.name, auth={"session": session})
        assert title == "the client knows"
        assert registered["user_id"].startswith(f"@{window.name}:")
        assert await window.ask("faults") == []


@pytest.mark.parametrize(
    "path",
    ["/", LOGIN, "/_matrix/client/v3/auth/m.login.registration_token/fallback/web?session=x"],
)
async def test_a_page_fits_on_a_small_telephone(server: str, path: str, tmp_path: Path) -> None:
    async with browser(server, "alice") as window:
        await window.ask("resize", width=320, height=480)
        await window.ask("open", url=server + path)

        await window.ask("screenshot", path=str(tmp_path / "page.png"))
        width = await window.ask("evaluate", script="document.documentElement.scrollWidth")

        assert width <= 320
        assert (tmp_path / "page.png").stat().st_size > 1000
        assert await window.ask("faults") == []
