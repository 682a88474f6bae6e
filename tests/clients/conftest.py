"""A real server, and real clients that talk to it; `make clients` runs these tests.

They are marked `clients`. They need more than the other tests (matrix-nio, synadm, Node, Chromium),
which `tests/clients/install` installs.

HOMEBODY_TEST_URL runs them against another server, which must have open registration and no rate
limits: a test that fails with every server is wrong itself.
"""

import importlib.util
import io
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.pages import TERMS
from tests.helpers.server import RunningServer, start

_HERE = Path(__file__).parent
_LAST_OUTPUT = 20_000  # characters of it, in the report of a failure

# a checkout without the extra `clients` still runs all the other tests;
# `make clients` then finds no test at all, which pytest counts as a failure
_IS_THERE = all(importlib.util.find_spec(it) for it in ("nio", "synadm"))
collect_ignore_glob = [] if _IS_THERE else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the output of the servers with the failure of a client."""
    report = yield
    servers = [it for it in item.funcargs.values() if isinstance(it, RunningServer)]
    for server in servers if report.failed else ():
        report.sections.append(("output of the server", server.output()[-_LAST_OUTPUT:]))
    return report


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer | None]:
    """Start the server of all these tests, unless HOMEBODY_TEST_URL names another one."""
    if "HOMEBODY_TEST_URL" in os.environ:
        yield None
        return
    running = start(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server(running_server: RunningServer | None) -> str:
    """Return the base URL of the server."""
    if running_server:
        return running_server.url
    return os.environ["HOMEBODY_TEST_URL"].rstrip("/")


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Start another server, on which users agree to rules when they register."""
    running = start(tmp_path_factory.mktemp("house"), terms=TERMS)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def image() -> bytes:
    """Return a PNG of 640 by 480, large enough to have thumbnails."""
    picture = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
