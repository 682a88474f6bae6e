"""Blueprints of the Client-Server API, one for each chapter of the specification."""

from __future__ import annotations

import importlib
import pkgutil

from flask import Blueprint, Flask

PREFIX = "/_matrix/client/v3"


def register(app: Flask) -> None:
    """Register the blueprints of every module here: `bp`, and others with a prefix of their own.

    The paths of `bp` stand under /_matrix/client/v3, unless it has a prefix as well.
    """
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for bp in vars(module).values():
            if isinstance(bp, Blueprint):
                app.register_blueprint(bp, url_prefix=bp.url_prefix or PREFIX)
