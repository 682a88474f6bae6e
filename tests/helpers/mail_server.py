"""A real mail server for tests in a process of its own.

`python -m tests.helpers.mail_server PORT FOLDER`. It stores each message as a file in the
folder. It rejects the recipient "nobody" and is slow for the recipient "slow".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.helpers import programs
from tests.helpers.server import ROOT, free_port


class Mailbox:
    """The messages accepted by the mail server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings with which homebody uses it."""
        return {"smtp.host": "127.0.0.1", "smtp.port": str(self.port), "smtp.tls": "none"}

    def empty(self) -> None:
        """Delete all messages so far."""
        for path in self.folder.glob("*.eml"):
            path.unlink()

    def messages(self, address: str | None = None) -> list[EmailMessage]:
        """Return all messages, or those to one address, in order."""
        found = [self._read(path) for path in sorted(self.folder.glob("*.eml"))]
        return [it for it in found if address in {None, it["To"]}]

    def newest(self, address: str) -> EmailMessage:
        """Return the last message to this address."""
        return self.messages(address)[-1]

    def link(self, address: str) -> str:
        """Return path and query of the link in the last message to this address."""
        found = re.search(r"https?://\S+", body_of(self.newest(address), "plain"))
        assert found, "there is no link in it"
        parts = urlsplit(found.group())
        return f"{parts.path}?{parts.query}"

    @staticmethod
    def _read(path: Path) -> EmailMessage:
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


def body_of(message: EmailMessage, kind: str) -> str:
    """Return the "plain" or "html" part of a message."""
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


@contextmanager
def running(folder: Path) -> Iterator[Mailbox]:
    """Run a mail server on a free port that stores its messages in this folder."""
    port = free_port()
    command = [sys.executable, "-m", "tests.helpers.mail_server", str(port), str(folder)]
    with programs.running(command, port, folder / "mail_server.log", cwd=ROOT):
        yield Mailbox(folder, port)


class _Handler:
    """The handler called by aiosmtpd."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        if address.startswith("slow@"):
            await asyncio.sleep(2)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - as above
        path = self._folder / f"{time.time_ns()}-{secrets.token_hex(4)}"
        path.write_bytes(envelope.content)
        path.rename(path.with_suffix(".eml"))
        return "250 OK"


async def _serve(port: int, folder: Path) -> None:
    from aiosmtpd.smtp import SMTP  # noqa: PLC0415 - it warns of its own, which tests take for errors

    handler = _Handler(folder)
    loop = asyncio.get_running_loop()

    def answer() -> SMTP:
        return SMTP(handler, hostname="localhost")

    server = await loop.create_server(answer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
