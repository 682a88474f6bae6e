"""The engine of Element X behind nginx with TLS: login of devices by QR codes, and logout.

The SDK revokes its tokens, and so logs out, only at an address with https.
"""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import phones
from tests.clients.js_client import JsPerson
from tests.clients.pages import browser
from tests.clients.phones import Phone
from tests.helpers import certificates, proxies
from tests.helpers.pages import TERMS
from tests.helpers.server import RunningServer, free_port, start

pytestmark = phones.MARKS

TOKENS_LAST_SECONDS = 4


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server behind nginx, whose access tokens end soon."""
    folder = tmp_path_factory.mktemp("secure")
    place = f"127.0.0.1:{free_port()}"
    certificate = certificates.write_certificate(folder, "127.0.0.1")
    with proxies.nginx(folder, place, certificate) as port:
        url = f"https://127.0.0.1:{port}"
        running = start(
            folder,
            bind=place,
            public_url=url,
            registration="open",
            terms=TERMS,
            token_lifetime=f"{TOKENS_LAST_SECONDS}s",
            trusted_proxies="127.0.0.1",
        )
        running.url = url
        yield running
        running.stop()


async def let_in(old: JsPerson, new: JsPerson, window: JsPerson) -> None:
    """Consent to a new device that has met the old one, and wait for the end of its login."""
    link = await old.ask("qrSee", what="verificationUri")
    await old.ask("qrConfirm")
    code = await new.ask("qrSee", what="userCode")
    await window.ask("open", url=link)
    await window.ask("waitFor", text=code)
    await window.ask("press", button="Let it in")
    await window.ask("waitFor", text="The device is let in")
    assert await new.ask("qrSee", what="done")
    assert await old.ask("qrSee", what="done")


async def check_new(phone: Phone, new: JsPerson, room: str) -> None:
    """A device that was let in is verified and reads what was written before."""
    phone.session = await new.ask("session")
    await new.ask("start")
    await new.ask("waitVerified")
    assert (await new.ask("waitFor", roomId=room, body="from before"))["isEncrypted"]


@pytest.mark.parametrize("shows", ["old", "new"])
async def test_a_device_is_logged_in_by_a_qr_code(
    secure: RunningServer, tmp_path: Path, shows: str
) -> None:
    """The user enters the check code of the one that scans on the one that shows it."""
    phone, tablet = Phone(secure, tmp_path), Phone(secure, tmp_path)
    async with (
        browser(secure.url, "nadia", "any-certificate") as window,
        phone.app() as old,
        tablet.app() as new,
    ):
        user_id = await phone.log_in(old, window, is_new=True)
        room = await old.ask("createRoom", name="Tea", encrypted=True)
        await old.ask("send", roomId=room, body="from before")
        await old.ask("waitFor", roomId=room, body="from before")
        await old.ask("enableRecovery")

        sides = {"old": (old, "qrGrant"), "new": (new, "qrLogin")}
        shower, show = sides.pop(shows)
        ((scanner, scan),) = sides.values()
        await shower.ask(show)
        await scanner.ask(scan, code=await shower.ask("qrSee", what="code"))
        check = await scanner.ask("qrSee", what="checkCode")
        assert await shower.ask("qrSee", what="scanned")
        await shower.ask("qrCheck", checkCode=check)
        await let_in(old, new, window)

        assert (await new.ask("whoami"))["userId"] == user_id
        await check_new(tablet, new, room)


async def test_a_device_goes_on_when_its_token_has_ended_and_logs_out(
    secure: RunningServer, tmp_path: Path
) -> None:
    phone = Phone(secure, tmp_path)
    async with browser(secure.url, "otto", "any-certificate") as window, phone.app() as app:
        await phone.log_in(app, window, is_new=True)
        room = await app.ask("createRoom", name="Tea", encrypted=True)
        first = (await app.ask("session"))["user"]["access_token"]
        await asyncio.sleep(TOKENS_LAST_SECONDS + 1)
        await app.ask("send", roomId=room, body="still here")
        await app.ask("waitFor", roomId=room, body="still here")
        last = (await app.ask("session"))["user"]["access_token"]
        await app.ask("stop")
        await app.ask("logout")
        phone.session = {}

    assert first != last
    assert [status(secure, it) for it in (first, last)] == [401, 401]


def status(house: RunningServer, token: str) -> int:
    """Return the status of a request with an access token."""
    asked = urllib.request.Request(  # noqa: S310 - loopback
        f"{house.url}/_matrix/client/v3/account/whoami",
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        context = certificates.client_context()
        with urllib.request.urlopen(asked, timeout=10, context=context) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
