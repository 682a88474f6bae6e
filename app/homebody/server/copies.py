"""How files and databases are copied for backup.py and restore.py: whole or not at all.

What is copied goes to the disk in small pieces, as otherwise the fsync of a running server's COMMIT
would wait behind gigabytes of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from homebody.config import settings
from homebody.server import manifest
from homebody.server.manifest import PIECE_BYTES, Entry
from homebody.storage import fsync

DATABASE: Final = settings.DATABASE_NAME
SIGNING_KEY: Final = settings.SIGNING_KEY_NAME
CONFIGURATION: Final = settings.FILE_NAME
FILES: Final = Path("media") / "files"
NEW: Final = ".new"
HASH_LETTERS: Final = 64

_UPLOADED: Final = "SELECT sha256, max(size_bytes) FROM media WHERE sha256 NOT NULL GROUP BY sha256"

Progress = Callable[[int, int], None]
"""Is called with how much is done, and of how much."""


class BackupError(Exception):
    """The reason why no backup was made, or nothing was restored, as one line."""


class DamagedError(Exception):
    """A file has another content than it should have."""


def copy_file(source: Path, target: Path, sha256: str | None = None) -> Entry:
    """Copy a file so that under its name there is all of it or what was there before.

    Raises DamagedError when its hash is not the one given, and OSError.
    """
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}{NEW}")
    digest, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as old, private(fresh) as new:
            for piece in manifest.pieces(old):
                new.write(piece)
                new.flush()
                os.fsync(new)
                digest.update(piece)
                size += len(piece)
        if sha256 not in {None, digest.hexdigest()}:
            raise DamagedError(source)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    fsync.sync_folder(target.parent)
    return Entry(size, digest.hexdigest())


def write_file(target: Path, content: bytes) -> None:
    """Put this content under a name, all of it or none."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}{NEW}")
    try:
        with private(fresh) as file:
            file.write(content)
            file.flush()
            os.fsync(file)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    fsync.sync_folder(target.parent)


def copy_database(
    source: Path, target: Path, progress: Progress, *, is_in_use: bool = True
) -> None:
    """Copy what a database is at one moment into a new file, and check it.

    Raises BackupError, and leaves no file then.
    """
    connect = _open_in_use if is_in_use else opened
    try:
        with private(target) as file:
            with connect(source) as old:
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
    """Raise sqlite3.Error for a file that is not a whole database."""
    with opened(database) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {verdict}")


def uploaded(database: Path) -> dict[str, int]:
    """Return the media that a database names, {hash: size}. Raises sqlite3.Error."""
    with opened(database) as connection:
        return dict(connection.execute(_UPLOADED).fetchall())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database of a backup, without changing it.

    One without a WAL is read without SQLite's files beside it, as it may be on a disk that can't be
    written to.
    """
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    url = f"file:{quote(str(path.absolute()))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(url, uri=True, timeout=30)) as connection:
        yield connection


def media(folder: Path) -> dict[str, Path]:
    """Return the files below a folder `media/files`, by the hashes that are their names."""
    found = {f"{path.parent.name}{path.name}": path for path in folder.glob("??/*")}
    return {it: found[it] for it in sorted(found) if is_hash(it) and found[it].is_file()}


def media_path(sha256: str) -> Path:
    """Return where the content of this hash lies, from the folder of a server or a backup."""
    return FILES / sha256[:2] / sha256[2:]


def is_hash(name: str) -> bool:
    """Return whether a file of this name can be one of media."""
    return len(name) == HASH_LETTERS and set(name) <= set("0123456789abcdef")


def private(path: Path) -> IO[bytes]:
    """Make a file that only its owner can read. Raises FileExistsError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


@contextlib.contextmanager
def _open_in_use(path: Path) -> Iterator[sqlite3.Connection]:
    url = f"file:{quote(str(path.absolute()))}?mode=rw"
    with contextlib.closing(sqlite3.connect(url, uri=True, timeout=30)) as connection:
        yield connection


def _copy_pages(old: sqlite3.Connection, fresh: Path, file: IO[bytes], progress: Progress) -> None:
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as new:
        new.execute("PRAGMA synchronous = OFF")  # it is brought to the disk here
        (page_bytes,) = old.execute("PRAGMA page_size").fetchone()
        # One snapshot from here on: without this, each write of the server begins the copy anew
        old.execute("BEGIN")
        old.execute("SELECT 1 FROM sqlite_schema").fetchone()

        def note(_status: int, left: int, total: int) -> None:
            os.fsync(file)
            progress(total - left, total)

        old.backup(new, pages=PIECE_BYTES // page_bytes, progress=note)
        old.execute("ROLLBACK")
