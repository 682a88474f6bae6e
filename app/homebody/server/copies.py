"""How backup.py and restore.py copy files and databases, and how a backup describes what it has.

Copies are written to the disk in small pieces: otherwise the fsync of a running server's COMMIT
would wait for gigabytes of ours.

`manifest.json` in the folder of a backup has the size and the hash of each file. It is written
before the files that a new backup replaces (database, key, configuration) are moved to their
places, and also describes those that were there before. So the backup is valid at any moment, the
old one or the new one, whatever interrupts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final
from urllib.parse import quote

import msgspec

from homebody.config import settings
from homebody.storage import fsync

DATABASE: Final = settings.DATABASE_NAME
SIGNING_KEY: Final = settings.SIGNING_KEY_NAME
CONFIGURATION: Final = settings.FILE_NAME
FILES: Final = Path("media") / "files"
MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
NEW: Final = ".new"
PIECE_BYTES: Final = 2**20
HASH_LETTERS: Final = 64

# Raw SQL: on a plain connection, as another process has the engine
_UPLOADED: Final = "SELECT sha256, max(size_bytes) FROM media WHERE sha256 NOT NULL GROUP BY sha256"

Progress = Callable[[int, int], None]
"""Called with the amount that is done and the total."""


class BackupError(Exception):
    """The reason why no backup was made, or nothing was restored, as one line."""


class DamagedError(Exception):
    """A file does not have the content that it should have."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file, such as a file in an archive."""

    whole: Path
    begin: int
    size_bytes: int

    @contextlib.contextmanager
    def open(self, _mode: str = "rb") -> Iterator[io.RawIOBase]:
        """Open it to read it from the beginning."""
        with self.whole.open("rb") as file:
            file.seek(self.begin)
            yield _OpenPart(file, self.size_bytes)

    def read_bytes(self) -> bytes:
        """Return all of it."""
        with self.whole.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.size_bytes)


class _OpenPart(io.RawIOBase):
    """The next bytes of a file, as a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any buffer
        piece = self._file.read(min(len(buffer), self._left))
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)


Readable = Path | Part


class Entry(msgspec.Struct, frozen=True):
    """What a file has to be."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The content of manifest.json."""

    files: dict[str, Entry]
    """By the path below the backup's folder, with / between its parts."""
    previous: dict[str, Entry] = {}
    """Files that may still be there in place of those in `files`."""
    lost_media: list[str] = []
    """Hashes of files that the server itself no longer had, so a restored one can't have them."""
    server_name: str = ""
    """Of the accounts in the database; empty if there are none."""
    migration: str = ""
    """The database's last one."""
    homebody: str = ""
    """The version that made the backup."""
    created_ts: int = 0
    format: int = FORMAT

    def allowed(self, path: str) -> list[Entry]:
        """Return what the file of this path may be."""
        entries = (self.files.get(path), self.previous.get(path))
        return [it for it in entries if it is not None]


class Folder:
    """A backup in a folder."""

    def __init__(self, path: Path) -> None:
        """Read the manifest, if there is one. Raises BackupError if that is damaged."""
        self.path = path
        try:
            self.manifest = read_manifest(path)
        except ValueError as error:
            raise BackupError(f"{path / MANIFEST} is damaged: {error}") from error

    def file(self, name: str) -> Path:
        """Return the path of a file."""
        return self.path / name

    def place(self, name: str) -> str:
        """Return how messages call a file."""
        return str(self.path / name)

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self.path / name).exists()

    def media(self) -> dict[str, Path]:
        """Return the uploaded files by their hashes."""
        return media(self.path / FILES)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a backup; None for one made before there were manifests.

    Raises ValueError for one that is damaged, and OSError.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    return decode_manifest(raw)


def decode_manifest(raw: bytes) -> Manifest:
    """Return a manifest. Raises ValueError for one that is damaged."""
    manifest = msgspec.json.decode(raw, type=Manifest)
    if manifest.format != FORMAT:
        raise ValueError(f"its format is {manifest.format}, and this homebody knows {FORMAT}")
    for path, entry in manifest.files.items():
        if is_media(path) and "".join(PurePosixPath(path).parts[-2:]) != entry.sha256:
            raise ValueError(f"the hash of {path} is not its name")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into the folder of a backup, completely or not at all."""
    write_file(folder / MANIFEST, encode_manifest(manifest))


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the content of manifest.json."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def entry_of(source: Readable) -> Entry:
    """Read a file and return its entry."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
            size += len(piece)
    return Entry(size, digest.hexdigest())


def copy_file(source: Readable, target: Path, sha256: str | None = None) -> Entry:
    """Copy a file completely, or leave what was there before.

    Raises DamagedError when its hash is not the one given, and OSError.
    """
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as old, _replacing(target) as new:
        for piece in _pieces(old):
            new.write(piece)
            new.flush()
            os.fsync(new)
            digest.update(piece)
            size += len(piece)
        if sha256 not in {None, digest.hexdigest()}:
            raise DamagedError(source)
    return Entry(size, digest.hexdigest())


def write_file(target: Path, content: bytes) -> None:
    """Write a file completely, or leave what was there before."""
    with _replacing(target) as file:
        file.write(content)
        file.flush()
        os.fsync(file)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of another when the with block has written it."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}{NEW}")
    try:
        with private_file(fresh) as file:
            yield file
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    fsync.sync_folder(target.parent)


def _pieces(file: IO[bytes] | io.RawIOBase) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def copy_database(
    source: Path, target: Path, progress: Progress, *, is_in_use: bool = True
) -> None:
    """Copy one snapshot of a database into a new file, and check it.

    Raises BackupError, and leaves no file then.
    """
    try:
        with private_file(target) as file:
            with opened(source, is_in_use=is_in_use) as old:
                _copy_pages(old, target, file, progress)
            os.fsync(file)
        check_pages(target)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise BackupError(f"The database {source} can't be copied: {error}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def check_pages(database: Path) -> None:
    """Raise sqlite3.Error for a file that is not an intact database."""
    with opened(database) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {verdict}")


def uploaded(database: Path) -> dict[str, int]:
    """Return the media that a database names, {hash: size}. Raises sqlite3.Error."""
    with opened(database) as connection:
        return dict(connection.execute(_UPLOADED).fetchall())


@contextlib.contextmanager
def opened(path: Path, *, is_in_use: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a database to read it; one of a backup is not changed.

    One without a WAL is read without SQLite's other files, as it may be on a read-only disk.
    """
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    mode = "rw" if is_in_use else mode
    url = f"file:{quote(str(path.absolute()))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(url, uri=True, timeout=30)) as connection:
        yield connection


def media(folder: Path) -> dict[str, Path]:
    """Return the files below a folder `media/files`, by the hashes that are their names."""
    found = {f"{path.parent.name}{path.name}": path for path in folder.glob("??/*")}
    return {it: found[it] for it in sorted(found) if _is_hash(it) and found[it].is_file()}


def media_path(sha256: str) -> Path:
    """Return the path of the content with this hash, in the folder of a server or a backup."""
    return FILES / sha256[:2] / sha256[2:]


def is_media(path: str) -> bool:
    """Return whether this path in a backup is that of an uploaded file, named by its hash."""
    return path.startswith(f"{FILES.as_posix()}/")


def _is_hash(name: str) -> bool:
    return len(name) == HASH_LETTERS and set(name) <= set("0123456789abcdef")


def private_file(path: Path) -> IO[bytes]:
    """Create a file that other users can't read. Raises FileExistsError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _copy_pages(old: sqlite3.Connection, fresh: Path, file: IO[bytes], progress: Progress) -> None:
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as new:
        new.execute("PRAGMA synchronous = OFF")  # we call fsync ourselves
        (page_bytes,) = old.execute("PRAGMA page_size").fetchone()
        # One snapshot from here on: without this, each write of the server restarts the copy
        old.execute("BEGIN")
        # Raw SQL: as above
        old.execute("SELECT 1 FROM sqlite_schema").fetchone()

        def note(_status: int, left: int, total: int) -> None:
            os.fsync(file)
            progress(total - left, total)

        old.backup(new, pages=PIECE_BYTES // page_bytes, progress=note)
        old.execute("ROLLBACK")
