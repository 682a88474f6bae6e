"""The table of all routes: `make routes`.

A line for each method and path: whether it needs an access token, whether guests, suspended and
locked users may use it, the rate limits that it may count under, its anchor in the specification,
and its view. What a view declares comes from its decorator, see client_server/authentication.py;
`server` in place of a token is the signature of another server, see
server_server/authentication.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import homebody
from homebody import admin_api, client_server, server_server, web
from homebody.client_server import authentication
from homebody.client_server.authentication import Access
from homebody.web import Application
from tests.tools import spec_index

PACKAGE = Path(homebody.__file__).parent
VIEWS = tuple(it.__name__ for it in (admin_api, client_server, server_server, web))
METHODS = ("GET", "PUT", "POST", "DELETE")
CHANGES = "rc_writes"
OF_SERVERS = "rc_federation"
DOCUMENTS = ("client-server-api", "application-service-api", "server-server-api")
"""Where operations of clients and servers are described."""


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    view: Callable[..., object]
    access: Access
    limits: tuple[str, ...]
    anchor: str

    @property
    def name(self) -> str:
        """Module and name of the view."""
        return f"{self.view.__module__.rpartition('.')[2]}.{self.view.__name__}"

    def cells(self) -> list[str]:
        """Return the line of the table."""
        access = self.access
        who: str = "service" if access.services_only else access.authentication
        who = "admin" if access.admins_only else who
        code = inspect.unwrap(self.view).__code__
        file = Path(code.co_filename).relative_to(PACKAGE)
        return [
            *(self.method, self.path, who),
            *map(_word, (access.guests, self.may_suspended, access.locked)),
            *(" ".join(self.limits) or "-", self.anchor or "-"),
            f"{file}:{code.co_firstlineno} {code.co_name}",
        ]

    @property
    def may_suspended(self) -> authentication.Allowed:
        """Whether suspended users may use it: they may always read."""
        return self.method in authentication.READING or self.access.suspended


def routes(app: Application) -> list[Route]:
    """Return all routes, in the order of their paths. Raises KeyError for undeclared views."""
    anchors = dict(_anchors(app))
    found = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        access = authentication.declared[view]
        for method in METHODS:
            if method in (rule.methods or ()):
                is_counted = method not in authentication.READING and not access.only_reads
                by_decorator = (CHANGES,) * is_counted
                if access.authentication == "server":
                    by_decorator = (OF_SERVERS,)
                limits = by_decorator + tuple(sorted(_limits(view, set()) - {CHANGES}))
                described = anchors.get((method, rule.rule), "")
                found.append(Route(method, rule.rule, view, access, limits, described))
    return sorted(found, key=lambda route: (route.path, METHODS.index(route.method)))


def anchor(method: str, path: str) -> str:
    """Return where the specification describes an operation, or "" if nowhere."""
    name = re.sub(r"[^\w-]", "", f"{method}{path}".lower())
    found = (f"{document}#{name}" for document in DOCUMENTS)
    return next((it for it in found if it in spec_index.anchors()), "")


def _anchors(app: Application) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((method, path of the rule), anchor) of each operation that is served."""
    adapter = app.url_map.bind("localhost")
    for operation in spec_index.operations():
        rule = spec_index.rule_of(adapter, operation)
        if rule is not None:
            yield (operation.method, rule.rule), anchor(operation.method, operation.path)


def _limits(function: Callable[..., object], seen: set[object]) -> set[str]:
    """Return the names of rate limits in a view and in what it calls of the views' modules."""
    function = inspect.unwrap(function)
    if function in seen or not isinstance(function, FunctionType):
        return set()
    seen.add(function)
    codes = list(_codes(function.__code__))
    names = {name for code in codes for name in code.co_names}
    texts = {text for code in codes for text in code.co_consts if isinstance(text, str)}
    found = {text for text in texts if re.fullmatch(r"rc_[a-z_.]+", text)}
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        is_module = isinstance(value, ModuleType) and value.__name__.startswith(VIEWS)
        for called in [vars(value).get(it) for it in names] if is_module else [value]:
            if getattr(called, "__module__", None) and called.__module__.startswith(VIEWS):
                found |= _limits(called, seen)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _word(allowed: authentication.Allowed) -> str:
    return allowed if isinstance(allowed, str) else ("yes" if allowed else "no")


def main() -> None:
    """Print the table."""
    head = ["method", "path", "token", "guests", "suspended", "locked", "rate limits"]
    lines = [
        [*head, "specification", "view"],
        *(route.cells() for route in routes(spec_index.server())),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    print("\nPaths below /_matrix/client/v3 are served below r0, unstable and v2_alpha as well.")


if __name__ == "__main__":
    main()
