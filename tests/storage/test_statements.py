"""Statements that are compiled once say the same as those that SQLAlchemy runs itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    BindParameter,
    Column,
    Executable,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import Boolean as Bool
from sqlalchemy.dialects import sqlite

from homebody import core
from homebody.storage.statements import Compiled, Sql

THING = Table(
    "things",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("name", Text),
    Column("content", JSON),
    Column("is_good", Bool),
)
ROWS: list[dict[str, Any]] = [
    {"number": 1, "name": "one", "content": {"a": [1]}, "is_good": True},
    {"number": 2, "name": "two'); DROP", "content": [], "is_good": False},
    {"number": 3, "name": None, "content": {}, "is_good": None},
]
NUMBERS: BindParameter[Any] = bindparam("numbers", expanding=True)
QUERIES: list[tuple[Executable, dict[str, Any]]] = [
    (select(THING).order_by(THING.c.number), {}),
    (select(THING).where(THING.c.number == bindparam("is")), {"is": 2}),
    (select(THING.c.name).where(THING.c.number.in_(NUMBERS)), {"numbers": [3, 1]}),
    (select(THING.c.name).where(THING.c.number.in_(NUMBERS)), {"numbers": []}),
    (select(THING.c.name).where(THING.c.number.not_in(NUMBERS)), {"numbers": (1,)}),
    (select(THING.c.number).where(THING.c.name.in_(("one", "1"))).limit(5), {}),
    (select(THING.c.number).where(THING.c.is_good.is_(True)), {}),
    (select(THING.c.number).where(THING.c.is_good == bindparam("so")), {"so": False}),
    (select(THING.c.content, func.count().label("many")).group_by(THING.c.number), {}),
    (update(THING).where(THING.c.number == bindparam("n")).values(name="x"), {"n": 1}),
    (update(THING).values(content=bindparam("new")).returning(THING), {"new": {"b": 1}}),
    (delete(THING).where(THING.c.number > bindparam("n")), {"n": 1}),
]


@pytest.fixture
def sql() -> Iterator[Sql]:
    engine = create_engine("sqlite://", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        THING.metadata.create_all(connection)
        connection.execute(insert(THING), ROWS)
        yield Sql(connection)
    engine.dispose()


@pytest.mark.parametrize(("query", "values"), QUERIES)
def test_a_compiled_statement_finds_the_same(
    sql: Sql, query: Executable, values: dict[str, Any]
) -> None:
    assert Compiled(query, tuple(values)).is_whole
    sql.raw.execute("BEGIN")
    by_sqlalchemy = sql.execute(query, values)
    sql.raw.execute("ROLLBACK")

    compiled = sql.execute(query, values)

    assert compiled.rowcount == by_sqlalchemy.rowcount
    assert compiled.mappings() == by_sqlalchemy.mappings()


def test_an_insert_takes_the_columns_that_it_is_given(sql: Sql) -> None:
    statement = insert(THING)
    for number in (10, 11):
        sql.execute(statement, {"number": number, "content": {"n": number}, "is_good": True})
    sql.execute(statement, {"number": 12, "name": "twelve"})
    sql.execute(statement, [{"number": 13, "name": "a"}, {"number": 14, "name": "b"}])

    found = sql.execute(select(THING).where(THING.c.number > 9).order_by(THING.c.number))

    assert [tuple(row) for row in found] == [
        (10, None, {"n": 10}, True),
        (11, None, {"n": 11}, True),
        (12, "twelve", None, None),
        (13, "a", None, None),
        (14, "b", None, None),
    ]


def test_for_no_values_nothing_is_done(sql: Sql) -> None:
    assert sql.execute(insert(THING), []).rowcount == 0


def test_the_first_list_may_be_longer_than_the_parameters_that_sqlite_takes(sql: Sql) -> None:
    query = select(THING.c.name).where(THING.c.number.in_(NUMBERS))

    found = sql.execute(query, {"numbers": range(1, 400_000)})

    assert found.scalars().all() == ["one", "two'); DROP", None]


def test_what_is_there_already_may_be_replaced(sql: Sql) -> None:
    new = sqlite.insert(THING)
    statement = new.on_conflict_do_update(
        index_elements=["number"], set_={"name": new.excluded.name}
    )
    for name in ("first", "second", "third"):
        sql.execute(statement, {"number": 1, "name": name})

    named = sql.execute(select(THING.c.name).where(THING.c.number == 1))

    assert named.scalar_one() == "third"


def test_a_value_that_is_missing_is_an_error(sql: Sql) -> None:
    statement = select(THING).where(THING.c.number == bindparam("n"))
    sql.execute(statement, {"n": 1})

    with pytest.raises(Exception, match="n"):
        sql.execute(statement, {"m": 1})


def test_all_statements_made_at_import_are_compiled() -> None:
    slow = [
        f"{module.name}.{name}"
        for module in pkgutil.walk_packages(core.__path__, "homebody.core.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, Executable) and not Compiled(value, ()).is_whole
    ]

    assert not slow
