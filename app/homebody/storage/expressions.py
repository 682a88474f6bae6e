"""What statements need beyond SQLAlchemy Core: lists as one parameter, and joins in a fixed order.

These are the only places that know how SQLite spells them; PostgreSQL has its own spelling of each
(jsonb_array_elements, LATERAL joins, plain columns).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    ColumnExpressionArgument,
    Dialect,
    FromClause,
    Join,
    TableValuedAlias,
    and_,
    bindparam,
    func,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import UserDefinedType

from homebody.models.base import Base
from homebody.models.state import StateInterval
from homebody.storage.statements import to_json

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`, so that statements and transactions are short."""
    every = list(items)
    for at in range(0, len(every), size):
        yield every[at : at + size]


def listed(name: str) -> TableValuedAlias:
    """Return the elements of the list parameter `name` as rows with the column `value`.

    The parameter takes any iterable. It is one value for the database, however long the list is,
    so the statement is compiled once.
    """
    return func.json_each(bindparam(name, type_=_List())).table_valued("value")


def item(rows: TableValuedAlias, index: int) -> ColumnElement[Any]:
    """Return one element of each row of `listed`, where the list is one of lists."""
    return func.json_extract(rows.c.value, literal_column(f"'$[{index}]'"))


def in_order(
    first: FromClause | type[Base],
    second: FromClause | type[Base],
    on: ColumnExpressionArgument[bool],
) -> FromClause:
    """Join two tables, and keep SQLite from reading the second one first."""
    return _CrossJoin(first, second, on)


def unindexed(column: ColumnExpressionArgument[Any]) -> ColumnElement[Any]:
    """Return a column by which SQLite should not choose an index."""
    return UnaryExpression(column, operator=custom_op("+"))  # type: ignore[arg-type]


def contains(column: ColumnExpressionArgument[Any], text: str) -> ColumnElement[bool]:
    """Return whether a column contains a text, in capitals or not (of ASCII).

    In place of LIKE, which has wildcards, and refuses long patterns.
    """
    return func.instr(func.lower(column), func.lower(text)) > 0


def in_effect(
    interval: type[StateInterval],
    position: ColumnElement[int],
    *,
    is_end_indexed: bool = True,
) -> ColumnElement[bool]:
    """Return the condition that an interval of a room's state contains a position.

    With `is_end_indexed=False` SQLite does not choose an index by the end of the interval: where
    few rows are left otherwise, it would read all members of the room.
    """
    end = interval.to_position if is_end_indexed else unindexed(interval.to_position)
    return and_(interval.from_position <= position, end > position)


class _List(UserDefinedType[Iterable[object]]):
    """A list, sent to the database as one JSON array."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        return to_json


class _CrossJoin(Join):
    inherit_cache = True


@compiles(_CrossJoin)
def _compile_cross_join(join: _CrossJoin, compiler: SQLCompiler, **options: Any) -> str:
    options["asfrom"] = True
    parts = (compiler.process(part, **options) for part in (join.left, join.right))
    condition = cast("ColumnElement[bool]", join.onclause)
    return f"{' CROSS JOIN '.join(parts)} ON {compiler.process(condition, **options)}"
