"""The files on the disk, each named by the SHA-256 of its content and never changed.

    data_dir/media/
      files/3f/9a01…            uploads. Identical content is stored once, however many mxc URIs
                                refer to it; the table `media` lists these and their users
      thumbnails/3f/9a01…/      of that file, made when first requested. Can be deleted at any time
      remote/3f/9a01…           files of other servers, each with a random name; the table
                                `remote_media` lists them. Can be deleted at any time: what is
                                missing is fetched again. So can their thumbnails, beside them in
      remote_thumbnails/3f/9a01…/
      incoming/                 files being written. What a crash left is deleted at the start
      removed/                  what is being deleted; as above

To back it up, copy the database first and `files/` after it: a row is written after its file is on
the disk, so every row of the copy then has its file. Later copies need only the new names.

This module alone writes below data_dir/media.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from homebody import errors
from homebody.runtime import event_loop
from homebody.storage import fsync

LOG = logging.getLogger(__name__)

PIECE_BYTES: Final = 2**19
"""A piece of an upload, hashed and written together while the next piece is received."""
WRITTEN_BYTES: Final = 2**16
"""By one call: for more the kernel allocates large blocks, which can be ten times as slow."""
SENT_PIECE_BYTES: Final = 2**18
"""A piece of a download: its memory while a slow client receives it."""

PREFIXES: Final = tuple(f"{number:02x}" for number in range(256))
"""The names of the folders in each of those below."""
Kind = Literal["files", "thumbnails", "remote", "remote_thumbnails"]

ReadInto = Callable[[memoryview], int]
"""Reads the next bytes of a body into a buffer; returns their number, 0 at the end."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on the disk, with its type and name as given by the sender."""

    path: Path
    thumbnails: Path
    """The folder of its thumbnails."""
    tag: str
    """Another one for each other content."""
    size_bytes: int
    content_type: str
    file_name: str | None


@dataclass(frozen=True, slots=True)
class Content:
    """The name and the size of a file on the disk."""

    sha256: str
    size_bytes: int


def content_path(data_dir: Path, sha256: str) -> Path:
    """Return the path of the content with this hash."""
    return data_dir / "media" / "files" / sha256[:2] / sha256[2:]


def thumbnails_folder(data_dir: Path, sha256: str) -> Path:
    """Return the folder of the thumbnails of that content."""
    return data_dir / "media" / "thumbnails" / sha256[:2] / sha256[2:]


def remote_path(data_dir: Path, name: str) -> Path:
    """Return the path of a file of another server."""
    return data_dir / "media" / "remote" / name[:2] / name[2:]


def remote_thumbnails(data_dir: Path, name: str) -> Path:
    """Return the folder of its thumbnails."""
    return data_dir / "media" / "remote_thumbnails" / name[:2] / name[2:]


def _removed(data_dir: Path) -> Path:
    return data_dir / "media" / "removed"


def receive(data_dir: Path, read_into: ReadInto, max_bytes: int) -> Content:
    """Write a body to the disk as it is received, and sync it before returning.

    Raises M_TOO_LARGE as soon as more than `max_bytes` have come, and 503 when the disk is full.
    """
    with _incoming(data_dir) as (file, path):
        content = _copy(read_into, file, max_bytes)
        target = content_path(data_dir, content.sha256)
        with _disk_errors():
            event_loop.offload(_keep, file, path, target)
    return content


def keep(data_dir: Path, data: bytes, target: Path) -> None:
    """Write a small file of the server's own. Blocks: call it in the thread pool."""
    with _incoming(data_dir) as (file, path), _disk_errors():
        file.write(data)
        _keep(file, path, target)


class RemoteFile:
    """A file of another server that is being received."""

    def __init__(self, file: IO[bytes], path: Path, data_dir: Path) -> None:
        self._file = file
        self._path = path
        self._data_dir = data_dir
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The hash of what is in the file, hex; to be asked for when it was kept."""
        return self._digest.hexdigest()

    def write(self, piece: bytes) -> None:
        """Append a piece. Raises 503 when the disk is full."""
        self._buffer += piece
        self.size_bytes += len(piece)
        if len(self._buffer) >= PIECE_BYTES:
            self._write_buffer()

    def keep(self) -> str:
        """Move the file to its place, and return its name there. Raises as `write` does."""
        self._write_buffer()
        name = secrets.token_hex(32)
        with _disk_errors():
            event_loop.offload(_keep, self._file, self._path, remote_path(self._data_dir, name))
        return name

    def _write_buffer(self) -> None:
        content, self._buffer = self._buffer, bytearray()
        event_loop.offload(self._append, content)

    def _append(self, content: bytearray) -> None:
        self._digest.update(content)
        _append(self._file, content)


@contextmanager
def receiving(data_dir: Path) -> Iterator[RemoteFile]:
    """Receive a file of another server within the block; it is deleted unless it was kept."""
    with _incoming(data_dir) as (file, path):
        yield RemoteFile(file, path, data_dir)


def remove_remote(data_dir: Path, names: Iterable[str]) -> None:
    """Delete files of other servers with their thumbnails. Blocks: call it in the thread pool."""
    for name in names:
        remote_path(data_dir, name).unlink(missing_ok=True)
        shutil.rmtree(remote_thumbnails(data_dir, name), ignore_errors=True)


def set_aside(data_dir: Path, hashes: Iterable[str]) -> None:
    """Take contents and their thumbnails out of their places, for `remove_set_aside`.

    Quick enough for a write, in which nobody can begin to refer to them.
    """
    folder = _removed(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for sha256 in hashes:
        for path in (content_path(data_dir, sha256), thumbnails_folder(data_dir, sha256)):
            with contextlib.suppress(FileNotFoundError):
                path.rename(folder / secrets.token_hex(16))


def remove_set_aside(data_dir: Path) -> None:
    """Delete what was set aside. Blocks: call it in the thread pool."""
    for path in _removed(data_dir).glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def names_in(data_dir: Path, kind: Kind, prefix: str, before_s: float) -> list[str]:
    """Return the names that begin with two digits, of what is older than a time. Blocks."""
    folder = data_dir / "media" / kind / prefix
    with contextlib.suppress(FileNotFoundError):
        return [prefix + it.name for it in os.scandir(folder) if it.stat().st_mtime < before_s]
    return []


def pieces(path: Path, start: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes of a file from `start`, read in the pool while other requests run.

    Faster than gunicorn's own way to send a file: under gevent that is 8 KiB at a time.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while length > 0:
            piece = event_loop.offload(file.read, min(length, SENT_PIECE_BYTES))
            if not piece:
                LOG.error("%s is shorter than its size in the database", path)
                return
            length -= len(piece)
            yield piece


def sweep(data_dir: Path) -> int:
    """Delete the partial files that a crash left; return how many there were.

    A file that is being written is locked by its process, so this may run at any time.
    """
    remove_set_aside(data_dir)
    left = 0
    for path in (data_dir / "media" / "incoming").glob("*"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)
            left += 1
    return left


@contextmanager
def _incoming(data_dir: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Create a file that is deleted afterwards, unless it was moved to its place."""
    folder = data_dir / "media" / "incoming"
    path = folder / secrets.token_hex(16)
    with _disk_errors():
        fsync.make_folders(folder)
        file = path.open("xb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file, path
    finally:
        try:
            with _disk_errors():
                file.close()  # writes what is still in its buffer
        finally:
            path.unlink(missing_ok=True)


def _copy(read_into: ReadInto, file: IO[bytes], max_bytes: int) -> Content:
    """Write and hash one piece in the pool while the next one is being read."""
    digest = hashlib.sha256()
    size = 0

    def take(piece: memoryview) -> None:
        for start in range(0, len(piece), WRITTEN_BYTES):
            file.write(piece[start : start + WRITTEN_BYTES])
        if len(piece) == PIECE_BYTES:
            _begin_write_back(file)
        digest.update(piece)

    one, other = (memoryview(bytearray(PIECE_BYTES)) for _ in range(2))
    wait = event_loop.begin(take, one[:0])
    try:
        while filled := _fill(one, read_into):
            size += filled
            if size > max_bytes:
                raise errors.too_large(f"The file is larger than {max_bytes} bytes")
            with _disk_errors():
                wait()
                wait = event_loop.begin(take, one[:filled])
            one, other = other, one
    finally:
        with _disk_errors():
            wait()
    return Content(digest.hexdigest(), size)


def _append(file: IO[bytes], content: bytearray) -> None:
    with _disk_errors(), memoryview(content) as view:
        for start in range(0, len(view), WRITTEN_BYTES):
            file.write(view[start : start + WRITTEN_BYTES])


def _begin_write_back(file: IO[bytes]) -> None:
    """Start writing back to the disk; otherwise that happens at the fsync, and all requests wait.

    The advice drops cached pages that are on the disk already, of which a new file has none.
    """
    if hasattr(os, "posix_fadvise"):
        upto = file.tell()
        os.posix_fadvise(file.fileno(), upto - PIECE_BYTES, PIECE_BYTES, os.POSIX_FADV_DONTNEED)


def _fill(piece: memoryview, read_into: ReadInto) -> int:
    """Fill a piece; return how many bytes it has, fewer at the end of the body."""
    filled = 0
    while filled < len(piece) and (count := read_into(piece[filled:])):
        filled += count
    return filled


def _keep(file: IO[bytes], path: Path, target: Path) -> None:
    """Move a file to its place atomically, and sync it."""
    if target.exists():
        return  # the same content
    file.flush()
    os.fsync(file.fileno())
    made = fsync.make_folders(target.parent)
    path.rename(target)
    for folder in made:
        fsync.sync_folder(folder)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Log disk errors (full, read-only, broken), and raise M_UNKNOWN (503): try again later."""
    try:
        yield
    except OSError as error:
        LOG.error("cannot write media: %s", error)  # noqa: TRY400 - the message is enough
        raise errors.unavailable("The server cannot store files at the moment") from error
