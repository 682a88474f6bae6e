"""A web site for tests in a process of its own: `python -m tests.helpers.web_server PORT FOLDER`.

It counts the requests and serves other files from the folder.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tests.helpers import programs
from tests.helpers.server import ROOT, free_port

HTML: Final = "text/html"

_PAGE: Final = b"""<!doctype html><html><head><title>Not this</title>
<meta property="og:title" content="A cat &amp; its&#10; house">
<meta property="og:title" content="2nd">
<meta property="og:description" content="All about the cat"><meta name="description" content="no">
<meta property="og:site_name" content="Cats"><meta property="og:image:width" content="9999">
<meta property="og:image" content="cat.png"></head><body><p>Something</p></body></html>"""
_PLAIN: Final = b"""<title> Just a
 title </title><nav><p>Home, news, about us, contact, imprint, and more of that</p></nav>
<script>var p = "<p>A paragraph that is none, and would be long enough to be one</p>"</script>
<p>2 May</p><p>A long enough <b>paragraph</b>, which says what the page is about.</p>"""
_TWITTER: Final = b"""<meta name="twitter:title" content="From elsewhere">
<meta name="twitter:description" content="Said for others">"""
_BROKEN: Final = b"<<<html><title>Broken</title><body <p <meta \x00 property=og:title"


def _with_picture(title: str, url: str) -> bytes:
    return f'<title>{title}</title><meta property="og:image" content="{url}">'.encode()


FILES: Final = {
    "/page.html": (HTML, _PAGE),
    "/plain.html": (HTML, _PLAIN),
    "/twitter.html": (HTML, _TWITTER),
    "/latin.html": ("text/html; charset=iso-8859-1", "<title>K\u00e4se</title>".encode("latin-1")),
    "/meta-charset.html": (
        HTML,
        '<meta charset="koi8-r"><title>\u041f\u0440\u0438\u0432\u0435\u0442</title>'.encode(
            "koi8-r"
        ),
    ),
    "/sjis.html": (
        "text/html; charset=x-sjis",
        "<title>\u65e5\u672c\u8a9e\u306e\u9801</title>".encode("shift_jis"),
    ),
    "/undeclared.html": (HTML, "<title>K\u00e4se</title> or so".encode("latin-1")),
    "/empty.html": (HTML, b""),
    "/broken.html": (HTML, _BROKEN),
    "/file.pdf": ("application/pdf", b"%PDF-1.7"),
    "/no-picture.html": (HTML, _with_picture("Its picture is none", "page.html")),
    "/lost-picture.html": (HTML, _with_picture("Its picture is lost", "/lost.png")),
    "/bmp.html": (HTML, _with_picture("Shown by no browser", "/cat.bmp")),
    "/private-picture.html": (
        HTML,
        _with_picture("Its picture is next door", "http://10.255.255.1/"),
    ),
    "/long.html": (HTML, b"<title>Long</title>" + b"<i>" * 400_000),
    "/slow.html": (HTML, b"<title>Slow</title>"),
}
MOVED: Final = {"/moved": "/page.html", "/loop": "/loop"}
COUNTED: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    folder = Path()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/count":
            count = COUNTED[parse_qs(parts.query)["of"][0]]
            self._answer(200, "text/plain", str(count).encode())
            return
        if parts.path == "/forget":
            COUNTED.clear()
        COUNTED[parts.path] += 1
        if parts.path == "/slow.html":
            time.sleep(2)
        if parts.path == "/hang-up":
            return
        if parts.path in MOVED:
            self._answer(302, HTML, b"", Location=MOVED[parts.path])
        elif parts.path in FILES:
            self._answer(200, *FILES[parts.path])
        elif (file := self.folder / parts.path.strip("/")).is_file():
            self._answer(200, f"image/{file.suffix[1:]}", file.read_bytes())
        else:
            self._answer(404, HTML, b"<title>Not here</title>")

    def _answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the web server with this folder within the block; yield its URL."""
    port = free_port()
    command = [sys.executable, "-m", "tests.helpers.web_server", str(port), str(folder)]
    with programs.running(command, port, folder / "web_server.log", cwd=ROOT):
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
