"""A server that sends, and what others got from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from homebody.background.federation.sender import Sender
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remotes

Restart = Callable[[], Application]


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


@pytest.fixture
def restart(make_app: MakeApp, remote: Remotes) -> Iterator[Restart]:
    """`restart()` starts another server on the same database, and has it send."""
    started: list[Application] = []

    def start() -> Application:
        app = make_app(**remote.settings)
        started.append(app)
        app.homeserver.sender.start()
        app.homeserver.delivery.start()
        return app

    yield start
    for app in started:
        app.homeserver.delivery.stop()
        app.homeserver.sender.stop()
