"""What a backup consists of: `manifest.json` in its folder, with size and hash of each file.

It is written before the files that a new backup replaces (database, key, configuration) are moved
to their places, and describes those that were there before as well. So the backup is whole at any
moment, the old one or the new one, whatever interrupts it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec

NAME: Final = "manifest.json"
FORMAT: Final = 1
PIECE_BYTES: Final = 2**20


class Entry(msgspec.Struct, frozen=True):
    """A file as it has to be."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    files: dict[str, Entry]
    """By the path below the backup's folder, with / between its parts."""
    previous: dict[str, Entry] = {}
    """Files that may still be there in place of those in `files`."""
    lost_media: list[str] = []
    """Hashes of files that the server itself no longer had: a restored one can't have them."""
    format: int = FORMAT

    def allowed(self, path: str) -> list[Entry]:
        """Return what the file of this path may be."""
        entries = (self.files.get(path), self.previous.get(path))
        return [it for it in entries if it is not None]


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a backup; None for one made before there were manifests.

    Raises ValueError for one that is damaged, and OSError.
    """
    try:
        raw = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    found = msgspec.json.decode(raw, type=Manifest)
    if found.format != FORMAT:
        raise ValueError(f"its format is {found.format}, and this homebody knows {FORMAT}")
    for path, entry in found.files.items():
        parts = PurePosixPath(path).parts
        if len(parts) > 1 and "".join(parts[-2:]) != entry.sha256:  # media, named by content
            raise ValueError(f"{path} has another name than its content")
    return found


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as it is written to the disk."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Read a file piece by piece."""
    while piece := file.read(PIECE_BYTES):
        yield piece


def entry_of(path: Path) -> Entry:
    """Return what a file is; reads all of it."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for piece in pieces(file):
            digest.update(piece)
            size += len(piece)
    return Entry(size, digest.hexdigest())
