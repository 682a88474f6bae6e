"""Blueprints of the Server-Server API, one for each chapter of the specification."""

from __future__ import annotations

import importlib
import pkgutil

from flask import Blueprint, Flask

PREFIX = "/_matrix/federation"


def register(app: Flask) -> None:
    """Register the blueprints of every module here; their paths are below /_matrix/federation.

    Those with a prefix of their own keep it.
    """
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for bp in vars(module).values():
            if isinstance(bp, Blueprint):
                app.register_blueprint(bp, url_prefix=bp.url_prefix or PREFIX)
