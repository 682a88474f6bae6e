"""What a browser does with pages and their forms."""

from __future__ import annotations

import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import PASSWORD

LOGIN = "/_homebody/login"
TERMS = '[{id="rules", version="1", language="en", name="House rules", url="https://x.test/r"}]'
"""A setting: rules that new users must agree to."""


def field(page: TestResponse) -> str:
    """Return the hidden field of the forms of a page."""
    found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', page.get_data(as_text=True))
    assert found, page.get_data(as_text=True)
    return found.group(1)


def send(browser: FlaskClient, path: str, page: str | None = None, **values: Any) -> TestResponse:
    """Load a page, of the same path unless given, and send a form of it."""
    token = field(browser.get(page or path))
    return browser.post(path, data={"csrf_token": token, **values})


def log_in(browser: FlaskClient, name: str, password: str = PASSWORD) -> TestResponse:
    """Log in to the pages, by the form."""
    return send(browser, LOGIN, user=name, password=password)
