"""The format of archives: backups as one file, which is complete or not there.

    homebody-20261129T184300Z.tar
      homebody.db             one snapshot, checked
      signing.key             without it nobody can act as this server
      homebody.toml           the configuration, wherever it was
      data/…, elsewhere/…     files that the settings name, inside the data folder and elsewhere
      media/files/ab/…        uploaded files
      media/remote/ab/…       files of other servers, if wanted
      manifest.json           sizes and hashes of all of them, and versions
      manifest.json.sha256    the hash of the manifest

It is a plain tar file, so that any tool can unpack it, and without compression
(docs/decisions/0029-backup-archives.md). A reader notices every bit that is different: the manifest
covers the content, the checksums of tar its headers, and all other bytes have to be zero.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from homebody.server import copies
from homebody.server.copies import (
    CONFIGURATION,
    DATABASE,
    FILES,
    MANIFEST,
    NEW,
    PIECE_BYTES,
    SIGNING_KEY,
    BackupError,
    DamagedError,
    Entry,
    Folder,
    Manifest,
    Part,
)
from homebody.storage import fsync

SUFFIX: Final = ".tar"
INSIDE: Final = "data"
"""The folder for files that settings name in the data folder, by their path in it."""
ELSEWHERE: Final = "elsewhere"
"""The folder for files that settings name elsewhere, by their absolute path."""
REMOTE: Final = Path("media") / "remote"
_CHECKSUM: Final = f"{MANIFEST}.sha256"
_MAX_MANIFEST_BYTES: Final = 2**30
_BLOCK_BYTES: Final = tarfile.BLOCKSIZE


_NEVER_NAMED: Final = {
    (INSIDE, it) for it in (DATABASE, SIGNING_KEY, CONFIGURATION, FILES.parts[0], ELSEWHERE)
}


class Writer:
    """Writes the members of an archive, each of them to the disk at once."""

    def __init__(self, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self.written = 0
        """The number of bytes of content."""

    def add(self, name: str, source: Path, sha256: str | None = None) -> Entry:
        """Add a file. Raises DamagedError, and adds nothing, if its hash is not the one given."""
        with source.open("rb") as content:
            size, begin, before = (
                os.fstat(content.fileno()).st_size,
                self._file.tell(),
                self.written,
            )
            self._write_header(name, size)
            entry = self._copy(content, size)
        if entry.size_bytes != size or sha256 not in {None, entry.sha256}:
            self._file.seek(begin)
            self._file.truncate()
            self.written = before
            raise DamagedError(source)
        self._pad(size, _BLOCK_BYTES)
        return entry

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest, and what ends the file."""
        described = copies.encode_manifest(manifest)
        checksum = f"{hashlib.sha256(described).hexdigest()}  {MANIFEST}\n".encode()
        for name, content in ((MANIFEST, described), (_CHECKSUM, checksum)):
            self._write_header(name, len(content))
            self._file.write(content)
            self._pad(len(content), _BLOCK_BYTES)
        self._file.write(bytes(2 * _BLOCK_BYTES))
        self._pad(self._file.tell(), tarfile.RECORDSIZE)
        self._file.flush()
        os.fsync(self._file)

    def _write_header(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        self._file.write(info.tobuf(tarfile.PAX_FORMAT))

    def _copy(self, content: IO[bytes], size: int) -> Entry:
        digest, left = hashlib.sha256(), size
        while left and (piece := content.read(min(left, PIECE_BYTES))):
            self._file.write(piece)
            self._file.flush()
            os.fsync(self._file)  # else the fsync of a running server would wait for all of it
            digest.update(piece)
            left -= len(piece)
            self.written += len(piece)
            self._on_bytes(self.written)
        return Entry(size - left, digest.hexdigest())

    def _pad(self, size: int, unit: int) -> None:
        self._file.write(bytes(-size % unit))


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a new file that becomes the archive when the with block has written all of it.

    The caller holds the lock of the folder.
    """
    fresh = target.with_name(f".{target.name}{NEW}")
    try:
        with copies.private_file(fresh) as file:
            yield file
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    fsync.sync_folder(target.parent)


class Archive:
    """A backup in one file; it has the same methods as copies.Folder."""

    manifest: Manifest

    def __init__(self, path: Path) -> None:
        """Read what is in it, except the content. Raises BackupError if it is damaged."""
        self.path = path
        self.size_bytes = path.stat().st_size
        try:
            self._members = _members(path)
            self.manifest = self._read_manifest()
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise BackupError(f"{path} is damaged or not a backup: {error}") from error

    def file(self, name: str) -> Part:
        """Return a member. Raises FileNotFoundError."""
        try:
            return self._members[name]
        except KeyError:
            raise FileNotFoundError(2, "is missing", f"{self.path}: {name}") from None

    def place(self, name: str) -> str:
        """Return how messages call a member."""
        return f"{name} in {self.path}"

    def has(self, name: str) -> bool:
        """Return whether there is such a member."""
        return name in self._members

    def media(self) -> dict[str, Part]:
        """Return the uploaded files by their hashes."""
        folder = f"{FILES.as_posix()}/"
        return {
            "".join(PurePosixPath(name).parts[-2:]): it
            for name, it in self._members.items()
            if name.startswith(folder)
        }

    def _read_manifest(self) -> Manifest:
        if not self._members:
            raise ValueError("it is empty")
        if MANIFEST not in self._members or _CHECKSUM not in self._members:
            raise ValueError("its end is missing")
        if self._members[MANIFEST].size_bytes > _MAX_MANIFEST_BYTES:
            raise ValueError("its manifest is too large")
        described = self._members[MANIFEST].read_bytes()
        checksum = f"{hashlib.sha256(described).hexdigest()}  {MANIFEST}\n".encode()
        if self._members[_CHECKSUM].read_bytes() != checksum:
            raise ValueError(f"the hash of {MANIFEST} is wrong")
        manifest = copies.decode_manifest(described)
        if self._members.keys() - {MANIFEST, _CHECKSUM} != manifest.files.keys():
            raise ValueError(f"it does not contain the files that {MANIFEST} lists")
        return manifest


Source = Folder | Archive
"""A backup to restore."""


def _members(path: Path) -> dict[str, Part]:
    """Return the files of a tar by their names. Raises ValueError and tarfile.TarError."""
    found: dict[str, Part] = {}
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        end = 0
        for info in tar:
            if not info.isreg() or info.name in found or not _is_expected(info.name):
                raise ValueError(f"{info.name!r} has no place in it")
            found[info.name] = Part(path, info.offset_data, info.size)
            _check_zeros(file, info.offset_data + info.size, -info.size % _BLOCK_BYTES)
            end = info.offset_data + info.size + -info.size % _BLOCK_BYTES
        size = os.fstat(file.fileno()).st_size
        if size % tarfile.RECORDSIZE or size - end < 2 * _BLOCK_BYTES:
            raise ValueError("its end is missing")
        if size - end > tarfile.RECORDSIZE + 2 * _BLOCK_BYTES:
            raise ValueError("a header in it is damaged")
        _check_zeros(file, end, size - end)
    return found


def _check_zeros(file: IO[bytes], begin: int, count: int) -> None:
    file.seek(begin)
    if file.read(count) != bytes(count):
        raise ValueError("there is something between its files")


def _is_expected(name: str) -> bool:
    """Return whether a name is one of those that the head of this module lists."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        return False
    if name in {DATABASE, SIGNING_KEY, CONFIGURATION, MANIFEST, _CHECKSUM}:
        return True
    if path.parts[0] in {INSIDE, ELSEWHERE}:
        return len(path.parts) > 1 and (path.parts[0], path.parts[1]) not in _NEVER_NAMED
    return path.parent.parent.as_posix() in {FILES.as_posix(), REMOTE.as_posix()}
