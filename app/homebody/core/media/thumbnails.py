"""Thumbnails: made when first requested, and kept next to the files they show.

Clients may request any size. They get one of a few, so that the disk can't fill up with thumbnails
of one image: the sizes that the specification recommends, squares for avatars on dense screens, and
one for large dense screens. An image that is already that small is served as it is.

    thumbnails/3f/9a01…/96x96-crop.png             made by us
    thumbnails/3f/9a01…/96x96-crop.png.original    empty: the original, which is a PNG, serves

Spec: client-server-api#thumbnails
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homebody import errors
from homebody.core.media import files, images
from homebody.core.media.files import StoredFile
from homebody.core.media.images import Box, Method
from homebody.runtime import event_loop

MAX_SIDE: Final = 65_535
"""The largest of all boxes: every image fits into it as it is."""
SQUARES: Final = tuple(Box(side, side) for side in (32, 96, 320, 640, 800, MAX_SIDE))
BOXES: Final = (
    *(Box(*size) for size in ((320, 240), (640, 480), (800, 600), (1600, 1200))),
    Box(MAX_SIDE, MAX_SIDE),
)
ORIGINAL: Final = ".original"

TURNS: Final = event_loop.FairSemaphore(2)
"""Scaling a large image takes 150 MB, and a thread that COMMIT may need."""


@dataclass(frozen=True, slots=True)
class ThumbnailRequest:
    """The size that a client requests, in pixels up to MAX_SIDE."""

    width: int
    height: int
    method: Method
    animated: bool


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A file to send. `name` tells it from the other thumbnails of the same content."""

    path: Path
    media_type: str
    name: str


def get(data_dir: Path, file: StoredFile, wanted: ThumbnailRequest, requester: str) -> Thumbnail:
    """Return the smallest thumbnail that is not smaller than requested; make it if needed.

    `requester` is the user or the IP address that waits for it: all who wait take turns.
    Raises M_UNKNOWN (400) when the file is not an image, M_TOO_LARGE when it has too many pixels.
    """
    box = _box(wanted)
    name = f"{box.width}x{box.height}-{wanted.method}{'-moving' if wanted.animated else ''}"
    folder, original = file.thumbnails, file.path
    found = _find(folder, name, original)
    if found is None:
        with _one_at_a_time(folder / name), TURNS.turn(requester):
            found = _find(folder, name, original)
            if found is None:  # not made while we waited
                found = event_loop.offload(_make, data_dir, folder, name, original, box, wanted)
    return found


def _box(wanted: ThumbnailRequest) -> Box:
    """Return the smallest of our sizes that is not smaller than requested."""
    is_square = wanted.method == "crop" and wanted.width == wanted.height
    sizes = SQUARES if is_square else BOXES
    return next(box for box in sizes if box.holds(wanted.width, wanted.height))


def _find(folder: Path, name: str, original: Path) -> Thumbnail | None:
    for media_type in images.SHOWN:
        path = folder / f"{name}.{media_type.removeprefix('image/')}"
        if path.exists():
            return Thumbnail(path, media_type, name)
        if path.with_name(path.name + ORIGINAL).exists():
            return Thumbnail(original, media_type, ORIGINAL)
    return None


def _make(
    data_dir: Path, folder: Path, name: str, original: Path, box: Box, wanted: ThumbnailRequest
) -> Thumbnail:
    try:
        image = images.shrink(original, box, wanted.method, animated=wanted.animated)
    except images.NotAnImageError:
        raise errors.unknown("There is no thumbnail of this kind of file") from None
    except images.ImageTooLargeError:
        raise errors.too_large("The image has too many pixels for a thumbnail") from None
    path = folder / f"{name}.{image.media_type.removeprefix('image/')}"
    if image.data is None:
        files.keep(data_dir, b"", path.with_name(path.name + ORIGINAL))
        return Thumbnail(original, image.media_type, ORIGINAL)
    files.keep(data_dir, image.data, path)
    return Thumbnail(path, image.media_type, name)


_locks: dict[Path, tuple[threading.Lock, list[None]]] = {}


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Let one request make the thumbnail while others for the same one wait."""
    lock, users = _locks.setdefault(path, (threading.Lock(), []))
    users.append(None)
    try:
        with lock:
            yield
    finally:
        users.pop()
        if not users:
            _locks.pop(path, None)
