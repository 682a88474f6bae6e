"""HTML without what makes a tree of it slow to build.

The rules by which browsers mend HTML look through all open elements for each new one, and open
again in each paragraph what was bold before it: half a megabyte of `<div>` takes half a minute, and
some thousand `<b>` that are never closed fill the memory. Nobody but a preview's reader waits for
that, but all other requests share its processor. So this keeps only the elements that a preview
asks for, and no more of those that can stand in each other than pages have.

All patterns are linear in the length of the page: what they begin they also end, if need be with
the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_NESTING: Final = 500
"""Elements that may stand in each other; more than these are let go."""

_TAG: Final = re.compile(
    r"<!--.*?(?:-->|\Z)"
    # what holds text only, in which nothing is a tag
    r"|<(?P<raw>script|style|textarea|xmp|iframe|noembed|noframes)(?=[\s/>]).*?"
    r"(?:</(?P=raw)(?=[\s/>])[^>]*+(?:>|\Z)|\Z)"
    r"|<plaintext.*"
    r"|(?P<title><title(?=[\s/>]).*?(?:</title(?=[\s/>])|\Z))"
    r"|</?(?P<name>[a-z][^\s/>]*+)"
    r"""(?:=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))|[^>])*+(?:>|\Z)""",
    re.IGNORECASE | re.DOTALL,
)
_FLAT: Final = frozenset({"html", "head", "body", "title", "meta", "link", "base", "p"})
"""Of these none can stand in one of its own kind."""
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
    """The same page, for whoever looks for its title, its <meta>s, links and paragraphs.

    All other elements that a paragraph can't contain end it, as they do in a browser.
    """
    return _TAG.sub(_replacement(), html)


def _replacement() -> Callable[[re.Match[str]], str]:
    """What stands for a tag; remembers how many nesting ones there were."""
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
