"""A server as it comes, and curl to talk to it."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.seeds.printed import Curl, InProcess


@pytest.fixture
def curl(client: FlaskClient) -> Curl:
    """curl, as far as the documents use it, in the test's own process."""
    return InProcess(client)
