"""Users of the server's pages, in headless Chromium: what they see and fill in."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from tests.clients import js_client, nio_client
from tests.clients.js_client import JsPerson

PASSWORD = nio_client.PASSWORD


@contextlib.asynccontextmanager
async def browser(url: str, name: str, *options: str) -> AsyncIterator[JsPerson]:
    """Chromium with an empty page; the options are those of pages.mjs."""
    program = ("pages.mjs", js_client.chromium(), *options)
    async with js_client.person(url, name, *program) as someone:
        yield someone


async def check_accessible(window: JsPerson) -> None:
    """Check that axe-core finds nothing, in both colour schemes."""
    for scheme in ("dark", "light"):
        await window.ask("colours", scheme=scheme)
        assert await window.ask("accessibility") == [], scheme


async def sign_up(window: JsPerson) -> None:
    """Fill in the page for new users, to whom an OAuth client has sent the browser."""
    await window.ask("fill", label="User name", text=window.name)
    await window.ask("fill", label="New password", text=PASSWORD)
    await window.ask("fill", label="The password again", text=PASSWORD)
    await window.ask("check", label="I agree to them")
    await window.ask("press", button="Create my account")
    await window.ask("waitFor", text="Let Example in?")


@contextlib.asynccontextmanager
async def callback(certificate: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Where an OAuth client listens for the browser to come back."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<!doctype html><title>Back</title><main>Welcome back</main>"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificate)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/callback"
    finally:
        server.close()
