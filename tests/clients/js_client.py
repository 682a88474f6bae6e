"""A user of matrix-js-sdk: a Node process that reads commands as lines of JSON.

The commands are those of js/client.mjs. The same commands control a client in Node (js/chat.mjs)
and one in a page in Chromium (js/browser.mjs).
"""

import asyncio
import collections
import contextlib
import itertools
import json
import shutil
from asyncio import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.clients import nio_client

JS = Path(__file__).parent / "js"
# longer than a command waits by itself, so that its own words tell what was missing
_ANSWER_SECONDS = 30.0
# an answer may hold an image
_LONGEST_LINE_BYTES = 16 * 1024 * 1024
_NAMES_OF_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Return the browser to start. Raises AssertionError if there is none."""
    found = next(filter(None, map(shutil.which, _NAMES_OF_CHROMIUM)), None)
    assert found, "no Chromium: tests/clients/install brings it"
    return found


class JsPerson:
    """A user and the process of their client; `ask` sends it a command."""

    def __init__(self, url: str, name: str, process: subprocess.Process) -> None:
        self.url = url
        self.name = nio_client.fresh_name(name)
        self.user_id = ""
        self._process = process
        self._ids = itertools.count(1)
        self._console: collections.deque[str] = collections.deque(maxlen=100)
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """Keep what the client writes to its console."""
        assert self._process.stderr
        async for line in self._process.stderr:
            self._console.append(line.decode(errors="replace").rstrip())

    async def ask(self, command: str, **given: Any) -> Any:
        """What the client answers to this command.

        Raises AssertionError when it fails, dies or says nothing.
        """
        assert self._process.stdin
        assert self._process.stdout
        question = {"id": next(self._ids), "command": command, "given": given}
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            await self._process.stdin.drain()
            line = await asyncio.wait_for(self._process.stdout.readline(), _ANSWER_SECONDS)
        except (TimeoutError, ConnectionError) as fault:
            raise AssertionError(self._complaint(command, repr(fault))) from fault
        assert line, self._complaint(command, "the process has ended")
        answer = json.loads(line)
        assert answer["id"] == question["id"], self._complaint(command, f"answered {answer}")
        assert "error" not in answer, self._complaint(command, answer.get("error", ""))
        return answer["result"]

    def _complaint(self, command: str, fault: str) -> str:
        return f"{self.name}: {command}: {fault}"

    def console(self) -> str:
        """Return the last lines that the client wrote to its console."""
        return "\n".join([f"--- console of {self.name} ---", *self._console])

    async def register(self) -> None:
        """Become a new user, by user-interactive auth."""
        answer = await self.ask(
            "register", baseUrl=self.url, username=self.name, password=nio_client.PASSWORD
        )
        self.user_id = answer["userId"]

    async def login(self, name: str) -> None:
        """Log in by password as a user that is there already."""
        answer = await self.ask(
            "login", baseUrl=self.url, username=name, password=nio_client.PASSWORD
        )
        self.user_id = answer["userId"]

    async def die(self) -> None:
        """Kill the process, which says good-bye to nobody."""
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End the process, gently unless it hangs."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._listening


@contextlib.asynccontextmanager
async def person(url: str, name: str, *program: str) -> AsyncIterator[JsPerson]:
    """Someone nameless to the server yet, with a client that `node PROGRAM...` runs."""
    async with started(url, name, "node", *program) as someone:
        yield someone


@contextlib.asynccontextmanager
async def started(url: str, name: str, *command: str) -> AsyncIterator[JsPerson]:
    """Someone nameless to the server yet, with a client that answers lines of JSON."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=JS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=_LONGEST_LINE_BYTES,
    )
    someone = JsPerson(url, name, process)
    try:
        yield someone
    except BaseException as fault:
        # also if another client failed, this one's view of it helps
        fault.add_note(someone.console())
        raise
    finally:
        await someone.stop()


@contextlib.asynccontextmanager
async def in_node(url: str, name: str) -> AsyncIterator[JsPerson]:
    """Someone whose client runs in Node."""
    async with person(url, name, "chat.mjs") as someone:
        yield someone
