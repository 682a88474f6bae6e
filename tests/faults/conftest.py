"""A server that is killed at the end of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import server
from tests.helpers.server import RunningServer

Start = Callable[..., RunningServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Provide `start(registration="token")`: a server on the test's folder, killed afterwards."""
    started: list[RunningServer] = []

    def begin(**settings: str) -> RunningServer:
        started.append(server.start(tmp_path, **settings))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.kill()
