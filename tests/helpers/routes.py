"""Shared routes of all servers in the test's own process.

Building them takes Flask 40 ms, five times as long as the rest of `create_app`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from flask import Flask

from homebody import client_server, server_server
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
        for module, federation in ((client_server, False), (server_server, True)):
            made = spec_index.server(federation=federation)
            patch.setattr(made.url_map, "add", _refuse)  # it would affect all later tests
            patch.setattr(module, "register", _sharer_of(made))
        yield


def _refuse(_route: object) -> NoReturn:
    raise AssertionError("All servers share the routes: put your view into app.view_functions")


def _sharer_of(made: Flask) -> Any:
    def share(app: Flask) -> None:
        app.url_map = made.url_map
        app.blueprints = dict(made.blueprints)
        for name in OF_BLUEPRINTS:
            setattr(app, name, copy.deepcopy(getattr(made, name)))

    return share
