"""Make tests/vectors/spec/ from a folder with the Matrix specification as data:

    python -m tests.tools.pin_spec FOLDER

`anchors.txt` has one `document#anchor` a line, as code cites them; `endpoints.tsv` is copied. The
folder contains `prose/`, `rooms/` and `endpoints.tsv`.

An anchor is derived as on the specification's website:

- of a heading from its text: small letters, digits, `_` and `-`, with `-` for a space; the second
  heading of a page with the same text gets `-1`. `{id="…"}` after a heading names the anchor.
- of an endpoint, `post_matrixclientv3login`: the method and the path, without slashes and braces.
- of an event type, `mroommember`: the type, without dots. `m.room.message` with a msgtype also has
  that of the msgtype, `mtext`.
- of a named object in a schema, `definition-encryptedfile`.

Links in the prose to anchors that were not found are printed.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

PINNED = Path(__file__).parents[1] / "vectors/spec"
HEADING = re.compile(r"^#{1,6} +(.+?) *$")
FENCE = re.compile(r"^ *(```|~~~)")
EXPLICIT_ID = re.compile(r' *\{(?:#|id=")([\w-]+)"?\}$')
ENDPOINT = re.compile(r"^(GET|PUT|POST|DELETE|PATCH|OPTIONS|HEAD) (/\S+)$")
EVENT = re.compile(r"^`([^`]+)` \((?:state )?event; schema ")
HTML_ANCHOR = re.compile(r'<a id="([^"]+)">')
DEFINITION = re.compile(r"^\*\*(\w+)\*\*: ")
MODULE = re.compile(r"^\(module: see (\S+)\)$")
LINK = re.compile(r"\]\((?:https://spec\.matrix\.org/v[\d.]+/)?([\w/-]*?)/?#([\w.-]+)\)")


def slug(text: str) -> str:
    """Return the anchor of a heading."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", html.unescape(text))
    return re.sub(r"[^\w -]", "", plain.lower()).replace(" ", "-")


def documents(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name as code cites it, file) of each page."""
    for page in sorted((folder / "prose").glob("*.md")):
        yield page.stem, page
    for page in sorted((folder / "rooms").glob("*.md")):
        yield ("rooms" if page.stem == "index" else f"rooms/{page.stem}"), page


def lines_of(page: Path) -> Iterator[str]:
    """Yield the lines of a page without code blocks, with its modules inserted."""
    is_code = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if FENCE.match(line):
            is_code = not is_code
        elif is_code:
            continue
        elif module := MODULE.match(line):
            yield from lines_of(page.parent / module[1])
        else:
            yield line


def anchors_of(page: Path) -> list[str]:
    """Return the anchors of a page, in their order."""
    found: dict[str, int] = {}
    for line in lines_of(page):
        for anchor in HTML_ANCHOR.findall(line):
            found.setdefault(anchor, 0)
        if definition := DEFINITION.match(line):
            found.setdefault(f"definition-{slug(definition[1])}", 0)
        if heading := HEADING.match(line):
            add_heading(found, heading[1])
    return list(found)


def add_heading(found: dict[str, int], heading: str) -> None:
    """Add the anchor of a heading to `{anchor: how many more of this name there are}`."""
    if endpoint := ENDPOINT.match(heading):
        found.setdefault(endpoint[1].lower() + slug(endpoint[2]), 0)
    elif event := EVENT.match(heading):
        found.setdefault(slug(event[1]), 0)
        found.setdefault(slug(event[1].removeprefix("m.room.message$")), 0)
    elif named := EXPLICIT_ID.search(heading):
        found.setdefault(named[1], 0)
    else:
        anchor = slug(heading)
        if anchor in found:
            found[anchor] += 1
            anchor = f"{anchor}-{found[anchor]}"
        found[anchor] = 0


def broken_links(folder: Path, pinned: set[str]) -> Iterator[str]:
    """Yield links in the prose to anchors that are not pinned, `document → document#anchor`."""
    names = dict(documents(folder))
    for document, page in names.items():
        for line in lines_of(page):
            for target, anchor in LINK.findall(line):
                link = f"{target or document}#{anchor}"
                if link.split("#", maxsplit=1)[0] in names and link not in pinned:
                    yield f"{document} → {link}"


def main(folder: Path) -> int:
    """Write the files; return the exit code."""
    anchors = [
        f"{document}#{anchor}"
        for document, page in documents(folder)
        for anchor in anchors_of(page)
    ]
    PINNED.mkdir(parents=True, exist_ok=True)
    (PINNED / "anchors.txt").write_text("\n".join(anchors) + "\n", encoding="utf-8")
    shutil.copyfile(folder / "endpoints.tsv", PINNED / "endpoints.tsv")
    broken = sorted(set(broken_links(folder, set(anchors))))
    print(f"{len(anchors)} anchors; {len(broken)} links lead to none of them")
    for link in broken:
        print(f"  {link}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
