"""Thumbnails: made when first asked for, and kept beside the files they show.

Clients ask for any size. They get one of a few, so that nobody can fill the disk with thumbnails of
one picture: the sizes that the specification recommends, squares for avatars on dense screens, and
one for large dense screens. A picture that is as small as asked is served as it is.

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
from homebody.core.media import files, pictures
from homebody.core.media.pictures import Box, Method
from homebody.runtime import event_loop

MAX_SIDE: Final = 65_535
"""The largest of all boxes: every picture fits into it as it is."""
SQUARES: Final = tuple(Box(side, side) for side in (32, 96, 320, 640, 800, MAX_SIDE))
BOXES: Final = (
    *(Box(*size) for size in ((320, 240), (640, 480), (800, 600), (1600, 1200))),
    Box(MAX_SIDE, MAX_SIDE),
)
ORIGINAL: Final = ".original"

TURNS: Final = event_loop.FairTurns(2)
"""A large picture takes 150 MB while it is made smaller, and a thread that COMMIT may need."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for: pixels up to MAX_SIDE."""

    width: int
    height: int
    method: Method
    may_move: bool


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A file to send. `name` tells it from the other thumbnails of the same content."""

    path: Path
    media_type: str
    name: str


def get(data_dir: Path, sha256: str, wish: Wish, asker: str) -> Thumbnail:
    """The smallest thumbnail that is not smaller than wished, made now unless it is there.

    `asker` is the user or the address that waits for it: all who wait take turns.
    Raises M_UNKNOWN (400) when the file is no picture, M_TOO_LARGE when it has too many pixels.
    """
    box = _box(wish)
    name = f"{box.width}x{box.height}-{wish.method}{'-moving' if wish.may_move else ''}"
    folder = files.thumbnails_folder(data_dir, sha256)
    original = files.content_path(data_dir, sha256)
    found = _find(folder, name, original)
    if found is None:
        with _one_at_a_time(folder / name), TURNS.turn(asker):
            found = _find(folder, name, original)
            if found is None:  # nobody made it while we waited
                found = event_loop.offload(_make, data_dir, folder, name, original, box, wish)
    return found


def _box(wish: Wish) -> Box:
    """The smallest of our sizes that is not smaller than the wish."""
    is_square = wish.method == "crop" and wish.width == wish.height
    sizes = SQUARES if is_square else BOXES
    return next(box for box in sizes if box.holds(wish.width, wish.height))


def _find(folder: Path, name: str, original: Path) -> Thumbnail | None:
    for media_type in pictures.SHOWN:
        path = folder / f"{name}.{media_type.removeprefix('image/')}"
        if path.exists():
            return Thumbnail(path, media_type, name)
        if path.with_name(path.name + ORIGINAL).exists():
            return Thumbnail(original, media_type, ORIGINAL)
    return None


def _make(
    data_dir: Path, folder: Path, name: str, original: Path, box: Box, wish: Wish
) -> Thumbnail:
    try:
        picture = pictures.shrink(original, box, wish.method, may_move=wish.may_move)
    except pictures.NotAPictureError:
        raise errors.unknown("There is no thumbnail of this kind of file") from None
    except pictures.PictureTooLargeError:
        raise errors.too_large("The picture has too many pixels for a thumbnail") from None
    path = folder / f"{name}.{picture.media_type.removeprefix('image/')}"
    if picture.data is None:
        files.keep(data_dir, b"", path.with_name(path.name + ORIGINAL))
        return Thumbnail(original, picture.media_type, ORIGINAL)
    files.keep(data_dir, picture.data, path)
    return Thumbnail(path, picture.media_type, name)


_locks: dict[Path, tuple[threading.Lock, list[None]]] = {}


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Requests for the same thumbnail wait for who came first."""
    lock, users = _locks.setdefault(path, (threading.Lock(), []))
    users.append(None)
    try:
        with lock:
            yield
    finally:
        users.pop()
        if not users:
            _locks.pop(path, None)
