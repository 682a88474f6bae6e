"""Measuring and scaling images: the formats, the limits, and the functions.

pillow.py does the work, and is imported with the first image: it takes 3 MB, which a server without
media does not need. The functions block: call them in the thread pool.
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
    "MPO": "image/jpeg",  # a JPEG followed by a second image, made by some cameras
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}
"""The formats that every browser shows, so that an original may be served as its own thumbnail."""
SHOWN: Final = tuple(dict.fromkeys(MEDIA_TYPES.values()))

MAX_PIXELS: Final = 36_000_000
"""For images that are decoded, with 4 bytes per pixel: an 8K screen has 33 million."""
MAX_JPEG_PIXELS: Final = 110_000_000
"""JPEGs are decoded at an eighth of their size; phones take photos of 108 million pixels."""
MAX_FRAMES: Final = 300
"""With more of them, or more than MAX_PIXELS in all, the thumbnail is not animated."""
MAX_PROFILE_BYTES: Final = 8192


class NotAnImageError(Exception):
    """Not one of the formats, or broken."""


class ImageTooLargeError(Exception):
    """More pixels than this server decodes."""


@dataclass(frozen=True, slots=True)
class Box:
    """A size in pixels."""

    width: int
    height: int

    def holds(self, width: int, height: int) -> bool:
        """Return whether an image of this size fits into it."""
        return width <= self.width and height <= self.height


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image; without `data` the original serves as it is."""

    media_type: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The type of an image, and its size in pixels as it is displayed."""

    media_type: str
    width: int
    height: int


def measure(data: bytes) -> ImageInfo:
    """Return the type and size of an image. Raises NotAnImageError, ImageTooLargeError.

    Formats that browsers don't show raise NotAnImageError as well.
    """
    from homebody.core.media import pillow  # noqa: PLC0415 - see the module

    return pillow.measure(data)


def shrink(path: Path, box: Box, method: Method, *, animated: bool) -> EncodedImage:
    """Return the image scaled down to the box; it is never enlarged.

    "scale" keeps all of it, "crop" fills the box and cuts off the rest. An animation stays one only
    with `animated`. Raises NotAnImageError, ImageTooLargeError.
    """
    from homebody.core.media import pillow  # noqa: PLC0415 - see the module

    return pillow.shrink(path, box, method, animated=animated)
