"""Back up everything that a server stores, while it runs; restore.py is the reverse.

A backup is an archive, see archive.py, or a folder:

    the backup/
      manifest.json    the size and the hash of each file; see copies.py
      homebody.db      one snapshot, checked
      signing.key      without it nobody can act as this server
      homebody.toml    if there is one in the data folder
      media/files/     uploaded files; a second backup into the same folder adds the new ones

The database is copied first and the files after it: a row is written after its file is on the disk,
so every row of the copy has its file. Thumbnails are left out, as the server can generate them.

This runs in a process of its own. SQLite copies one snapshot, page by page: the server can write
meanwhile, and its changes stay in the WAL. The copies are moved to their places at the end, so an
older backup in the folder is valid until the new one is.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from homebody.config.settings import Config
from homebody.server import copies
from homebody.server.copies import (
    CONFIGURATION,
    DATABASE,
    FILES,
    NEW,
    SIGNING_KEY,
    BackupError,
    DamagedError,
    Entry,
    Manifest,
    Progress,
)
from homebody.storage import data_folder, fsync


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied into a backup or a restored server."""

    database_bytes: int
    files: int
    new_files: int
    new_bytes: int
    """The size of the new files."""
    lost_files: int
    """Files in the database that are missing or damaged."""


def make(config: Config, target: Path, on_pages: Progress, on_files: Progress) -> Copied:
    """Copy the server of this configuration into a folder, which may contain an older backup.

    Raises BackupError, StartError and OSError; an older backup is then still valid.
    """
    data_folder.check_restored(config.data_dir)
    database = data_folder.database_path(config.database_url)
    if not database.exists() or not database.stat().st_size:
        raise BackupError(f"There is no database {database}")
    _check_target(config, target)
    for folder in fsync.make_folders(target):
        fsync.sync_folder(folder)
    with fsync.held(target) as is_free:
        if not is_free:
            raise BackupError(f"Another process is writing a backup into {target}")
        try:
            return _make(config, target, on_pages, on_files)
        finally:
            _sweep(target)


def _check_target(config: Config, target: Path) -> None:
    """Raise BackupError for a folder where a backup would mix with the server's own files."""
    place, data_dir = target.resolve(), config.data_dir.resolve()
    if place == data_dir:
        raise BackupError(f"{target} is the data folder itself")
    if place.is_relative_to(data_dir):
        raise BackupError(f"{target} is inside the data folder {config.data_dir}")
    written = {(place / name).resolve() for name in (DATABASE, SIGNING_KEY, CONFIGURATION, FILES)}
    database = data_folder.database_path(config.database_url)
    for path in (database, config.signing_key_path, data_dir / FILES):
        if path.resolve() in written:
            raise BackupError(f"{target} has the server's own {path.name} in it")


def _make(config: Config, target: Path, on_pages: Progress, on_files: Progress) -> Copied:
    before = _before(target)
    _sweep(target)
    fresh = _new(target, DATABASE)
    copies.copy_database(data_folder.database_path(config.database_url), fresh, on_pages)
    new = {DATABASE: copies.entry_of(fresh)}
    new[SIGNING_KEY] = _copy_small(config.signing_key_path, _new(target, SIGNING_KEY))
    if (file := config.data_dir / CONFIGURATION).exists():
        new[CONFIGURATION] = _copy_small(file, _new(target, CONFIGURATION))
    new_sizes = _copy_media(config.data_dir / FILES, target / FILES, on_files)
    media, lost = _check_media(target, copies.uploaded(fresh))
    copies.write_manifest(target, Manifest({**new, **media}, before, lost))
    for name in new:
        _new(target, name).replace(target / name)
    for name in before.keys() - new:
        (target / name).unlink()
    fsync.sync_folder(target)
    fsync.make_private(target / "media")
    size = new[DATABASE].size_bytes
    return Copied(size, len(media), len(new_sizes), sum(new_sizes), len(lost))


def _before(target: Path) -> dict[str, Entry]:
    """Return the files of an older backup that stay until this one is complete."""
    found = [target / name for name in (DATABASE, SIGNING_KEY, CONFIGURATION)]
    return {path.name: copies.entry_of(path) for path in found if path.exists()}


def _new(target: Path, name: str) -> Path:
    return target / f"{name}{NEW}"


def _copy_small(source: Path, target: Path) -> Entry:
    try:
        return copies.copy_file(source, target)
    except FileNotFoundError as error:
        raise BackupError(f"{source} is missing") from error


def _copy_media(source: Path, target: Path, progress: Progress) -> list[int]:
    """Copy the media that the target lacks, and return their sizes.

    A file is named after its hash and never changes. A damaged file does not replace an intact
    copy from an earlier backup.
    """
    found = copies.media(source)
    sizes = []
    for number, (sha256, path) in enumerate(found.items(), start=1):
        copy = target / sha256[:2] / sha256[2:]
        made = fsync.make_folders(copy.parent)
        with contextlib.suppress(DamagedError, FileNotFoundError):  # or it was deleted meanwhile
            if not copy.exists() or copy.stat().st_size != path.stat().st_size:
                sizes.append(copies.copy_file(path, copy, sha256).size_bytes)
        for folder in made:
            fsync.sync_folder(folder)
        progress(number, len(found))
    return sizes


def _check_media(target: Path, named: dict[str, int]) -> tuple[dict[str, Entry], list[str]]:
    """Return the manifest's entries for media, and the hashes of lost files."""
    sizes = {sha256: path.stat().st_size for sha256, path in copies.media(target / FILES).items()}
    lost = sorted(sha256 for sha256, size in named.items() if sizes.get(sha256) != size)
    kept = sizes.keys() - lost
    return {copies.media_path(it).as_posix(): Entry(sizes[it], it) for it in sorted(kept)}, lost


def _sweep(target: Path) -> None:
    """Remove incomplete copies that an interrupted backup has left."""
    patterns = (f"*{NEW}", f"{FILES}/*/.*{NEW}")
    for path in {path for pattern in patterns for path in target.glob(pattern)}:
        path.unlink()
