"""The real server, and real clients that talk to it; `make clients` runs these tests.

They carry the marker `clients`. They need more than the other tests do (matrix-nio, Node,
Chromium): `tests/clients/install` brings it.

HOMEBODY_TEST_URL runs them against another server, which must have open registration and no
rate limits: what fails against every server is a fault of the test.
"""

import asyncio
import importlib.util
import inspect
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests import server as real_server

_HERE = Path(__file__).parent

# a checkout without the extra `clients` still runs all the other tests;
# `make clients` then finds no test at all, which pytest counts as a failure
collect_ignore_glob = [] if importlib.util.find_spec("nio") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, each in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running server."""
    if url := os.environ.get("HOMEBODY_TEST_URL"):
        yield url.rstrip("/")
        return
    running = real_server.start(tmp_path_factory.mktemp("server"))
    yield running.url
    running.stop()


@pytest.fixture(scope="session")
def image() -> bytes:
    """A PNG of 640 by 480, large enough to have thumbnails."""
    picture = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
