"""Removing from HTML what makes it slow to parse.

By the rules with which browsers repair HTML, a parser looks through all open elements for each new
one, and reopens in each paragraph what was bold before it: half a megabyte of `<div>` takes half a
minute, and some thousand `<b>` that are never closed fill the memory. All other requests share the
processor with that. So this keeps only the elements that a preview needs, and of those that can be
nested no more than real pages have.

All patterns are linear in the length of the page: each match that begins also ends, at the latest
with the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_NESTING: Final = 500
"""Nested elements that are kept; further ones are removed."""

_TAG: Final = re.compile(
    r"<!--.*?(?:-->|\Z)"
    # elements that hold text only, in which nothing is a tag
    r"|<(?P<raw>script|style|textarea|xmp|iframe|noembed|noframes)(?=[\s/>]).*?"
    r"(?:</(?P=raw)(?=[\s/>])[^>]*+(?:>|\Z)|\Z)"
    r"|<plaintext.*"
    r"|(?P<title><title(?=[\s/>]).*?(?:</title(?=[\s/>])|\Z))"
    r"|</?(?P<name>[a-z][^\s/>]*+)"
    r"""(?:=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))|[^>])*+(?:>|\Z)""",
    re.IGNORECASE | re.DOTALL,
)
_FLAT: Final = frozenset({"html", "head", "body", "title", "meta", "link", "base", "p"})
"""Elements that can't be nested in one of their own kind."""
_NESTING: Final = frozenset({"h1", "nav", "header", "footer", "svg", "template", "noscript"})
_INSIDE_PARAGRAPHS: Final = frozenset(
    {
        *("a", "abbr", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "dfn", "em", "font"),
        *("i", "img", "input", "kbd", "label", "mark", "nobr", "picture", "q", "rp", "rt", "ruby"),
        *("s", "samp", "small", "source", "span", "strike", "strong", "sub", "sup", "time", "tt"),
        *("u", "var", "wbr"),
    }
)


def flatten(html: str) -> str:
    """Return the page with only its title, <meta>s, links and paragraphs.

    All other elements that a paragraph can't contain end it, as they do in a browser.
    """
    return _TAG.sub(_replacement(), html)


def _replacement() -> Callable[[re.Match[str]], str]:
    """Return a function that replaces a tag; it counts the ones that can be nested."""
    nesting = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal nesting
        name = (match["name"] or "").lower()
        if name in _FLAT or match["title"]:
            return match[0]
        if name in _NESTING and nesting < MAX_NESTING:
            nesting += match[0][1] != "/"
            return match[0]
        return "" if not name or name in _INSIDE_PARAGRAPHS else "</p>"

    return replaced
