"""A provider, a server that knows it, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers import openid_provider
from tests.helpers.openid_provider import Provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Another server at which users have accounts."""
    with openid_provider.running() as found:
        yield found


@pytest.fixture
def app(make_app: MakeApp, provider: Provider) -> Application:
    """A server at which they can log in with these."""
    return make_app(oidc_providers=provider.settings())


@pytest.fixture
def browser(app: Application) -> FlaskClient:
    """A browser that has been nowhere."""
    return app.test_client()
