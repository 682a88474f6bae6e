"""Alice, her browser, and a client that has registered."""

from __future__ import annotations

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
