"""How much of the server one request runs through: so much has to be read to understand it.

What is counted: one warm request through the whole WSGI application with default settings, in its
own thread and in the thread that commits. Files are those of app/homebody. Functions are distinct
code objects in them that are entered; comprehensions, generator expressions and lambdas count as
part of the function around them, which since
Python 3.12 is what most of them are.

To shorten a walk, merge what is thin and remove what only passes on; longer functions do not help
a reader. Then lower the limit here.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

import homebody
from tests.conftest import Login, MakeApp

SEND_FILES, SEND_FUNCTIONS = 24, 120
SYNC_FILES, SYNC_FUNCTIONS = 26, 116

PACKAGE = str(Path(homebody.__file__).parent)
PARTS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>"}
MESSAGE = {"msgtype": "m.text", "body": "hello", "m.mentions": {}}
"""As clients send it since version 1.7 of the specification."""
BODY = json.dumps(MESSAGE)


class Walk:
    """The functions of the server that a request has entered."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()

    @property
    def files(self) -> set[str]:
        return {code.co_filename for code in self.codes}

    def is_within(self, files: int, functions: int) -> bool:
        return len(self.files) <= files and len(self.codes) <= functions

    def __str__(self) -> str:
        lines = [f"{len(self.files)} files, {len(self.codes)} functions"]
        for file in sorted(self.files):
            names = sorted(code.co_qualname for code in self.codes if code.co_filename == file)
            lines.append(f"{Path(file).relative_to(PACKAGE)} ({len(names)}): {', '.join(names)}")
        return "\n".join(lines)


class Recorder:
    """Records which functions are entered in the thread of the test and in the one that commits."""

    def __init__(self) -> None:
        self.walk: Walk | None = None
        self._threads = {threading.get_ident()}

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        if code.co_name == "_commit_batches":  # the thread that commits begins with it
            self._threads.add(threading.get_ident())
        is_counted = code.co_name not in PARTS and threading.get_ident() in self._threads
        if self.walk is not None and is_counted:
            self.walk.codes.add(code)

    @contextmanager
    def recorded(self) -> Iterator[Walk]:
        """Record what the block runs."""
        self.walk = Walk()
        sys.setprofile(self)
        yield self.walk
        sys.setprofile(None)
        self.walk = None


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder that also sees the threads that the server starts from now on."""
    recorder = Recorder()
    threading.setprofile(recorder)
    yield recorder
    threading.setprofile(None)


@pytest.fixture
def app(recorder: Recorder, make_app: MakeApp) -> Flask:
    """A server whose threads are recorded, with the rate limits that it has by default."""
    return make_app(rate_limits="true")


def test_a_message_is_sent_through_few_files_and_functions(
    recorder: Recorder, login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    path = f"rooms/{quote(room(alice, bob))}/send/m.room.message/"
    for number in range(3):
        assert alice.put(f"{path}{number}", json=MESSAGE).status_code == 200

    with recorder.recorded() as walk:
        response = alice.put(f"{path}recorded", data=BODY)

    assert response.status_code == 200
    assert "Writer._commit," in str(walk), "the thread that commits was not recorded"
    assert walk.is_within(SEND_FILES, SEND_FUNCTIONS), str(walk)


def test_a_sync_with_one_event_runs_through_few_files_and_functions(
    recorder: Recorder, login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    path = f"rooms/{quote(room_id)}/send/m.room.message/"
    since = bob.sync()["next_batch"]
    for number in range(3):
        assert alice.put(f"{path}{number}", json=MESSAGE).status_code == 200
        since = bob.sync(since)["next_batch"]
    assert alice.put(f"{path}new", json=MESSAGE).status_code == 200

    with recorder.recorded() as walk:
        response = bob.get("sync", query_string={"since": since, "timeout": 30_000})

    assert len(response.get_json()["rooms"]["join"][room_id]["timeline"]["events"]) == 1
    assert walk.is_within(SYNC_FILES, SYNC_FUNCTIONS), str(walk)
