"""What Pillow does for pictures.py. Knows files, and nothing of Matrix.

The files come from strangers, so:
- the format is recognised by the first bytes, and only those formats are opened that people send;
- the size that a file claims is checked before anything is decoded: a PNG of a kilobyte can claim
  50,000 by 50,000 pixels, and would take 10 GB;
- whatever a decoder raises for a broken file means "no picture".
What comes out is encoded anew, without the place and time that a camera wrote into the file.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import (
    AvifImagePlugin,  # noqa: F401 - or the first WebP makes Pillow load its plugins for all formats
    ExifTags,
    Image,
    ImageOps,
    ImageSequence,
    WebPImagePlugin,  # noqa: F401 - as above
)

from homebody.core.media import pictures
from homebody.core.media.pictures import (
    Box,
    Measured,
    Method,
    NotAPictureError,
    Picture,
    PictureTooLargeError,
)

LOG = logging.getLogger(__name__)

# Pillow's own check, for what grows while it is read
Image.MAX_IMAGE_PIXELS = pictures.MAX_JPEG_PIXELS


def measure(data: bytes) -> Measured:
    """See pictures.measure."""
    with _opened(io.BytesIO(data)) as image:
        media_type = pictures.MEDIA_TYPES.get(image.format or "")
        if media_type is None:
            raise NotAPictureError
        return Measured(media_type, *_upright_size(image))


def shrink(path: Path, box: Box, method: Method, *, may_move: bool) -> Picture:
    """See pictures.shrink."""
    with _opened(path) as image:
        moves = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        media_type = pictures.MEDIA_TYPES.get(image.format or "")
        if media_type and (may_move or not moves) and box.holds(*_upright_size(image)):
            return Picture(media_type, None)
        if moves and may_move and _is_short(image):
            return _moving(image, box, method)
        return _still(image, box, method)


@contextmanager
def _opened(path: Path | io.BytesIO) -> Iterator[Image.Image]:
    """The picture, of which only the head has been read."""
    try:
        with Image.open(path, formats=pictures.FORMATS) as image:
            _check_size(image)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureTooLargeError from None
    except (PictureTooLargeError, NotAPictureError):
        raise
    except Exception as error:  # decoders raise anything for a broken file
        LOG.debug("no picture: %r", error)
        raise NotAPictureError from error


def _check_size(image: Image.Image) -> None:
    """Before anything is decoded. A progressive JPEG is decoded at its full size first."""
    is_plain_jpeg = image.format in {"JPEG", "MPO"} and not image.info.get("progressive")
    most = pictures.MAX_JPEG_PIXELS if is_plain_jpeg else pictures.MAX_PIXELS
    if image.width * image.height > most:
        raise PictureTooLargeError


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # it may also stand behind the picture: Pillow would decode all of it to see
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as people see them: cameras store pictures lying on their side."""
    lies = _orientation(image) in {5, 6, 7, 8}
    return (image.height, image.width) if lies else image.size


def _still(image: Image.Image, box: Box, method: Method) -> Picture:
    if _upright_size(image) != image.size:
        box = Box(box.height, box.width)
    ratio = _ratio(image, box, method)
    # For JPEG: decode at the eighth, quarter or half that is still twice what we need
    image.draft(None, (math.ceil(image.width * ratio * 2), math.ceil(image.height * ratio * 2)))
    turned = ImageOps.exif_transpose(_resized(image, box, method))
    profile = image.info.get("icc_profile") if image.mode in {"RGB", "RGBA"} else None
    if profile is not None and len(profile) > pictures.MAX_PROFILE_BYTES:
        profile = None
    return _encoded(turned, profile)


def _moving(image: Image.Image, box: Box, method: Method) -> Picture:
    """All frames, as WebP."""
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
    return Picture("image/webp", output.getvalue())


def _is_short(image: Image.Image) -> bool:
    """Whether an animation is worth the work. Raises PictureTooLargeError."""
    if image.format == "GIF":
        return _is_short_gif(image)
    count = int(getattr(image, "n_frames", 1))
    return (
        count <= pictures.MAX_FRAMES and count * image.width * image.height <= pictures.MAX_PIXELS
    )


def _is_short_gif(image: Image.Image) -> bool:
    """The same, frame by frame: nothing else says how many there are, and there may be millions.

    A frame may also be larger than the picture said, which then grows.
    """
    pixels = 0
    try:
        for number in range(pictures.MAX_FRAMES + 1):
            image.seek(number)
            _check_size(image)
            pixels += image.width * image.height
            if pixels > pictures.MAX_PIXELS:
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
    """The picture at its new size, in a mode that can be encoded, still lying as it did."""
    ratio = _ratio(image, box, method)
    width = max(1, min(box.width, round(image.width * ratio)))
    height = max(1, min(box.height, round(image.height * ratio)))
    # The part that is seen, in pixels of the original, from the middle
    seen = (min(image.width, width / ratio), min(image.height, height / ratio))
    left, top = (image.width - seen[0]) / 2, (image.height - seen[1]) / 2
    return _plain(image).resize(
        (width, height),
        Image.Resampling.BICUBIC,
        box=(left, top, left + seen[0], top + seen[1]),
        reducing_gap=2.0,
    )


def _plain(image: Image.Image) -> Image.Image:
    """The same in one of the modes L, RGB and RGBA, which can be resized and encoded."""
    image.load()
    # A GIF may have frames that are larger than it said
    if image.width * image.height > pictures.MAX_PIXELS:
        raise PictureTooLargeError
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off, not scale
        return image.point(lambda value: value / 256).convert("L")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _encoded(image: Image.Image, profile: bytes | None) -> Picture:
    """PNG for what is transparent somewhere, else JPEG."""
    image.info.clear()  # Pillow would write some of what it has read into the new file
    output = io.BytesIO()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode == "RGBA":
        image.save(output, "PNG", icc_profile=profile)
        return Picture("image/png", output.getvalue())
    image.save(output, "JPEG", quality=80, icc_profile=profile)
    return Picture("image/jpeg", output.getvalue())
