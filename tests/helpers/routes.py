"""Shared routes of all servers in the test's own process.

Building them takes Flask 40 ms, five times as long as the rest of `create_app`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from flask import Flask

from homebody import admin_api, client_server, server_server
from homebody.web import admin_pages, blueprints, oauth, sign_on_pages
from tests.tools import spec_index

OF_BLUEPRINTS = (
    "view_functions",
    "error_handler_spec",
    "before_request_funcs",
    "after_request_funcs",
    "teardown_request_funcs",
    "template_context_processors",
    "url_value_preprocessors",
    "url_default_functions",
)
"""What Flask stores of blueprints, apart from the blueprints and their routes."""


@contextmanager
def shared() -> Iterator[None]:
    """Have `create_app` use the shared routes within the block."""
    with pytest.MonkeyPatch.context() as patch:
        shared_by = {
            client_server: spec_index.server(federation=False),
            admin_api: spec_index.server(federation=False),
            admin_pages: spec_index.server(federation=False),
            oauth: spec_index.server(federation=False),
            sign_on_pages: spec_index.server(federation=False),
            server_server: spec_index.server(federation=True),
        }
        for made in shared_by.values():
            patch.setattr(made.url_map, "add", _refuse)  # it would affect all later tests
        patch.setattr(blueprints, "register", lambda app, package: _share(shared_by[package], app))
        yield


def _refuse(_route: object) -> NoReturn:
    raise AssertionError("All servers share the routes: put your view into app.view_functions")


def _share(made: Flask, app: Flask) -> None:
    app.url_map = made.url_map
    app.blueprints = dict(made.blueprints)
    for name in OF_BLUEPRINTS:
        setattr(app, name, copy.deepcopy(getattr(made, name)))
