"""An administrator, and a user whom the tests of the admin API are about."""

from __future__ import annotations

import pytest

from tests.conftest import Login, Person


@pytest.fixture
def admin(login: Login) -> Person:
    """The first account of a server is its administrator."""
    return login("owner")


@pytest.fixture
def alice(admin: Person, login: Login) -> Person:
    """A user who is not an administrator."""
    return login("alice")
