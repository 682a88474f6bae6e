"""Alice, her browser, and a client that has registered."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.oauth import App
from tests.helpers.pages import log_in


@pytest.fixture
def alice(login: Login) -> Person:
    """Alice, with a client that logs in by a password."""
    return login("alice")


@pytest.fixture
def browser(app: Application, alice: Person) -> FlaskClient:
    """Alice's browser, logged in."""
    assert alice.user_id
    found = app.test_client()
    log_in(found, "alice")
    return found


@pytest.fixture
def example(client: FlaskClient) -> App:
    """A client that has registered."""
    return App(client)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`later(ms)`: let the time of the database pass."""
    real, passed = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + passed[0] * 1_000_000)

    def move(ms: int) -> None:
        passed[0] += ms

    return move
