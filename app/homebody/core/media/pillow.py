"""The part of images.py that needs Pillow. Knows nothing of Matrix.

The files come from strangers, so:
- the format is recognised by the first bytes, and only common formats are opened;
- the size that a file claims is checked before anything is decoded: a PNG of a kilobyte can claim
  50,000 by 50,000 pixels, and would take 10 GB;
- whatever a decoder raises for a broken file becomes NotAnImageError.
The result is encoded again, without the place and time that a camera wrote into the file.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import (
    AvifImagePlugin,  # noqa: F401 - or the first WebP makes Pillow load its plugins for all formats
    ExifTags,
    Image,
    ImageOps,
    ImageSequence,
    WebPImagePlugin,  # noqa: F401 - as above
)

from homebody.core.media import images
from homebody.core.media.images import (
    Box,
    EncodedImage,
    ImageInfo,
    ImageTooLargeError,
    Method,
    NotAnImageError,
)

LOG = logging.getLogger(__name__)

# Pillow's own check, for what grows while it is read
Image.MAX_IMAGE_PIXELS = images.MAX_JPEG_PIXELS

_PHOTO_RATIO: Final = 4
"""An image is a photo if it takes this many times as many bytes as a PNG than as a JPEG: 6 to 9 for
photos and fine gradients, 2 to 3 for screenshots, less than 1 for drawings."""


def measure(data: bytes) -> ImageInfo:
    """See images.measure."""
    with _opened(io.BytesIO(data)) as image:
        media_type = images.MEDIA_TYPES.get(image.format or "")
        if media_type is None:
            raise NotAnImageError
        return ImageInfo(media_type, *_upright_size(image))


def shrink(path: Path, box: Box, method: Method, *, animated: bool) -> EncodedImage:
    """See images.shrink."""
    with _opened(path) as image:
        is_animation = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        media_type = images.MEDIA_TYPES.get(image.format or "")
        if media_type and (animated or not is_animation) and box.holds(*_upright_size(image)):
            return EncodedImage(media_type, None)
        if is_animation and animated and _is_short(image):
            return _scaled_animation(image, box, method)
        return _scaled_image(image, box, method)


@contextmanager
def _opened(path: Path | io.BytesIO) -> Iterator[Image.Image]:
    """Open an image, of which only the header is read."""
    try:
        with Image.open(path, formats=images.FORMATS) as image:
            _check_size(image)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLargeError from None
    except (ImageTooLargeError, NotAnImageError):
        raise
    except Exception as error:  # decoders raise anything for a broken file
        LOG.debug("cannot decode an image: %r", error)
        raise NotAnImageError from error


def _check_size(image: Image.Image) -> None:
    """Check the size before anything is decoded; a progressive JPEG is first decoded in full."""
    is_plain_jpeg = image.format in {"JPEG", "MPO"} and not image.info.get("progressive")
    most = images.MAX_JPEG_PIXELS if is_plain_jpeg else images.MAX_PIXELS
    if image.width * image.height > most:
        raise ImageTooLargeError


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # it may also follow the image data: Pillow would decode all of it to see
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as displayed: cameras store images lying on their side."""
    is_turned = _orientation(image) in {5, 6, 7, 8}
    return (image.height, image.width) if is_turned else image.size


def _scaled_image(image: Image.Image, box: Box, method: Method) -> EncodedImage:
    if _upright_size(image) != image.size:
        box = Box(box.height, box.width)
    ratio = _ratio(image, box, method)
    # For JPEG: decode at the eighth, quarter or half that is still twice what we need
    image.draft(None, (math.ceil(image.width * ratio * 2), math.ceil(image.height * ratio * 2)))
    turned = ImageOps.exif_transpose(_resized(image, box, method))
    profile = image.info.get("icc_profile") if image.mode in {"RGB", "RGBA"} else None
    if profile is not None and len(profile) > images.MAX_PROFILE_BYTES:
        profile = None
    return _encoded(turned, profile, is_png=image.format == "PNG")


def _scaled_animation(image: Image.Image, box: Box, method: Method) -> EncodedImage:
    """Return all frames, as WebP."""
    frames: list[Image.Image] = []
    durations: list[int] = []
    for frame in ImageSequence.Iterator(image):
        frames.append(_resized(frame, box, method))
        frames[-1].info.clear()
        durations.append(int(frame.info.get("duration", 0)) or 100)
    output = io.BytesIO()
    frames[0].save(
        output,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=int(image.info.get("loop", 1)),
        quality=70,
        method=1,
    )
    return EncodedImage("image/webp", output.getvalue())


def _is_short(image: Image.Image) -> bool:
    """Return whether an animation is within the limits. Raises ImageTooLargeError."""
    if image.format == "GIF":
        return _is_short_gif(image)
    count = int(getattr(image, "n_frames", 1))
    return count <= images.MAX_FRAMES and count * image.width * image.height <= images.MAX_PIXELS


def _is_short_gif(image: Image.Image) -> bool:
    """Count a GIF's frames and pixels one by one: the file does not say how many there are.

    A frame may also be larger than the image was said to be, which then grows.
    """
    pixels = 0
    try:
        for number in range(images.MAX_FRAMES + 1):
            image.seek(number)
            _check_size(image)
            pixels += image.width * image.height
            if pixels > images.MAX_PIXELS:
                return False
    except EOFError:
        return True
    finally:
        image.seek(0)
    return False


def _ratio(image: Image.Image, box: Box, method: Method) -> float:
    across, down = box.width / image.width, box.height / image.height
    return min(1.0, max(across, down) if method == "crop" else min(across, down))


def _resized(image: Image.Image, box: Box, method: Method) -> Image.Image:
    """Return the image at its new size, in a mode that can be encoded, not yet turned upright."""
    ratio = _ratio(image, box, method)
    width = max(1, min(box.width, round(image.width * ratio)))
    height = max(1, min(box.height, round(image.height * ratio)))
    # The visible part, in pixels of the original, from the middle
    seen = (min(image.width, width / ratio), min(image.height, height / ratio))
    left, top = (image.width - seen[0]) / 2, (image.height - seen[1]) / 2
    return _plain(image).resize(
        (width, height),
        Image.Resampling.BICUBIC,
        box=(left, top, left + seen[0], top + seen[1]),
        reducing_gap=2.0,
    )


def _plain(image: Image.Image) -> Image.Image:
    """Return the image in one of the modes L, RGB and RGBA, which can be resized and encoded."""
    image.load()
    # A GIF may have frames that are larger than it said
    if image.width * image.height > images.MAX_PIXELS:
        raise ImageTooLargeError
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip, not scale
        return image.point(lambda value: value / 256).convert("L")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _encoded(image: Image.Image, profile: bytes | None, *, is_png: bool) -> EncodedImage:
    """Encode as PNG if any pixel is transparent, or the original `is_png` and no photo.

    Otherwise as JPEG, which blurs the text of a screenshot.
    """
    image.info.clear()  # Pillow would write some of what it has read into the new file
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode == "RGBA":
        return EncodedImage("image/png", _saved(image, "PNG", profile))
    jpeg = _saved(image, "JPEG", profile)
    if is_png:
        png = _saved(image, "PNG", profile)
        if len(png) < _PHOTO_RATIO * len(jpeg):
            return EncodedImage("image/png", png)
    return EncodedImage("image/jpeg", jpeg)


def _saved(image: Image.Image, kind: str, profile: bytes | None) -> bytes:
    output = io.BytesIO()
    image.save(output, kind, icc_profile=profile, **({"quality": 80} if kind == "JPEG" else {}))
    return output.getvalue()
