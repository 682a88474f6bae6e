"""Blueprints of the Client-Server API, one for each chapter of the specification."""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from flask import Blueprint, Flask

from homebody.client_server import http

PREFIX = "/_matrix/client/v3"


def register(app: Flask) -> None:
    """Register the blueprints of every module here: `bp`, and others with a prefix of their own.

    The paths of `bp` stand under /_matrix/client/v3, unless it has a prefix as well. To be called
    last: of all views that are there by then, those that change something get a rate limit.
    """
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for bp in vars(module).values():
            if isinstance(bp, Blueprint):
                app.register_blueprint(bp, url_prefix=bp.url_prefix or PREFIX)
    for endpoint, view in app.view_functions.items():
        app.view_functions[endpoint] = http.limit_anonymous_changes(cast("http.View", view))
