"""Rules of the house that a machine can check: imports point one way, each table has its writer."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from homebody import models
from homebody.models.base import Base

APP = Path(models.__file__).parents[1]

ORDER = [
    "errors",
    "spec",
    "models",
    "config",
    "runtime",
    "storage",
    "outside",
    "core",
    "core.user_data",
    "core.accounts",
    "core.events",
    "core.appservices",
    "core.encryption",
    "core.push",
    "core.media",
    "core.timeline",
    "core.profiles",
    "core.sessions",
    "core.oauth",
    "core.sign_on",
    "core.ephemeral",
    "core.rooms",
    "core.federation",
    "core.administration",
    "core.sync",
    "core.sliding_sync",
    "core.legacy",
    "background",
    "doctor",
    "context",
    "client_server",
    "server_server",
    "admin_api",
    "web",
    "application",
    "server",
    "cli",
    "__main__",
]
"""All folders and modules of the package from bottom to top: each may import itself and those above
it in this list. `core` stands for the modules that lie in it directly."""

WEB = {"flask", "werkzeug", "gunicorn"}
MUST_NOT_IMPORT = {
    # no Flask, SQL, clock, network, randomness
    "spec": WEB
    | {"sqlalchemy", "sqlite3", "gevent", "threading", "logging", "os", "pathlib", "io"}
    | {"time", "datetime", "random", "secrets", "uuid", "socket", "urllib.request", "http"},
    "models": WEB | {"gevent", "sqlite3"},
    "core": WEB | {"sqlite3", "urllib.request", "http.client"},
    "outside": WEB | {"sqlalchemy", "sqlite3"},
    "background": WEB | {"sqlalchemy", "sqlite3", "gevent"},
    "client_server": {"homebody.models", "sqlalchemy", "sqlite3", "urllib.request", "http.client"},
    "admin_api": {"homebody.models", "sqlalchemy", "sqlite3", "urllib.request", "http.client"},
    "server_server": {"homebody.models", "sqlalchemy", "sqlite3", "urllib.request", "http.client"},
    "web": {"homebody.models", "sqlalchemy", "sqlite3", "urllib.request", "http.client"},
}
"""What comes from elsewhere, or lies below, and has no place in a part."""

WRITES = {"insert", "update", "delete"}


def modules() -> list[Path]:
    """Every module of the server."""
    found = sorted(APP.rglob("*.py"))
    assert len(found) > 80
    return found


def part_of(name: str) -> str:
    """Return the entry of ORDER to which a module of this full name belongs, or what is in it."""
    parts = name.removeprefix("homebody.").split(".")
    folder = ".".join(parts[:2])
    return folder if folder in ORDER else parts[0]


def name_of(path: Path) -> str:
    """Return the full name of a module."""
    parts = path.relative_to(APP.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of what a module imports, also for type checkers only or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(tree: ast.AST, part: str) -> set[str]:
    """What a module of this part must not import, and does."""
    wrong = set()
    outermost = part.partition(".")[0]
    for name in imported(tree):
        is_ours = name.split(".")[0] == "homebody"
        if (is_ours and ORDER.index(part_of(name)) > ORDER.index(part)) or any(
            f"{name}.".startswith(f"{no}.") for no in MUST_NOT_IMPORT.get(outermost, ())
        ):
            wrong.add(name)
    return wrong


@pytest.mark.parametrize("part", ORDER)
def test_imports_point_one_way(part: str) -> None:
    paths = [path for path in modules() if part_of(name_of(path)) == part]

    wrong = {path.name: wrong_imports(ast.parse(path.read_text("utf-8")), part) for path in paths}

    assert paths
    assert {name: names for name, names in wrong.items() if names} == {}


def test_every_part_has_its_place() -> None:
    parts = {part_of(name_of(path)) for path in modules()}

    assert parts - {"homebody"} == set(ORDER)  # the package itself imports nothing


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("spec", "from homebody.storage import database"),
        ("spec", "import time"),
        ("spec", "from urllib import request"),
        ("spec", "if TYPE_CHECKING:\n    from homebody.core.rooms import state"),
        ("models", "from homebody.core import ratelimits"),
        ("core", "def f():\n    from flask import g"),
        ("core", "import homebody.client_server.http"),
        ("client_server", "from homebody.models.rooms import Room"),
        ("client_server", "from sqlalchemy import select as choose"),
    ],
)
def test_an_import_against_the_rule_is_seen(part: str, code: str) -> None:
    assert wrong_imports(ast.parse(code), part)


def tables() -> dict[str, tuple[str, set[Path]]]:
    """By class: (name of the table, the modules that its docstring names as its writers)."""
    models.all_tables()
    found = {}
    for mapper in Base.registry.mappers:
        words = " ".join((mapper.class_.__doc__ or "").split())
        told = re.search(r"(?:Written by|Only) ((?:[\w/]+\.py(?:, | and )?)+)", words)
        assert told, f"{mapper.class_.__name__} doesn't say which module writes it"
        names = re.findall(r"[\w/]+\.py", told.group(1))
        folder = (APP / names[0]).parent  # "core/timeline/store.py and redactions.py"
        writers = {APP / name if "/" in name else folder / name for name in names}
        found[mapper.class_.__name__] = (str(mapper.local_table), writers)
    return found


def written(tree: ast.AST, classes: set[str]) -> set[str]:
    """The tables, by class, for which a module makes statements that write."""
    names = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function, target = node.func, node.args[0]
        called = function.attr if isinstance(function, ast.Attribute) else None
        called = names.get(function.id) if isinstance(function, ast.Name) else called
        aimed = target.attr if isinstance(target, ast.Attribute) else None
        aimed = names.get(target.id) if isinstance(target, ast.Name) else aimed
        if called in WRITES and aimed in classes:
            found.add(aimed)
    return found


def written_in_words(tree: ast.AST, names: set[str]) -> set[str]:
    """The tables, by name, that SQL in plain text writes."""
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    statement = re.compile(r"\b(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE|DELETE\s+FROM)\s+(\w+)")
    return {name for text in texts for name in statement.findall(text)} & names


def test_each_table_is_written_by_the_modules_that_it_names() -> None:
    known = tables()
    class_of = {table: name for name, (table, _) in known.items()}
    writers: dict[str, set[Path]] = defaultdict(set)
    for path in modules():
        tree = ast.parse(path.read_text("utf-8"))
        by_words = {class_of[table] for table in written_in_words(tree, set(class_of))}
        for name in written(tree, set(known)) | by_words:
            writers[name].add(path)

    assert writers == {name: told for name, (_, told) in known.items()}


@pytest.mark.parametrize(
    "code",
    [
        "from sqlalchemy import insert\nfrom homebody.models.rooms import Room\ninsert(Room)",
        "from sqlalchemy import delete as no\nfrom homebody.models.rooms import Room as R\nno(R)",
        "import sqlalchemy as sa\nfrom homebody.models import rooms\nsa.update(rooms.Room)",
    ],
)
def test_a_statement_that_writes_is_seen(code: str) -> None:
    assert written(ast.parse(code), {"Room"}) == {"Room"}


def test_sql_in_words_is_seen() -> None:
    assert written_in_words(ast.parse('x = "UPDATE rooms SET a = 1"'), {"rooms"}) == {"rooms"}
