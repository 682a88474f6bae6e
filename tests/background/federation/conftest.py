"""A server that sends, and what others got from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homebody.background.federation.sender import Sender
from homebody.web import Application
from tests.conftest import Login, Person


@pytest.fixture
def sender(app: Application) -> Iterator[Sender]:
    """The sender of `app`, running."""
    found = app.homeserver.sender
    found.start()
    app.homeserver.delivery.start()
    yield found
    app.homeserver.delivery.stop()
    found.stop()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")
