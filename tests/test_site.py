"""The pages in docs/: their links lead to headings that exist, and the lists name each page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.test_documents import DOCUMENTS, ROOT

LINK = re.compile(r"\[(?:[^]\[]|\[[^]]*\])*\]\(([^):\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors that forges and MyST make of a page's headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.lower())
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        numbered = (f"{name}-{number}" for number in range(1, 100))
        found.add(next(it for it in numbered if it not in found) if name in found else name)
    return found


def lost_links(page: Path) -> Iterator[str]:
    """Yield the links of a page that lead to no file or heading."""
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield f"{page.relative_to(ROOT)}: {link}"


def test_all_links_lead_to_files_and_headings_that_exist() -> None:
    assert [link for page in DOCUMENTS for link in lost_links(page)] == []


def test_a_link_to_a_heading_that_is_gone_is_found() -> None:
    page = ROOT / "docs" / "README.md"

    assert "begin" in anchors(page)
    assert "no-such-heading" not in anchors(page)


def test_each_page_is_in_the_lists_once() -> None:
    lists = ROOT / "docs" / "README.md"
    linked = [(lists.parent / it).resolve() for it in LINK.findall(lists.read_text("utf-8"))]

    assert sorted(it for it in linked if it.parent == lists.parent) == sorted(
        lists.parent.glob("*.md")
    )
