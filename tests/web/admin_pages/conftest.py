"""An administrator who has logged in to the pages, and a user whom they are about."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.pages import log_in


@pytest.fixture
def admin(login: Login) -> Person:
    """The first account of a server is its administrator."""
    return login("owner")


@pytest.fixture
def alice(admin: Person, login: Login) -> Person:
    """A user who is not an administrator."""
    return login("alice")


@pytest.fixture
def browser(app: Application, admin: Person) -> FlaskClient:
    """The browser of the administrator, who has logged in."""
    client = app.test_client()
    assert log_in(client, "owner").status_code == 303
    return client
