"""The Open Graph properties of an HTML page, or the nearest equivalents.

Knows nothing of Matrix or the network. The pages come from strangers: all texts are cut to a limit,
and scripts and menus are left out.

Spec: client-server-api#get_matrixclientv1mediapreview_url
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from homebody.core.media import flat_html

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

MAX_PROPERTIES: Final = 40
MAX_TEXT: Final = 1000
MIN_PARAGRAPH: Final = 40
"""Characters; shorter ones are buttons or dates."""

_PROPERTY: Final = re.compile(r"og:[a-z0-9:_-]{1,60}", re.IGNORECASE)
_CHARSET_OF_TYPE: Final = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_CHARSETS_OF_PAGE: Final = (
    re.compile(rb"\s*<\?xml[^>]{0,200}\sencoding\s*=\s*[\"']([^\"'>]{1,40})", re.IGNORECASE),
    re.compile(
        rb".*?<meta\s[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})",
        re.IGNORECASE | re.DOTALL,
    ),
)
# The declaration in a page has been read as ASCII: the page can't be in these
_IN_PAGE: Final = {
    "utf-16le": "utf-8",
    "utf-16be": "utf-8",
    "x-user-defined": "windows-1252",
}
_HEAD_BYTES: Final = 4096
_NO_TEXT: Final = ["script", "style", "noscript", "template", "svg", "nav", "header", "footer"]

_IMAGES: Final = ("og:image:secure_url", "og:image", "og:image:url", "twitter:image")


def read(page: bytes, content_type: str, url: str) -> dict[str, str]:
    """Return a page's properties by name; `og:image` is the URL of an image.

    `url` is the page's own, to which its relative links refer.
    """
    from selectolax.lexbor import LexborHTMLParser  # noqa: PLC0415 - 2 MB, with the first link

    tree = LexborHTMLParser(flat_html.flatten(decode(page, content_type)))
    metas = _metas(tree)
    found = {name: text for name, text in metas.items() if _PROPERTY.fullmatch(name)}
    found = {name: text for name, text in found.items() if not name.startswith("og:image")}
    image = next((metas[name] for name in _IMAGES if metas.get(name)), None) or _linked_image(tree)
    more = {
        "og:title": metas.get("og:title") or metas.get("twitter:title") or _title(tree),
        "og:description": metas.get("og:description")
        or metas.get("twitter:description")
        or metas.get("description")
        or _paragraph(tree),
        "og:image": _absolute(tree, url, image),
    }
    given = dict(list(found.items())[:MAX_PROPERTIES]) | {k: v for k, v in more.items() if v}
    return {name: text for name, text in given.items() if text}


def decode(page: bytes, content_type: str) -> str:
    """Decode a page by its BOM, its header or its own declaration, else by a guess.

    The names of encodings are those of browsers: `latin1` is windows-1252, and `sjis` is known;
    Python has other names for some of them, and uses some for other encodings.
    """
    import webencodings  # noqa: PLC0415 - with the first link, as the parser

    label = _declared(page, content_type)
    if label is None:
        try:
            return page.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            is_cut = error.start > len(page) - 4  # within its last character
            label = "utf-8" if is_cut else "windows-1252"
    if label == "gbk":  # "GBK's decoder is gb18030's decoder": Python's is a subset
        label = "gb18030"
    text: str = webencodings.decode(page, label, "replace")[0]  # looks for a BOM itself
    return text


def _declared(page: bytes, content_type: str) -> str | None:
    """Return the name of the first encoding that is declared and known."""
    import webencodings  # noqa: PLC0415 - as above

    in_header = _CHARSET_OF_TYPE.search(content_type)
    if in_header and (found := webencodings.lookup(in_header[1])):
        return str(found.name)
    for pattern in _CHARSETS_OF_PAGE:
        in_page = pattern.match(page[:_HEAD_BYTES])
        if in_page and (found := webencodings.lookup(in_page[1].decode("ascii", "replace"))):
            return _IN_PAGE.get(found.name, str(found.name))
    return None


def _metas(tree: LexborHTMLParser) -> dict[str, str]:
    """Return the first text for each name of a <meta>."""
    found: dict[str, str] = {}
    for node in tree.css("meta"):
        name = node.attributes.get("property") or node.attributes.get("name")
        text = _clean(node.attributes.get("content") or "")
        if name and text:
            found.setdefault(name.strip().lower(), text)
    return found


def _title(tree: LexborHTMLParser) -> str:
    for selector in ("title", "h1"):
        node = tree.css_first(selector)
        if node is not None and (text := _clean(node.text())):
            return text
    return ""


def _paragraph(tree: LexborHTMLParser) -> str:
    """Return the first paragraph that is long enough."""
    tree.strip_tags(_NO_TEXT)
    for node in tree.css("p"):
        text = _clean(node.text())
        if len(text) >= MIN_PARAGRAPH:
            return text
    return ""


def _linked_image(tree: LexborHTMLParser) -> str | None:
    node = tree.css_first('link[rel="image_src"]')
    return None if node is None else node.attributes.get("href")


def _absolute(tree: LexborHTMLParser, url: str, image: str | None) -> str:
    if not image:
        return ""
    base = tree.css_first("base[href]")
    try:
        start = url if base is None else urljoin(url, base.attributes.get("href") or "")
        return urljoin(start, image.strip())
    except ValueError:  # not a URL to urllib
        return ""


def _clean(text: str) -> str:
    """Put a text on one line, and cut it to MAX_TEXT."""
    line = " ".join(text.replace("\0", "").split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"
