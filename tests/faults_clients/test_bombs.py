"""Images that are small as files and huge, endless or invalid when they are decoded."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from tests.faults_clients.clients import Person, Process, Watch
from tests.helpers import web_server

MEDIA: Final = "/_matrix/client/v1/media"
SVG: Final = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script/></svg>'


def chunk(kind: bytes, data: bytes) -> bytes:
    """Build a chunk of a PNG."""
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(side: int, *between: bytes) -> bytes:
    """Build a valid black image of 1 bit per pixel."""
    packer = zlib.compressobj(9)
    row = b"\x00" * (1 + (side + 7) // 8)
    pieces = [packer.compress(row) for _ in range(side)]
    data = b"".join([*pieces, packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def gif(screen: int, *frames: tuple[int, int], height: int | None = None) -> bytes:
    """Build frames of this size, of which only the first few exist."""
    size = struct.pack("<HH", screen, height or screen)
    picture = b"\x21\xf9\x04\x04\x05\x00\x00\x00\x2c\x00\x00\x00\x00%b\x00\x02\x02\x44\x01\x00"
    content = b"".join(picture % struct.pack("<HH", *frame) for frame in frames)
    return b"GIF89a" + size + b"\x80\x00\x00\x00\x00\x00\xff\xff\xff" + content + b";"


def webp(side: int, frames: int) -> bytes:
    """Build an animation that claims this size."""

    def part(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2)

    size = struct.pack("<I", side - 1)[:3] * 2
    still = part(b"VP8L", b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + b"\x00" * 9)
    frame = part(b"ANMF", b"\x00" * 6 + size + b"\x10\x00\x00\x00" + still)
    parts = part(b"VP8X", b"\x02\x00\x00\x00" + size) + part(b"ANIM", b"\x00" * 6) + frame * frames
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def jpeg(side: int, *, is_progressive: bool = False) -> bytes:
    """Build the head of an image of this size, with nothing after it."""
    kind = b"\xff\xc2" if is_progressive else b"\xff\xc0"
    size = struct.pack(">BHHB", 8, side, side, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    begin = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
    return begin + kind + struct.pack(">H", 2 + len(size)) + size + scan + b"\x00" * 1000


def grey(side: int, kind: str) -> bytes:
    """Build a valid black image of one byte per pixel when decoded."""
    output = io.BytesIO()
    Image.new("L", (side, side)).save(output, kind)
    return output.getvalue()


def bmp(side: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 1, 0, 0, 0, 0, 2, 2)
    return b"BM" + struct.pack("<IHHI", 62, 0, 0, 62) + head + b"\x00\x00\x00\x00\xff\xff\xff\x00"


TOO_LARGE = (413, "M_TOO_LARGE")
NO_PICTURE = (400, "M_UNKNOWN")
FINE = (200, "")
BOMBS: dict[str, tuple[Callable[[], bytes], tuple[tuple[int, str], ...]]] = {
    "PNG of 144 megapixels": (lambda: png(12_000), (TOO_LARGE,)),
    "PNG with a comment of 200 MB": (
        lambda: png(900, chunk(b"zTXt", b"a\x00\x00" + zlib.compress(b"x" * 200_000_000, 1))),
        (FINE, NO_PICTURE),
    ),
    "PNG with a profile of 200 MB": (
        lambda: png(900, chunk(b"iCCP", b"a\x00\x00" + zlib.compress(b"x" * 200_000_000, 1))),
        (FINE, NO_PICTURE),
    ),
    "GIF of 100,000 small frames": (lambda: gif(330, *[(1, 1)] * 100_000, height=1), (FINE,)),
    "GIF of 250 large frames": (lambda: gif(5_900, *[(1, 1)] * 250), (FINE,)),
    "GIF of 60,000 pixels in width and height": (lambda: gif(60_000, (1, 1)), (TOO_LARGE,)),
    "GIF whose frames grow": (lambda: gif(900, (1, 1), *[(9_000, 9_000)] * 9), (TOO_LARGE,)),
    "WebP of 16,000 pixels in width and height": (lambda: webp(16_000, 900), (TOO_LARGE,)),
    "WebP of 50,000 frames": (lambda: webp(900, 50_000), (FINE, NO_PICTURE)),
    "JPEG that says to be of 4 gigapixels": (lambda: jpeg(65_000), (TOO_LARGE,)),
    "JPEG that says to be of 81 megapixels": (lambda: jpeg(9_000), (FINE, NO_PICTURE)),
    "JPEG that is of 81 megapixels": (lambda: grey(9_000, "JPEG"), (FINE,)),
    "progressive JPEG of 81 megapixels": (lambda: jpeg(9_000, is_progressive=True), (TOO_LARGE,)),
    "BMP of 900 megapixels": (lambda: bmp(30_000), (TOO_LARGE,)),
    "TIFF": (lambda: grey(900, "TIFF"), (NO_PICTURE,)),
    "PSD": (lambda: b"8BPS\x00\x01" + b"\x00" * 100, (NO_PICTURE,)),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", (NO_PICTURE,)),
    "SVG": (lambda: SVG, (NO_PICTURE,)),
    "nothing": (lambda: b"", (NO_PICTURE,)),
}
NAMES = [name for name in BOMBS if name != "PNG of 50,000 pixels in width and height"]
BIG_PNG = 50_000
MAY_GROW = 190_000_000
"""Bytes, for two thumbnails at a time: MAX_PIXELS of images.py in RGBA, and what came before."""

MOST_SECONDS = 5.0
"""For two thumbnails."""


def check_thumbnail(alice: Person, data: bytes, expected: tuple[tuple[int, str], ...]) -> None:
    process = Process(alice.server)
    status, kept, _ = alice.ask("POST", "/_matrix/media/v3/upload?filename=me.png", data)
    assert status == 200, kept
    url = f"{MEDIA}/thumbnail/{kept['content_uri'].removeprefix('mxc://')}"

    before = process.cpu_seconds()
    with Watch(process) as watch:
        for query in ("width=96&height=96&method=crop", "width=320&height=240&animated=true"):
            status, body, _ = alice.ask("GET", f"{url}?{query}")
            errcode = body["errcode"] if isinstance(body, dict) else ""
            assert (status, errcode) in (*expected, FINE if "crop" in query else expected[0])

    assert watch.grown_bytes < MAY_GROW
    assert max(watch.waits, default=0.0) < 0.7
    assert process.cpu_seconds() - before < MOST_SECONDS


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_for_an_avatar_is_no_picture_or_a_small_one(alice: Person, name: str) -> None:
    # Protects core/media/pillow.py: _check_size in _opened, with `progressive` and FORMATS, and in
    # _is_short_gif, which is checked a second time in _plain; MAX_FRAMES and `pixels` there, and
    # the draft() in _still. For WebP see test_a_long_animation_stands_still.
    make, expected = BOMBS[name]

    check_thumbnail(alice, make(), expected)


@pytest.mark.big
def test_a_png_of_two_and_a_half_gigapixels_has_no_thumbnail(alice: Person) -> None:
    # Protects core/media/pillow.py: _check_size; Pillow has a limit of its own after it.
    check_thumbnail(alice, png(BIG_PNG), (TOO_LARGE,))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve pages, each with one of the images."""
    folder = tmp_path_factory.mktemp("site")
    for number, name in enumerate(NAMES):
        (folder / f"{number}.png").write_bytes(BOMBS[name][0]())
    with web_server.running(folder) as url:
        yield url


def test_a_bomb_does_no_harm_in_the_preview_of_a_link(alice: Person, site: str) -> None:
    # Protects core/media/pillow.py: measure, which decodes no JPEG, and _check_size in _opened.
    with Watch(Process(alice.server)) as watch:
        answers = [
            alice.ask("GET", f"{MEDIA}/preview_url?url={site}/{number}.png")
            for number in range(len(NAMES))
        ]

    assert [status for status, _, _ in answers] == [200] * len(NAMES)
    told = {name: body for name, (_, body, _) in zip(NAMES, answers, strict=True)}
    huge = [name for name, (_, expected) in BOMBS.items() if expected == (TOO_LARGE,)]
    assert [name for name in huge if "og:image" in told[name]] == ["GIF whose frames grow"]
    assert watch.grown_bytes < 60_000_000
    assert max(itertools.chain(watch.waits, [0.0])) < 0.7


def test_the_server_still_makes_thumbnails(alice: Person, tmp_path: Path) -> None:
    # Protects: shows that the server still makes thumbnails after all of the above.
    check_thumbnail(alice, png(2_000), (FINE,))
