"""Logging in with accounts of a real OpenID Connect provider, in headless Chromium.

The provider is the example of zitadel/oidc, a process of its own with pages of its own.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.clients.js_client import JsPerson
from tests.clients.pages import browser, check_accessible
from tests.helpers import programs
from tests.helpers.server import RunningServer, free_port, start

PROGRAM = Path(sys.prefix) / "oidc" / "server"
PASSWORD = "verysecure"
SECRET = "secret"
NAME = "Keycloak & co."

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the provider needs Go 1.26 or later")


def users(names: tuple[str, ...]) -> dict[str, Any]:
    """The users of the provider."""
    return {
        f"id-{name}": {
            "ID": f"id-{name}",
            "Username": name,
            "Password": PASSWORD,
            "FirstName": name.title(),
            "LastName": "Example",
            "Email": f"{name}@example.org",
            "EmailVerified": True,
        }
        for name in names
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Start both; each knows the address of the other."""
    folder = tmp_path_factory.mktemp("house")
    port, own_port = free_port(), free_port()
    issuer, url = f"http://localhost:{port}/", f"http://localhost:{own_port}"
    (folder / "users.json").write_text(json.dumps(users(("maria", "nina", "olga", "pia"))))
    environ = {
        **os.environ,
        "PORT": str(port),
        "USERS_FILE": str(folder / "users.json"),
        "REDIRECT_URI": f"{url}/_homebody/sign-on/callback/zitadel",
    }
    table = (
        f'{{id="zitadel", name="{NAME}", issuer="{issuer}", client_id="web",'
        f' client_secret="{SECRET}", registration="open"}}'
    )
    settings = {"oidc_providers": f"[{table}]", "public_url": url}
    with programs.running([PROGRAM], port, folder / "provider.log", env=environ):
        running = start(folder, **settings, bind=f"127.0.0.1:{own_port}")
        running.url = url  # to whose name the provider sends browsers back
        yield running
        running.stop()


async def log_in_there(window: JsPerson, name: str) -> None:
    """Log in on the page of the provider."""
    await window.ask("fill", label="Username:", text=name)
    await window.ask("fill", label="Password:", text=PASSWORD)
    await window.ask("press", button="Login")


async def register(window: JsPerson, house: RunningServer, name: str) -> None:
    """Log in for the first time, and choose a name."""
    await window.ask("open", url=f"{house.url}/_homebody/login")
    await window.ask("follow", link=f"Log in with {NAME}")
    await log_in_there(window, name)
    await window.ask("waitFor", text=f"Your first login with {NAME}")
    await window.ask("fill", label="User name", text=name)
    await window.ask("press", button="Create my account")
    await window.ask("waitFor", text="Your account")


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The response of an endpoint."""
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - http
        found: dict[str, Any] = json.load(answer)
        return found


@pytest.mark.parametrize(("name", "options"), [("maria", ()), ("nina", ("no-script",))])
async def test_a_person_registers_by_a_login_and_comes_back(
    house: RunningServer, name: str, options: tuple[str, ...]
) -> None:
    async with browser(house.url, name, *options) as window:
        await register(window, house, name)
        shown = await window.ask("text")
        await window.ask("press", button="Log out")
        await window.ask("waitFor", text="You are logged out")
        await window.ask("open", url=f"{house.url}/_homebody/login")
        await window.ask("follow", link=f"Log in with {NAME}")
        await log_in_there(window, name)
        await window.ask("waitFor", text="Your account")
        again = await window.ask("text")

        assert f"@{name}:localhost" in shown
        assert f"@{name}:localhost" in again
        assert f"{name}@example.org" in again
        assert await window.ask("faults") == []


async def test_a_client_gets_its_token_once_the_person_agrees(house: RunningServer) -> None:
    url = f"{house.url}/catch?x=y"
    redirect = f"{house.url}/_matrix/client/v3/login/sso/redirect/zitadel"
    async with browser(house.url, "olga") as window:
        await window.ask("open", url=f"{redirect}?redirectUrl={quote(url, safe='')}")
        await log_in_there(window, "olga")
        await window.ask("fill", label="User name", text="olga")
        await window.ask("press", button="Create my account")
        await window.ask("waitFor", text="Continue to your client?")
        await check_accessible(window)
        await window.ask("press", button="Continue")
        await window.ask("waitFor", text="M_UNRECOGNIZED")  # there is no client at this address
        place = await window.ask("evaluate", script="location.href")

    token = place.partition("loginToken=")[2]
    body = {"type": "m.login.token", "token": token}
    session = post(f"{house.url}/_matrix/client/v3/login", body)
    assert place.startswith(f"{url}&loginToken=")
    assert session["user_id"] == "@olga:localhost"


async def test_the_pages_are_accessible(house: RunningServer) -> None:
    async with browser(house.url, "pia") as window:
        await window.ask("open", url=f"{house.url}/_homebody/login")
        await check_accessible(window)
        await window.ask("follow", link=f"Log in with {NAME}")
        await log_in_there(window, "pia")
        await window.ask("waitFor", text="Your first login")
        await check_accessible(window)
        await window.ask("fill", label="User name", text="Not a name")
        await window.ask("press", button="Create my account")
        await window.ask("waitFor", text="A user name consists of")
        await check_accessible(window)
        await window.ask("fill", label="User name", text="pia")
        await window.ask("press", button="Create my account")
        await window.ask("waitFor", text="Logins elsewhere")
        await check_accessible(window)
        await window.ask("open", url=f"{house.url}/_homebody/account/password")
        await window.ask("waitFor", text="You have no password here")
        await check_accessible(window)
        await window.ask("open", url=f"{house.url}/_homebody/sign-on/again/zitadel")
        await log_in_there(window, "pia")  # though she is logged in there
        await window.ask("waitFor", text="You have logged in again")
        await check_accessible(window)
        assert await window.ask("faults") == []
