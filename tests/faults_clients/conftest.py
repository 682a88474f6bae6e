"""Two servers for all tests of the folder: one with default time limits, one with short ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import Person
from tests.helpers.server import RunningServer

MAX_UPLOAD_BYTES = 60_000_000


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Start a server with the default time limits."""
    folder = tmp_path_factory.mktemp("server")
    running = clients.start(
        folder,
        is_impatient=False,
        max_upload_bytes=str(MAX_UPLOAD_BYTES),
        outside_allowed="127.0.0.1",  # where the test's web site is
    )
    with clients.running(running):
        yield running


@pytest.fixture(scope="session")
def alice(server: RunningServer) -> Person:
    return Person(server, "alice")


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Start the server of impatient.py, with rate limits."""
    with clients.running(clients.start(tmp_path_factory.mktemp("hasty"))) as running:
        yield running
