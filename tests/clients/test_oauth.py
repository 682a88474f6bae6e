"""Signing up and in by the OAuth 2.0 API: matrix-js-sdk, and its user in headless Chromium.

The client is a program on the same computer: it listens on the loopback interface for the browser
to come back, as clients on desktops do.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from tests.clients import js_client
from tests.clients.js_client import JsPerson
from tests.clients.pages import PASSWORD, browser, callback, check_accessible, sign_up
from tests.helpers.server import RunningServer

WEB = "https://app.example.com/callback"
METADATA: dict[str, Any] = {
    "client_name": "Example",
    "client_uri": "https://example.com/",
    "redirect_uris": ["http://127.0.0.1/callback"],
    "application_type": "native",
    "policy_uri": "https://example.com/policy",
}
WEB_METADATA: dict[str, Any] = METADATA | {"redirect_uris": [WEB], "application_type": "web"}


@contextlib.asynccontextmanager
async def client(
    house: RunningServer, metadata: dict[str, Any] = METADATA
) -> AsyncIterator[JsPerson]:
    """A client that has registered."""
    async with js_client.person(house.url, "client", "oauth.mjs") as program:
        await program.ask("register", baseUrl=house.url, metadata=metadata)
        yield program


async def returned(window: JsPerson, mode: str) -> dict[str, str]:
    """Return what the client gets by the address to which the browser has come back."""
    await window.ask("waitFor", text="Welcome back")
    parts = urlsplit(await window.ask("evaluate", script="location.href"))
    given = {"query": parts.query, "fragment": parts.fragment}
    found = {key: value for key, (value,) in parse_qs(given.pop(mode)).items()}
    assert set(given.values()) == {""}
    assert found.pop("state") == "some state"
    return found


async def log_in(window: JsPerson) -> None:
    """Fill in the page for users who have an account."""
    await window.ask("fill", label="User name or e-mail address", text=window.name)
    await window.ask("fill", label="Password", text=PASSWORD)
    await window.ask("press", button="Log in")


@pytest.mark.parametrize("options", [(), ("no-script",)])
@pytest.mark.parametrize("mode", ["query", "fragment"])
async def test_a_new_user_signs_up_and_in(
    house: RunningServer, options: tuple[str, ...], mode: str
) -> None:
    async with client(house) as program, browser(house.url, "maria", *options) as window:
        async with callback() as uri:
            link = await program.ask("link", redirectUri=uri, mode=mode, prompt="create")
            await window.ask("open", url=link)
            await sign_up(window)
            await window.ask("press", button="Let it in")
            code = (await returned(window, mode))["code"]

        me = await program.ask("complete", code=code, redirectUri=uri)
        again = await program.ask("refresh")
        ended = await program.ask("revoke")

        assert me["user_id"] == again["user_id"] == f"@{window.name}:localhost"
        assert ended == "M_UNKNOWN_TOKEN"
        assert await window.ask("faults") == []


async def test_a_user_logs_in_and_refuses(house: RunningServer) -> None:
    async with client(house) as program, browser(house.url, "maria") as window, callback() as uri:
        link = await program.ask("link", redirectUri=uri, mode="query", prompt="create")
        await window.ask("open", url=link)
        await sign_up(window)
        await window.ask("press", button="Use another account")
        await log_in(window)
        await window.ask("waitFor", text="Let Example in?")
        await window.ask("press", button="Refuse")

        assert (await returned(window, "query"))["error"] == "access_denied"


async def test_a_browser_that_is_logged_in_is_known_when_it_comes_from_another_site(
    house: RunningServer,
) -> None:
    async with client(house) as program, browser(house.url, "maria") as window, callback() as uri:
        link = await program.ask("link", redirectUri=uri, mode="query", prompt="create")
        await window.ask("open", url=link)
        await sign_up(window)
        await window.ask("open", url=uri.replace("127.0.0.1", "localhost"))
        again = await program.ask("link", redirectUri=uri, mode="query")
        await window.ask("evaluate", script=f"void (location.href = {again!r})")

        await window.ask("waitFor", text="Let Example in?")
        assert f"@{window.name}:localhost" in await window.ask("text")


@pytest.mark.parametrize("options", [(), ("no-script",)])
async def test_a_device_is_let_in(house: RunningServer, options: tuple[str, ...]) -> None:
    async with client(house) as program, browser(house.url, "maria", *options) as window:
        async with callback() as uri:
            link = await program.ask("link", redirectUri=uri, mode="query", prompt="create")
            await window.ask("open", url=link)
            await sign_up(window)
        shown: dict[str, Any] = await program.ask("device")
        waiting = asyncio.create_task(program.ask("waitForDevice"))
        await window.ask("open", url=shown["verification_uri"])
        await window.ask("fill", label="Code", text=shown["user_code"].lower())
        await window.ask("press", button="Go on")
        await window.ask("waitFor", text=shown["user_code"])
        await window.ask("press", button="Let it in")
        await window.ask("waitFor", text="The device is let in")

        assert (await waiting)["user_id"] == f"@{window.name}:localhost"
        assert await window.ask("faults") == []


@pytest.mark.parametrize("options", [(), ("no-script",)])
async def test_a_web_client_that_was_let_in_before_goes_on_without_a_question(
    house: RunningServer, options: tuple[str, ...]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("app.example.com").configure_cert(context)
    async with client(house, WEB_METADATA) as program, callback(context) as uri:
        away = f"away={urlsplit(uri).netloc}"
        async with browser(house.url, "maria", *options, away) as window:
            link = await program.ask("link", redirectUri=WEB, mode="fragment", prompt="create")
            await window.ask("open", url=link)
            await sign_up(window)
            await window.ask("press", button="Let it in")
            first = await returned(window, "fragment")
            await program.ask("complete", code=first["code"], redirectUri=WEB)
            await program.ask("revoke")

            await window.ask("open", url=await program.ask("link", redirectUri=WEB))
            again = await returned(window, "fragment")
            me = await program.ask("complete", code=again["code"], redirectUri=WEB)

            assert me["user_id"] == f"@{window.name}:localhost"
            await window.ask("open", url=f"{house.url}/_homebody/account/")
            if not options:  # axe-core is a script
                await check_accessible(window)
            await window.ask("press", button="Ask me again about Example")
            await window.ask("waitFor", text="You will be asked")
            await window.ask("open", url=await program.ask("link", redirectUri=WEB))
            await window.ask("waitFor", text="Let Example in?")
            assert await window.ask("faults") == []


async def test_two_devices_meet(house: RunningServer) -> None:
    async with client(house) as telephone, client(house) as laptop:
        url = await telephone.ask("meet", baseUrl=house.url)
        await laptop.ask("meet", baseUrl=house.url, url=url)
        assert await laptop.ask("receive") == ""
        waiting = asyncio.create_task(telephone.ask("receive"))
        await laptop.ask("send", data="MATRIX_QR_CODE_LOGIN_INITIATE")
        assert await waiting == "MATRIX_QR_CODE_LOGIN_INITIATE"
        await telephone.ask("send", data="MATRIX_QR_CODE_LOGIN_OK")

        assert await laptop.ask("receive") == "MATRIX_QR_CODE_LOGIN_OK"


async def test_the_pages_are_accessible(house: RunningServer) -> None:
    async with client(house) as program, browser(house.url, "maria") as window, callback() as uri:
        link = await program.ask("link", redirectUri=uri, mode="query", prompt="create")
        await window.ask("open", url=link)
        await check_accessible(window)
        await sign_up(window)
        await check_accessible(window)
        shown = await program.ask("device")
        base = f"{house.url}/_homebody/oauth"
        for page in (
            f"{base}/device",
            f"{base}/device?user_code=BCDF-BCDF",
            f"{base}/device?user_code={shown['user_code']}",
            f"{base}/account?action=org.matrix.profile",
            f"{base}/account?action=org.matrix.cross_signing_reset",
            f"{base}/authorize",
        ):
            await window.ask("open", url=page)
            await check_accessible(window)
        async with client(house, WEB_METADATA | {"client_name": "Stranger"}) as stranger:
            link = await stranger.ask("link", redirectUri=WEB, mode="query")
        await window.ask("open", url=f"{link}&scope=again")
        await window.ask("waitFor", text="Go on to app.example.com")
        await check_accessible(window)
        assert await window.ask("faults") == []
