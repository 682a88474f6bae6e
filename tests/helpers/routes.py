"""The routes of all servers in the test's own process, made once.

Flask takes 40 ms for them, which is five times what the rest of `create_app` takes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from flask import Flask

from homebody import client_server
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
"""What Flask keeps of blueprints, beside themselves and their routes."""


@contextmanager
def shared() -> Iterator[None]:
    """Inside, `create_app` takes its routes from here; they are those that it would make."""
    with pytest.MonkeyPatch.context() as patch:
        made = spec_index.server()
        patch.setattr(made.url_map, "add", _refuse)  # every later test would have it
        patch.setattr(client_server, "register", _sharer_of(made))
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
