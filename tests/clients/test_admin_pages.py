"""The pages for administrators, in headless Chromium: without a mouse, for a screen reader, small.

The content security policy is real: what it forbids appears in the console.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients.js_client import JsPerson
from tests.clients.pages import browser
from tests.helpers import household
from tests.helpers.server import RunningServer, start

ADMIN = "/_homebody/admin/"
PAGES = (
    *("", "doctor", "users", "rooms", "reports", "reports/1", "reports/1/resolve", "invitations"),
    *("media", "federation", "tasks", "audit", "users/{ben}", "users/{anna}", "users/{emil}"),
    *("users/{ben}/deactivate", "users/{ben}/lock", "rooms/{kitchen}", "rooms/{kitchen}/delete"),
    *("rooms/{kitchen}/make-admin", "media/users/{carla}", "media/files/{file}"),
    *(
        "media/files/{file}/delete",
        "users/nobody",
        "notices",
        "notices/all",
        "federation/down.test",
    ),
    *(
        "users/{ben}/edit",
        "users/{ben}/limit",
        "users/{ben}/notice",
        "rooms/{kitchen}/purge-history",
    ),
    *("tasks/{task}/cancel", "upkeep/pause", "users/{ben}/logins/house/17"),
)


Site = tuple[RunningServer, dict[str, str]]
"""A server, and ids of what is there."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with users."""
    folder = tmp_path_factory.mktemp("pages")
    server = start(folder, server_notices_user="notices")
    ids = {**household.furnish(server), "anna": "@anna:localhost"}
    yield server, {**ids, "task": add_rows(folder)}
    server.stop()


def add_rows(folder: Path) -> str:
    """Add a server that can't be reached, a link of Ben's, and a task, whose ID is returned."""
    now = time.time_ns() // 1_000_000
    with contextlib.closing(sqlite3.connect(folder / "homebody.db")) as database, database:
        database.execute(
            "INSERT INTO destinations (server, sent_upto, failing_since_ts, tries,"
            " next_try_ts, problem, last_sent_ts) VALUES ('down.test', 1, ?, 3, ?, 'timeout', 0)",
            (now - 60_000, now + 3_600_000),
        )
        database.execute(
            "INSERT INTO external_ids (auth_provider, external_id, user_id)"
            " VALUES ('house', '17', '@ben:localhost')"
        )
        database.execute(
            "INSERT INTO tasks (id, action, resource_id, status, params, created_ts, updated_ts,"
            " can_be_cancelled) VALUES ('a1', 'not_run', '!a:x', 'scheduled', '{}', ?, ?, 1)",
            (now, now),
        )
    return "a1"


async def log_in(window: JsPerson, path: str = ADMIN) -> None:
    """Log the administrator in, by the form, on the way to a page."""
    await window.ask("open", url=window.url + path)
    await window.ask("fill", label="User name or e-mail address", text="anna")
    await window.ask("fill", label="Password", text=household.PASSWORD)
    await window.ask("press", button="Log in")
    await window.ask("waitFor", text="Log out")


async def reach(window: JsPerson, label: str) -> None:
    """Press Tab until the link, field or button has the focus."""
    for _ in range(60):
        if await window.ask("key", name="Tab") == label:
            return
    raise AssertionError(f"Tab does not lead to {label}")


async def test_a_user_is_locked_and_unlocked_by_keyboard_alone(
    site: Site,
) -> None:
    async with browser(site[0].url, "anna") as window:
        await window.ask("open", url=f"{window.url}{ADMIN}users")
        await window.ask("type", text="anna")  # the first field has the focus
        await reach(window, "Password")
        await window.ask("type", text=household.PASSWORD)
        await window.ask("key", name="Enter")
        await window.ask("waitFor", text="Accounts of this server")

        assert await window.ask("key", name="Tab") == "Skip to the content"
        await window.ask("key", name="Enter")
        await reach(window, "@ben:localhost")
        await window.ask("key", name="Enter")
        await window.ask("waitFor", text="Devices that are logged in")
        await reach(window, "Lock…")
        await window.ask("key", name="Enter")
        await window.ask("waitFor", text="Lock: @ben:localhost?")
        await reach(window, "Lock")
        await window.ask("key", name="Enter")
        await window.ask("waitFor", text="The account is locked.")
        await reach(window, "Unlock")
        await window.ask("key", name="Space")
        await window.ask("waitFor", text="The account is unlocked.")
        assert "user.unlock" in await window.ask("text")
        assert await window.ask("faults") == []


async def test_what_makes_a_page_hard_to_use_is_found(
    site: Site,
) -> None:
    async with browser(site[0].url, "anna") as window:
        await window.ask("open", url=window.url)
        html = "<img src=x><input><button id=same>Invisible</button>"
        await window.ask("evaluate", script=f"document.querySelector('h1').outerHTML = '{html}'")
        style = "document.getElementById('same').style"
        script = f"{style}.color = {style}.backgroundColor = 'rgb(10, 20, 30)'"
        await window.ask("evaluate", script=script)

        found = await window.ask("accessibility")

    assert {"image-alt", "label", "color-contrast"} <= {it.partition(":")[0] for it in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_has_what_makes_it_hard_to_use(site: Site, scheme: str) -> None:
    ids = {name: quote(value, safe="") for name, value in site[1].items()}
    async with browser(site[0].url, "anna") as window:
        await window.ask("colours", scheme=scheme)
        found = {}
        for path in ("/", "/_homebody/login"):
            await window.ask("open", url=f"{window.url}{path}")
            found[path] = await window.ask("accessibility")
        await log_in(window)
        for path in PAGES:
            await window.ask("open", url=f"{window.url}{ADMIN}{path.format(**ids)}")
            found[path] = await window.ask("accessibility")

        assert {path: problems for path, problems in found.items() if problems} == {}
        assert await window.ask("faults") == []


async def test_the_pages_fit_on_a_small_telephone(
    site: Site,
) -> None:
    ids = {name: quote(value, safe="") for name, value in site[1].items()}
    async with browser(site[0].url, "anna") as window:
        await window.ask("resize", width=320, height=480)
        await log_in(window)
        widths = {}
        for path in PAGES:
            await window.ask("open", url=f"{window.url}{ADMIN}{path.format(**ids)}")
            script = "document.documentElement.scrollWidth"
            widths[path] = await window.ask("evaluate", script=script)

        assert {path: width for path, width in widths.items() if width > 320} == {}


async def test_the_doctor_is_run_by_its_page(site: Site) -> None:
    async with browser(site[0].url, "anna") as window:
        await log_in(window, f"{ADMIN}doctor")

        await reach(window, "Check the server now")
        await window.ask("key", name="Enter")
        for _ in range(3):  # a request takes less than 30 s, as an answer to `ask`
            with contextlib.suppress(AssertionError):
                await window.ask("waitFor", text="All findings", seconds=20)
                break

        assert "in order" in await window.ask("text")
        assert await window.ask("accessibility") == []


async def test_a_link_of_invitation_is_made_and_used(
    site: Site,
) -> None:
    async with browser(site[0].url, "anna") as window:
        await log_in(window, f"{ADMIN}invitations")
        await window.ask("fill", label="User name (empty: the person chooses it)", text="frida")
        await window.ask("press", button="Create a link")
        await window.ask("waitFor", text="It is shown only now.")
        assert await window.ask("accessibility") == []
        link = await window.ask("evaluate", script="document.getElementById('link').value")

        await window.ask("open", url=link)

        assert "frida" in await window.ask("text")


async def test_a_notice_is_written_by_keyboard_and_kept_on_an_error(site: Site) -> None:
    async with browser(site[0].url, "anna") as window:
        await log_in(window, f"{ADMIN}notices")
        await window.ask("fill", label="User name", text="nobody")
        await window.ask("fill", label="Text", text="Tea is ready")
        await window.ask("press", button="Send")
        await window.ask("waitFor", text="There is no user @nobody:localhost.")
        assert await window.ask("accessibility") == []
        kept = await window.ask("evaluate", script="document.getElementById('text').value")

        await window.ask("fill", label="User name", text="dora")
        await window.ask("press", button="Send")
        await window.ask("waitFor", text="The notice is sent.")

        assert kept == "Tea is ready"
        assert await window.ask("faults") == []
