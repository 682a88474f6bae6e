"""Images with some bytes changed: measured and scaled, or rejected."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from homebody.core.media import images
from homebody.core.media.images import Box, ImageTooLargeError, NotAnImageError
from tests.fuzz import examples

SLOWEST_SECONDS = 10
"""For the largest images that are decoded at all; most take a millisecond."""


def picture(kind: str, *, moves: bool = False) -> bytes:
    frames = [Image.new("RGB", (24, 16), color) for color in ("red", "blue", "green")]
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    out = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:], "duration": 50} if moves else {}
    frames[0].save(out, kind, **more, **({} if kind in {"GIF", "BMP"} else {"exif": exif}))
    return out.getvalue()


GOOD = [
    *(picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP")),
    *(picture(kind, moves=True) for kind in ("PNG", "GIF", "WEBP")),
]
changes = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "cut", "double"]),
        st.integers(0, 400),
        st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff"]),
    ),
    max_size=4,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "picture"


@examples(150)
@given(
    st.sampled_from(GOOD),
    changes,
    st.sampled_from(["crop", "scale"]),
    st.integers(1, 40),
    st.booleans(),
)
@example(GOOD[0], [("set", 16, b"\0\0\x17\x70\0\0\x17\x70")], "scale", 8, False)  # 6,000 by 6,000
@example(GOOD[0], [("set", 16, b"\x7f\xff\xff\xff")], "crop", 8, False)
@example(GOOD[5], [("cut", 120, b"x")], "crop", 8, True)
def test_any_bytes_are_a_picture_that_can_be_made_smaller_or_none(
    path: Path,
    data: bytes,
    steps: list[tuple[str, int, bytes]],
    method: images.Method,
    size: int,
    animated: bool,
) -> None:
    for name, at, piece in steps:
        rest = {"set": data[at + len(piece) :], "insert": data[at:], "cut": b"", "double": data}
        data = data[:at] + piece + rest[name]
    path.write_bytes(data)
    started = time.thread_time()

    try:
        measured = images.measure(data)
        shrunk = images.shrink(path, Box(size, size), method, animated=animated)
    except (NotAnImageError, ImageTooLargeError):
        measured, shrunk = None, None

    assert time.thread_time() - started < SLOWEST_SECONDS
    if measured is not None and shrunk is not None:
        assert measured.width > 0
        assert measured.height > 0
        assert shrunk.media_type in images.SHOWN
        if shrunk.data is not None:
            with Image.open(io.BytesIO(shrunk.data)) as smaller:
                assert smaller.width <= max(size, 1)
                assert smaller.height <= max(size, 1)


@examples(60)
@given(st.binary(max_size=60), st.sampled_from([it[:12] for it in GOOD]))
def test_what_only_begins_like_a_picture_is_none_or_can_be_measured(
    data: bytes, beginning: bytes
) -> None:
    try:
        measured = images.measure(beginning + data)
    except (NotAnImageError, ImageTooLargeError):
        return

    assert measured.media_type in images.SHOWN
