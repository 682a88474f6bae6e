"""The index from the specification to the code: `make spec`.

Prints the view that implements each operation of the Client-Server API and the Server-Server API,
the operations without a view, and all deviations (`# Deviates:`) and gaps (`# Todo:`) marked in the
code. Exits with 1 if a docstring or comment cites an anchor that the pinned specification lacks, or
if an operation of the Client-Server API has no view.
"""

from __future__ import annotations

import csv
import functools
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, Rule

from homebody import admin_api, client_server, server_server, web
from homebody.config import settings
from homebody.spec.signing import SigningKey
from homebody.storage.database import Server
from homebody.web import Application, admin_pages, blueprints, oauth, sign_on_pages

ROOT = Path(__file__).parents[2]
PINNED = ROOT / "tests/vectors/spec"
APIS = ("client-server", "server-server")
REFERENCE = re.compile(r"(?<![\w./#-])([a-z][\w./-]*)#([\w.-]*\w)")
COMPLETE = "client-server"
"""The API of which each operation has a view."""
MARK = re.compile(r"#\s*(Deviates|Todo):\s*(.+)")
BEFORE_A_DOCSTRING = {
    *(tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING),
}


@dataclass(frozen=True)
class Line:
    """A line of prose in the code: of a docstring or a comment."""

    path: Path
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.text.strip()}"


@dataclass(frozen=True)
class Operation:
    """An operation of the specification. `view` is empty, or `file:line function`."""

    api: str
    method: str
    path: str
    names: str
    area: str
    view: str = ""

    def __str__(self) -> str:
        return f"{self.method:<7} {self.path}  {self.names}"


def prose(path: Path, root: Path = ROOT) -> Iterator[Line]:
    """Yield the docstrings and comments of a module, line by line."""
    before = tokenize.ENCODING
    readline = io.BytesIO(path.read_bytes()).readline
    for token in tokenize.tokenize(readline):
        is_docstring = token.type == tokenize.STRING and before in BEFORE_A_DOCSTRING
        if is_docstring or token.type == tokenize.COMMENT:
            for offset, text in enumerate(token.string.splitlines()):
                yield Line(path.relative_to(root), token.start[0] + offset, text)
        before = token.type


def all_prose(root: Path = ROOT) -> Iterator[Line]:
    """Yield the docstrings and comments of the server."""
    for path in sorted((root / "app").rglob("*.py")):
        yield from prose(path, root)


@functools.cache
def anchors() -> set[str]:
    """Return all anchors that code can cite, as `document#anchor`."""
    return set((PINNED / "anchors.txt").read_text(encoding="utf-8").split())


def wrong_references(lines: Iterable[Line], known: set[str]) -> Iterator[str]:
    """Yield a message for each citation of an anchor that doesn't exist."""
    documents = {anchor.split("#")[0] for anchor in known}
    for line in lines:
        found = REFERENCE.findall(line.text)
        is_citation = "Spec: " in line.text
        if is_citation and not found:
            yield f"{line}\n    cites no document#anchor"
        for document, anchor in found:
            is_ours = is_citation or document in documents
            if is_ours and f"{document}#{anchor}" not in known:
                yield f"{line}\n    the specification has no {document}#{anchor}"


def marks(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the comments that mark a deviation or a gap, each with its continuation lines."""
    said: Line | None = None
    last = Line(Path(), 0, "")
    for line in lines:
        text = line.text.strip()
        goes_on = (line.path, line.number) == (last.path, last.number + 1) and text.startswith("#")
        if found := MARK.match(text):
            if said:
                yield said
            said = replace(line, text=f"{found[1]}: {found[2]}")
        elif said and goes_on:
            said = replace(said, text=f"{said.text} {text.strip('# ')}")
        elif said:
            yield said
            said = None
        last = line
    if said:
        yield said


def operations() -> list[Operation]:
    """Return the operations of both APIs, without their views; each path and method once."""
    found: dict[tuple[str, str], Operation] = {}
    with (PINNED / "endpoints.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            key = (row["method"], row["path"])
            if row["api"] in APIS and key in found:
                names = f"{found[key].names}, {row['operationId']}"
                found[key] = replace(found[key], names=names)
            elif row["api"] in APIS:
                found[key] = Operation(row["api"], *key, row["operationId"], row["area"])
    return list(found.values())


def rule_of(adapter: MapAdapter, operation: Operation) -> Rule | None:
    """Return the rule that serves an operation, if there is one."""
    sample = re.sub(r"\{(\w+)\}", r"\1", operation.path)
    try:
        rule, _ = adapter.match(sample, operation.method, return_rule=True)
    except HTTPException:
        return None
    return rule


def with_views(app: Flask, wanted: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the operations, with the views that implement them."""
    adapter = app.url_map.bind("localhost")
    for operation in wanted:
        rule = rule_of(adapter, operation)
        yield operation if rule is None else replace(operation, view=view_of(app, rule.endpoint))


def view_of(app: Flask, endpoint: str) -> str:
    """Return the location of a view, `client_server/login.py:45 login`."""
    code = inspect.unwrap(app.view_functions[endpoint]).__code__
    path = Path(code.co_filename).relative_to(ROOT)
    return f"{path}:{code.co_firstlineno} {code.co_name}"


def is_named_otherwise(operation: Operation) -> bool:
    """Return whether a view's name differs from the operationId in snake_case.

    Where a word ends is a matter of taste: `get_account_3pids` is getAccount3PIDs, `sync_` is sync.
    """
    view = operation.view.rpartition(" ")[2].replace("_", "")
    return bool(view) and view not in operation.names.replace("_", "").lower().split(", ")


_REGISTER = blueprints.register  # tests replace that of the module


def server(*, federation: bool = True) -> Application:
    """Return an application that has routes and nothing else."""
    app = web.Application("homebody", static_folder=None)
    web.register(
        app,
        Server("localhost", SigningKey.from_seed("a_0", bytes(32)), settings.load(None, {}, {})),
    )
    _REGISTER(app, client_server)
    _REGISTER(app, admin_api)
    _REGISTER(app, admin_pages)
    _REGISTER(app, oauth)
    _REGISTER(app, sign_on_pages)
    if federation:
        _REGISTER(app, server_server)
    return app


def print_index(found: list[Operation], admitted: list[Line]) -> None:
    """Print the index."""
    for operation in found:
        if operation.view:
            note = "  (under another name)" if is_named_otherwise(operation) else ""
            print(f"{operation}\n        {operation.view}{note}")
    missing = [operation for operation in found if not operation.view]
    print(f"\nNot supported yet, {len(missing)} of {len(found)} operations:")
    for operation in missing:
        print(f"  {operation}  ({operation.area})")
    print(f"\nDeviations and gaps, {len(admitted)}:")
    for line in admitted:
        print(f"  {line}")


def main() -> int:
    """Print the index; return the exit code."""
    lines = list(all_prose())
    found = list(with_views(server(), operations()))
    print_index(found, list(marks(lines)))
    wrong = list(wrong_references(lines, anchors()))
    print(f"\nWrong references, {len(wrong)}:")
    for sentence in wrong:
        print(f"  {sentence}")
    missing = [one for one in found if not one.view and one.api == COMPLETE]
    print(f"\nOperations without a view, {len(missing)}:")
    for operation in missing:
        print(f"  {operation}")
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main())
