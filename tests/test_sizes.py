"""Modules and functions are short, as CONTRIBUTING.md asks for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import homebody

PACKAGE = Path(homebody.__file__).parent
MODULE_LINES = 450
FUNCTION_LINES = 40
"""Of the 99th percentile: what counts is that long functions are rare."""


def sources() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8")


def function_lengths(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of lines of each function, with its docstring, and its name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or 0) - node.lineno + 1, f"{name}: {node.name}"


def test_no_module_is_long() -> None:
    lengths = [(len(text.splitlines()), name) for name, text in sources()]

    too_long = [(lines, name) for lines, name in lengths if lines > MODULE_LINES]

    assert lengths
    assert too_long == []


def test_long_functions_are_rare() -> None:
    lengths = sorted(it for source in sources() for it in function_lengths(*source))

    rest = lengths[int(0.99 * len(lengths)) :]

    assert rest[0][0] <= FUNCTION_LINES, rest


def test_the_lines_of_a_function_are_counted_with_its_docstring() -> None:
    text = (
        'def a() -> int:\n    """Return 1."""\n    return 1\n\n\nclass B:\n    def b(self): ...\n'
    )

    lengths = sorted(function_lengths("x.py", text))

    assert lengths == [(1, "x.py: b"), (3, "x.py: a")]
