"""A smaller picture of a picture: what there is to ask for, and how much of it.

pillow.py does the work, and comes into memory with the first picture: it takes 3 MB, for what
a server of texts never needs. Its functions block, and are to be called in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Method = Literal["crop", "scale"]

FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP")
MEDIA_TYPES: Final = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with a second picture behind it, as some cameras make
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}
"""The formats that every browser shows, so that an original may be served as its own thumbnail."""
SHOWN: Final = tuple(dict.fromkeys(MEDIA_TYPES.values()))

MAX_PIXELS: Final = 36_000_000
"""What may be decoded, 4 bytes each: a screen of 8K has 33 million."""
MAX_JPEG_PIXELS: Final = 110_000_000
"""JPEGs are decoded at an eighth of their size; telephones make them of 108 million pixels."""
MAX_FRAMES: Final = 300
"""With more of them, or more than MAX_PIXELS in all, the thumbnail stands still."""
MAX_PROFILE_BYTES: Final = 8192


class NotAPictureError(Exception):
    """Not one of the formats, or broken."""


class PictureTooLargeError(Exception):
    """More pixels than this server decodes."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels."""

    width: int
    height: int

    def holds(self, width: int, height: int) -> bool:
        """Whether so much fits into it."""
        return width <= self.width and height <= self.height


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture; no `data` means that the original serves as it is."""

    media_type: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a picture is, in pixels as people see it."""

    media_type: str
    width: int
    height: int


def measure(data: bytes) -> Measured:
    """What these bytes are. Raises NotAPictureError, PictureTooLargeError.

    Formats that browsers don't show count as no pictures.
    """
    from homebody.core.media import pillow  # noqa: PLC0415 - see the module

    return pillow.measure(data)


def shrink(path: Path, box: Box, method: Method, *, may_move: bool) -> Picture:
    """The picture made as small as the box; never larger than it was.

    "scale" keeps all of it, "crop" fills the box and cuts off what is beyond. An animation moves
    only when it may. Raises NotAPictureError, PictureTooLargeError.
    """
    from homebody.core.media import pillow  # noqa: PLC0415 - see the module

    return pillow.shrink(path, box, method, may_move=may_move)
