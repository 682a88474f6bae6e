"""Blueprints of the Client-Server API, one for each chapter of the specification."""

from __future__ import annotations

import importlib
import pkgutil

from flask import Blueprint, Flask

PREFIX = "/_matrix/client/v3"


def register(app: Flask) -> None:
    """Register the blueprint `bp` of every module here.

    A blueprint's paths stand under /_matrix/client/v3, unless it has a prefix of its own.
    """
    for module in pkgutil.iter_modules(__path__):
        bp = getattr(importlib.import_module(f"{__name__}.{module.name}"), "bp", None)
        if isinstance(bp, Blueprint):
            app.register_blueprint(bp, url_prefix=bp.url_prefix or PREFIX)
