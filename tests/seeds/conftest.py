"""A server with default settings, and curl to talk to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp
from tests.seeds.printed import Curl, InProcess

HOST = "https://matrix.example.com"
"""Where two of the documents have their server, whose name is example.com."""

MakeServer = Callable[..., FlaskClient]


@pytest.fixture
def curl(client: FlaskClient) -> Curl:
    """Provide curl, as far as the documents use it, in the test's own process."""
    return InProcess(client)


@pytest.fixture
def make_server(make_app: MakeApp) -> MakeServer:
    """Start the server of these two documents, with other settings."""

    def make(**settings: str) -> FlaskClient:
        its_own = {"server_name": "example.com", "public_url": HOST}
        is_open = {"registration": "open", "registration_open_to_all": "true"}
        return make_app(**its_own, **is_open, **settings).test_client()

    return make
