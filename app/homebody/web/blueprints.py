"""The views of an API: a package with a module for each chapter of the specification."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from flask import Blueprint, Flask


def register(app: Flask, package: ModuleType) -> None:
    """Register the blueprints of every module of a package.

    Their paths are below its `PREFIX`, except those of blueprints with a prefix of their own.
    """
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for bp in vars(module).values():
            if isinstance(bp, Blueprint):
                app.register_blueprint(bp, url_prefix=bp.url_prefix or package.PREFIX)
