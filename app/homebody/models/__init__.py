"""The tables: columns, constraints and indexes, without behaviour."""

from __future__ import annotations

import importlib
import pkgutil

from sqlalchemy import MetaData

from homebody.models.base import Base


def all_tables() -> MetaData:
    """Return the tables of all modules, for Alembic to compare with the database."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return Base.metadata
