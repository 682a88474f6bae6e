"""The base of all table classes.

Partial indexes only have sqlite_where: SQLAlchemy loads the dialect named in every such argument,
and PostgreSQL's takes 4 MB.
"""

from __future__ import annotations

from typing import Any, ClassVar, NewType

from sqlalchemy import JSON, BigInteger, Integer, MetaData, Text
from sqlalchemy.orm import DeclarativeBase

Json = dict[str, Any]
EventNumber = NewType("EventNumber", int)
"""Which event: the key of the table events. Positions say where an event stands."""

NOW_AND_LATER = 2**63 - 1
"""`to_position` of a current interval."""


class Base(DeclarativeBase):
    """Base of the table classes. They describe tables; rows are read as tuples."""

    metadata = MetaData(
        naming_convention={  # Alembic can only drop constraints with names
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        # SQLite's integers have 64 bits anyway, and only an INTEGER key is the rowid
        int: BigInteger().with_variant(Integer, "sqlite"),
        EventNumber: BigInteger().with_variant(Integer, "sqlite"),
        str: Text(),
        Json: JSON(),
        list[Any]: JSON(),
    }
