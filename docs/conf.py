"""The site that `make docs` builds of README.md and this folder, with Sphinx, MyST and Furo.

The pages are plain Markdown. Their order and headings in the navigation are those of the lists in
docs/README.md, so that page says for readers of the files, too, what there is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "homebody"
author = "the authors of homebody"
extensions = ["myst_parser"]
root_doc = "README"
html_theme = "furo"
html_title = "homebody"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 4
"""Anchors are made of headings as forges make them."""
suppress_warnings = ["misc.highlighting_failure"]
"""Blocks such as `caddy` and `toml` with "…" in them are not valid in their languages."""

_LISTS: Final = "docs/README.md"
_SECTION: Final = re.compile(r"^## (.+)\n((?:\n|- .*\n|  .*\n)+)", re.MULTILINE)
_PAGE: Final = re.compile(r"\]\(([^)#]+\.md)\)")


def _navigation(lists: str) -> str:
    """Return the tables of contents that the lists of pages make."""
    trees = []
    for caption, items in _SECTION.findall(lists):
        pages = [re.sub(r"^\.\./", "/", it) for it in _PAGE.findall(items)]
        pages = [it if it.startswith("/") else f"/docs/{it}" for it in pages]
        # without .md, as Sphinx names documents
        names = "\n".join(it.removesuffix(".md") for it in pages)
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n")
    return "\n".join(trees)


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    if name == root_doc:
        lists = (Path(app.srcdir) / _LISTS).read_text(encoding="utf-8")
        source[0] += "\n" + _navigation(lists)
    elif name == "docs/decisions/README":
        source[0] += "\n```{toctree}\n:glob:\n:titlesonly:\n\n0*\n```\n"


def setup(app: Sphinx) -> None:
    """Let Sphinx call what adds the navigation."""
    app.connect("source-read", _add_navigation)
