"""Running statements on SQLite: compiled once, then without SQLAlchemy's overhead.

Statements are SQLAlchemy's, built once at import. Its own execution costs 30 µs, mostly for work
with the same result each time; a send runs four statements, which took a third of its CPU. So a
statement that is run for the second time is compiled for good: its SQL, the conversions of its
values, and a tuple class for its rows. Statements built for one request, as their conditions
depend on a filter, are run by SQLAlchemy.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import URL, BindParameter, Connection, Executable, Integer, String, Text
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.types import TypeEngine

from homebody.storage import long_reads

Values = Mapping[str, Any]
Processor = Callable[[Any], Any]
_IN_JSON: Final = (Text, String, Integer)
"""Types whose values JSON represents unchanged."""


def sqlite_url(url: str) -> URL:
    """Return the URL of an SQLite database.

    In a string, SQLAlchemy would take everything after a ? for options and open another file.
    """
    return URL.create("sqlite", database=url.removeprefix("sqlite:///"))


def to_json(value: object) -> str:
    """Return what a JSON column, or a list as one parameter, holds; any collection is a list."""
    return orjson.dumps(value, default=list).decode()


DIALECT: Final = sqlite.dialect(
    paramstyle="named", json_serializer=to_json, json_deserializer=orjson.loads
)


class Scalars(list[Any]):
    """The first column of a result."""

    def all(self) -> list[Any]:
        """Return all of it."""
        return self

    def first(self) -> Any:
        """Return the value of the first row, or None."""
        return self[0] if self else None


class Result(list[Any]):
    """The rows of a statement, as tuples with names; of one that returns none, how many changed."""

    __slots__ = ("rowcount",)
    rowcount: int

    def all(self) -> list[Any]:
        """Return all rows."""
        return self

    def first(self) -> Any:
        """Return the first row, or None."""
        return self[0] if self else None

    def one(self) -> Any:
        """Return the row; ValueError where there is not just one."""
        (row,) = self
        return row

    def scalar(self) -> Any:
        """Return the first column of the first row, or None."""
        return self[0][0] if self else None

    def scalar_one(self) -> Any:
        """Return the first column of the row; ValueError where there is not just one row."""
        return self.one()[0]

    def scalars(self) -> Scalars:
        """Return the first column of each row."""
        return Scalars([row[0] for row in self])

    def mappings(self) -> list[dict[str, Any]]:
        """Return the rows as {column: value}."""
        return [row._asdict() for row in self]


class Sql:
    """A connection to the database that runs statements: `tx.sql`."""

    __slots__ = ("connection", "raw", "seconds")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.seconds = 0.0
        """How long all statements so far took, with fetching their rows."""
        self.raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)

    def execute(self, statement: Executable, values: Values | list[Any] | None = None) -> Result:
        """Run a statement, or an INSERT, UPDATE or DELETE once for each of a list of values.

        Raises sqlite3.Error, or SQLAlchemy's DBAPIError around it.
        """
        if isinstance(values, list):
            if not values:
                nothing = Result()
                nothing.rowcount = 0
                return nothing
            first, many = values[0], values
        else:
            first, many = values or {}, None
        known = _compiled.get(statement)
        if known is None:
            known = _compiled[statement] = {}
            if not any(map(_is_long, first.values())):
                return self._by_sqlalchemy(statement, values)
        keys = tuple(first) if isinstance(statement, UpdateBase) else ()
        compiled = known.get(keys)
        if compiled is None:
            compiled = known[keys] = Compiled(statement, keys)
        if not compiled.is_whole:
            return self._by_sqlalchemy(statement, values)
        began = monotonic()
        if many is not None:
            cursor = self.raw.executemany(compiled.sql, map(compiled.bind, many))
        else:
            cursor = self.raw.execute(compiled.sql, compiled.bind(first))
        result = Result(compiled.rows(cursor) if cursor.description else ())
        result.rowcount = len(result) if cursor.description else cursor.rowcount
        self.seconds += monotonic() - began
        return result

    def compiled(self, query: Executable) -> Compiled:
        """Return a query compiled for `raw`."""
        known = _compiled.setdefault(query, {})
        if () not in known:
            known[()] = Compiled(query, ())
        return known[()]

    def execute_long(self, statement: Executable, values: Values) -> list[Any]:
        """Return the rows of a statement that may take seconds, while other requests go on.

        Not for a write, in which nothing may wait. Raises as long_reads.fetch does.
        """
        began, compiled = monotonic(), self.compiled(statement)
        try:
            return long_reads.fetch(self.raw, compiled.sql, compiled.bind(values), compiled.rows)
        finally:
            self.seconds += monotonic() - began

    def _by_sqlalchemy(self, statement: Executable, values: Values | list[Any] | None) -> Result:
        began = monotonic()
        done = self.connection.execute(statement, cast("Any", values))
        names = _row_class(list(done.keys())) if done.returns_rows else None
        result = Result([names(row) for row in done] if names is not None else ())
        result.rowcount = len(result) if done.returns_rows else done.rowcount
        self.seconds += monotonic() - began
        return result


def _is_long(value: object) -> bool:
    """Return whether SQLAlchemy would pass a list in too many parameters: one for each element."""
    return isinstance(value, Collection) and not isinstance(value, str) and len(value) > 1000


class Compiled:
    """A statement compiled for SQLite."""

    __slots__ = ("_bound", "_fixed", "_read", "_row", "is_whole", "sql")

    def __init__(self, statement: Executable, keys: tuple[str, ...]) -> None:
        made = cast("ClauseElement", statement).compile(
            dialect=DIALECT, column_keys=list(keys) or None
        )
        compiled = cast("SQLCompiler", made)
        self.sql = compiled.string
        self._bound: dict[str, Processor] = {}
        self._fixed: dict[str, Any] = {}
        for name, bind in compiled.binds.items():
            if bind in compiled.post_compile_params:
                self._take_list(name, bind)
            else:
                self._take(name, bind)
        self.is_whole = not (
            "POSTCOMPILE" in self.sql
            or compiled.literal_execute_params
            or compiled.escaped_bind_names
            or (compiled.isinsert and compiled.insert_prefetch)
            or (compiled.isupdate and compiled.update_prefetch)
        )
        """Whether the SQL is the same for all values."""
        self._row: Any = None
        columns = getattr(statement, "exported_columns", ())
        found = enumerate(_impl(column.type).result_processor(DIALECT, None) for column in columns)
        self._read: list[tuple[int, Processor]] = [(at, it) for at, it in found if it is not None]

    def _take(self, name: str, bind: BindParameter[Any]) -> None:
        """Add a parameter with one value: passed with each execution, or fixed."""
        process = _impl(bind.type).bind_processor(DIALECT)
        if bind.required and process is not None:
            self._bound[name] = process
        elif not bind.required:
            value = bind.effective_value
            self._fixed[name] = value if process is None else process(value)

    def _take_list(self, name: str, bind: BindParameter[Any]) -> None:
        """Add the values of an `in_()`: those passed with each execution are one JSON array."""
        place = f"__[POSTCOMPILE_{name}]"
        if not bind.required:
            parts = {f"{name}_{at}": one for at, one in enumerate(bind.effective_value or ())}
            if parts:
                self._fixed |= parts
                self.sql = self.sql.replace(place, ", ".join(f":{part}" for part in parts))
        elif isinstance(bind.type, _IN_JSON):
            self._bound[name] = to_json
            listed = f"SELECT value FROM json_each(:{name})"  # noqa: S608 - the name is our own
            self.sql = self.sql.replace(place, listed)

    def bind(self, values: Values) -> dict[str, Any]:
        """Return all parameters, converted for SQLite."""
        bound = {**self._fixed, **values}
        for name, process in self._bound.items():
            if name in values:
                bound[name] = process(values[name])
        return bound

    def rows(self, cursor: sqlite3.Cursor) -> list[Any]:
        """Return the rows of a cursor as named tuples."""
        if self._row is None:
            self._row = _row_class([column[0] for column in cursor.description])
        found = cursor.fetchall()
        if self._read:
            found = [self._converted(row) for row in found]
        return list(map(self._row, found))

    def _converted(self, row: tuple[Any, ...]) -> list[Any]:
        converted = list(row)
        for at, process in self._read:
            converted[at] = process(converted[at])
        return converted


_compiled: Final[WeakKeyDictionary[Executable, dict[tuple[str, ...], Compiled]]] = (
    WeakKeyDictionary()
)
"""By statement and, for INSERT and UPDATE, the names of its values."""
_row_classes: Final[dict[tuple[str, ...], Any]] = {}


def _row_class(names: Sequence[str]) -> Any:
    """Return a function that makes a named tuple of a row, cached by its columns."""
    key = tuple(names)
    if key not in _row_classes:
        _row_classes[key] = partial(tuple.__new__, namedtuple("Row", key, rename=True))
    return _row_classes[key]


def _impl(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return kind.dialect_impl(DIALECT)
