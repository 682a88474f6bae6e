"""Statements are SQLAlchemy Core's; each one that is written as text says why, and is in a list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import homebody
from tests.conftest import ROOT

PACKAGE = Path(homebody.__file__).parent
LIST = ROOT / "docs" / "decisions" / "0014-raw-sql.md"
MARK = "# Raw SQL:"
STATEMENT = re.compile(
    r"\s*(?:SELECT\s|INSERT\s(?:OR\s\w+\s)?\s*INTO\s|REPLACE\s+INTO\s|UPDATE\s+\w+\s+SET\s"
    r"|DELETE\s+FROM\s|WITH\s+(?:RECURSIVE\s+)?\w+\s*(?:\(|AS\s))"
)
DIALECT = {"storage/expressions.py", "storage/statements.py"}
"""The only modules that know how SQLite spells a list as a parameter."""


def modules() -> list[Path]:
    """Every module of the server."""
    return sorted(PACKAGE.rglob("*.py"))


def raw(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each string in a module that is a statement of SQL, docstrings aside."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in prose:
            continue
        if isinstance(node.value, str) and STATEMENT.match(node.value):
            yield node.lineno, node.value


def is_marked(source: str, line: int) -> bool:
    """Whether the comment above the statement that has this line, or in it, gives a reason."""
    inside = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    statement = min(inside, key=lambda node: (node.end_lineno or 0) - node.lineno)
    lines = source.splitlines()
    above = statement.lineno - 1
    while above and lines[above - 1].strip().startswith("#"):
        above -= 1
    return any(MARK in it for it in lines[above : statement.end_lineno])


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_each_statement_written_as_text_gives_a_reason() -> None:
    sources = {name_of(path): path.read_text("utf-8") for path in modules()}

    unmarked = [
        f"{name}:{line}: {text[:60]}"
        for name, source in sources.items()
        if name not in DIALECT
        for line, text in raw(source)
        if not is_marked(source, line)
    ]

    assert unmarked == []


def test_the_list_has_each_module_with_statements_written_as_text() -> None:
    listed = re.findall(r"^\| `([\w/.]+)` \|", LIST.read_text("utf-8"), re.MULTILINE)

    found = [name_of(path) for path in modules() if any(raw(path.read_text("utf-8")))]

    assert listed == [name for name in found if name not in DIALECT]


def test_only_one_module_knows_how_a_list_becomes_rows() -> None:
    knowing = [name_of(path) for path in modules() if "json_each" in path.read_text("utf-8")]

    assert set(knowing) == DIALECT


@pytest.mark.parametrize(
    ("source", "is_found", "is_explained"),
    [
        ('A = "SELECT 1 FROM x"\n', True, False),
        ('# Raw SQL: for a test\nA = "SELECT 1 FROM x"\n', True, True),
        ('# other\n\nA = text(\n    # Raw SQL: for a test\n    "DELETE FROM x"\n)\n', True, True),
        ('# Raw SQL: for another\n\nA = "UPDATE x SET y = 1"\n', True, False),
        ('A = f"INSERT OR REPLACE INTO x {y}"\n', True, False),
        ('A = "WITH RECURSIVE x(y) AS (VALUES (1))"\n', True, False),
        ('"""SELECT what you like."""\nA = "select it"\n', False, False),
    ],
)
def test_the_rule_finds_statements(source: str, *, is_found: bool, is_explained: bool) -> None:
    found = [line for line, _ in raw(source)]

    assert bool(found) is is_found
    assert [is_marked(source, line) for line in found] == [is_explained] * len(found)
