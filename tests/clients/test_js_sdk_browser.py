"""matrix-js-sdk in a page in headless Chromium, from another origin than the server's.

The browser itself enforces CORS: preflights before every request with a token or a JSON body, and
headers on every response, including errors. A client in Node never notices those.
"""

import base64
import contextlib
import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.clients import js_client, nio_client
from tests.clients.js_client import JsPerson
from tests.clients.nio_client import ok

_WASM = (
    js_client.JS / "node_modules/@matrix-org/matrix-sdk-crypto-wasm/pkg"
    "/matrix_sdk_crypto_wasm_bg.wasm"
)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without CORS headers: the opposite of a homeserver."""

    def log_message(self, *_args: object) -> None:
        """Log no requests."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a page with a bundle of matrix-js-sdk, served by Python."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(js_client.JS / "index.html", folder)
    (folder / "pkg").mkdir()
    shutil.copy(_WASM, folder / "pkg")  # where the bundle looks for it
    _bundle(folder / "page.js")
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()
        thread.join()


def _bundle(target: Path) -> None:
    esbuild = js_client.JS / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--format=esm", "--log-level=warning", f"--outfile={target}"]
    subprocess.run([esbuild, "page.mjs", *options], cwd=js_client.JS, check=True, timeout=60)


@contextlib.asynccontextmanager
async def in_chromium(page: str, url: str, name: str) -> AsyncIterator[JsPerson]:
    """Someone whose client is a page in Chromium; no answer may be refused to it by CORS."""
    async with js_client.person(url, name, "browser.mjs", js_client.chromium(), page) as someone:
        yield someone
        assert await someone.ask("corsErrors") == []


async def test_the_page_chats_both_ways_after_login_by_password(server: str, page: str) -> None:
    async with (
        nio_client.person(server, "alice") as alice,
        nio_client.person(server, "bob") as bob_elsewhere,
        in_chromium(page, server, "bob") as bob,
    ):
        await bob.login(bob_elsewhere.name)
        await bob.ask("start")
        room_id = await alice.create_room(bob.user_id)
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)

        question = await alice.say(room_id, "Milk or lemon?")
        heard_by_bob = await bob.ask("waitForMessage", roomId=room_id, body="Milk or lemon?")
        answer = await bob.ask("send", roomId=room_id, body="Both 🍋")
        heard_by_alice = await alice.hear(room_id, "Both 🍋")

        assert bob.user_id == bob_elsewhere.user_id
        assert (heard_by_bob["eventId"], heard_by_bob["sender"]) == (question, alice.user_id)
        assert heard_by_alice == (room_id, bob.user_id, "Both 🍋", answer)


async def test_the_page_registers_creates_a_room_and_sends_an_image(
    server: str, page: str, image: bytes
) -> None:
    async with (
        nio_client.person(server, "alice") as alice,
        in_chromium(page, server, "bob") as bob,
    ):
        await bob.register()
        await bob.ask("start")
        room_id = await bob.ask("createRoom", name="Gallery", invite=[alice.user_id])
        await alice.join(room_id)

        mxc = await bob.ask(
            "sendImage",
            roomId=room_id,
            name="gradient.png",
            type="image/png",
            base64=base64.b64encode(image).decode(),
        )
        for_bob = await bob.ask("download", mxc=mxc)
        thumbnail = await bob.ask("thumbnail", mxc=mxc, width=64, height=64)
        for_alice = ok(await alice.nio.download(mxc))

        assert (base64.b64decode(for_bob["base64"]), for_bob["type"]) == (image, "image/png")
        assert for_alice.body == image
        assert thumbnail["type"].startswith("image/")
        assert 0 < len(base64.b64decode(thumbnail["base64"])) != len(image)


async def test_two_pages_talk_in_an_encrypted_room(server: str, page: str) -> None:
    async with in_chromium(page, server, "alice") as alice, in_chromium(page, server, "bob") as bob:
        for person in (alice, bob):
            await person.register()
            await person.ask("initCrypto")
            await person.ask("start")
        await alice.ask("bootstrap")
        room_id = await alice.ask("createEncryptedRoom", invite=[bob.user_id])
        await bob.ask("waitForInvite", roomId=room_id)
        await bob.ask("join", roomId=room_id)
        membership = {"userId": bob.user_id, "membership": "join"}
        await alice.ask("waitForMembership", roomId=room_id, **membership)

        for sender, receiver, body in ((alice, bob, "Milk or lemon?"), (bob, alice, "Both 🍋")):
            await sender.ask("send", roomId=room_id, body=body)
            heard = await receiver.ask("waitForDecrypted", roomId=room_id, body=body)

            assert heard == {"isEncrypted": True, "sender": sender.user_id}


async def test_the_page_may_read_the_servers_refusals_too(server: str, page: str) -> None:
    async with in_chromium(page, server, "bob") as bob:
        await bob.register()
        await bob.ask("start")
        with pytest.raises(AssertionError, match="M_FORBIDDEN"):
            await bob.login(bob.name + "-who-is-not-there")

        afterwards = await bob.ask("logout")

        assert afterwards == "401 M_UNKNOWN_TOKEN"


async def test_a_server_without_cors_would_be_noticed(page: str) -> None:
    other_origin = page.replace("127.0.0.1", "localhost").rstrip("/")
    async with js_client.person(
        other_origin, "bob", "browser.mjs", js_client.chromium(), page
    ) as bob:
        with pytest.raises(AssertionError, match="fetch failed"):
            await bob.register()

        errors = await bob.ask("corsErrors")

        assert any("blocked by CORS policy" in error for error in errors)
