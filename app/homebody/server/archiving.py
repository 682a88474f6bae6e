"""Backing up a server into an archive, while it runs.

The order is that of backup.py: first the database, then the files that it names. The archive is
written to another name and moved to its own when it is complete, so a kill or a full disk at any
moment leaves what was there before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Final

from homebody.config import secret_files, settings
from homebody.config.settings import Config
from homebody.core.appservices import files as registrations
from homebody.server import archive, copies, startup
from homebody.server.archive import ELSEWHERE, INSIDE, REMOTE, SUFFIX, Writer
from homebody.server.backup import Copied
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
from homebody.storage import data_folder, fsync, migrations

_SNAPSHOT: Final = f".db{NEW}"


@dataclass(frozen=True, slots=True)
class Sources:
    """What goes into an archive besides the database."""

    files: dict[str, Path]
    """Key, configuration, and files that settings name, by their names in the archive."""
    media: dict[str, Path]
    """Uploaded files by their hashes."""
    remote: dict[str, Path]
    """Files of other servers, by their names in the archive."""


def make(
    config: Config,
    environ: Mapping[str, str],
    target: Path,
    progress: Progress,
    *,
    with_remote_media: bool = False,
) -> Copied:
    """Write an archive of the server of this configuration. `progress` takes bytes.

    Raises BackupError, StartError and OSError; an older archive of this name is then still there.
    """
    data_folder.check_restored(config.data_dir)
    database = data_folder.database_path(config.database_url)
    if not database.exists() or not database.stat().st_size:
        raise BackupError(f"There is no database {database}")
    if target.resolve().is_relative_to(config.data_dir.resolve()):
        raise BackupError(f"{target} is inside the data folder {config.data_dir}")
    for folder in fsync.make_folders(target.parent):
        fsync.sync_folder(folder)
    with fsync.held(target.parent) as is_free:
        if not is_free:
            raise BackupError(f"Another process is writing a backup into {target.parent}")
        _sweep(target.parent)
        sources = _sources(config, environ, with_remote_media=with_remote_media)
        snapshot = target.with_name(f".{target.name}{_SNAPSHOT}")
        try:
            return _make(database, sources, snapshot, target, progress)
        finally:
            snapshot.unlink(missing_ok=True)


def _sources(config: Config, environ: Mapping[str, str], *, with_remote_media: bool) -> Sources:
    if not config.signing_key_path.exists():
        raise BackupError(f"{config.signing_key_path} is missing")
    files = {SIGNING_KEY: config.signing_key_path}
    named = [*secret_files.in_force(environ), *registrations.paths(config)]
    if config.federation_ca_file is not None:
        named.append(config.federation_ca_file)
    if (file := settings.file_in_force(environ)) is not None:
        files[CONFIGURATION] = file
    known = {it.resolve() for it in files.values()}
    for path in named:
        if path.resolve() not in known:
            files[_name(config.data_dir, path)] = path
    remote = {}
    if with_remote_media:
        found = sorted((config.data_dir / REMOTE).glob("??/*"))
        remote = {it.relative_to(config.data_dir).as_posix(): it for it in found if it.is_file()}
    return Sources(files, copies.media(config.data_dir / FILES), remote)


def _name(data_dir: Path, path: Path) -> str:
    """Return the name in the archive of a file that a setting names."""
    path = Path(os.path.normpath(path.absolute()))
    if path.is_relative_to(data_dir):
        return PurePosixPath(INSIDE, path.relative_to(data_dir)).as_posix()
    return PurePosixPath(ELSEWHERE, path.relative_to("/")).as_posix()


def _make(
    database: Path, sources: Sources, snapshot: Path, target: Path, progress: Progress
) -> Copied:
    everything = (*sources.files.values(), *sources.media.values(), *sources.remote.values())
    files_bytes = sum(map(_size, everything))
    _check_room(target, 2 * database.stat().st_size + files_bytes)
    pages = database.stat().st_size
    total = 2 * pages + files_bytes  # the database is copied, and then added
    copies.copy_database(
        database, snapshot, lambda done, of: progress(pages * done // max(of, 1), total)
    )
    with archive.replacing(target) as file:
        writer = Writer(file, lambda written: progress(min(pages + written, total), total))
        entries = {DATABASE: writer.add(DATABASE, snapshot)}
        entries |= {name: writer.add(name, path) for name, path in sources.files.items()}
        media = _add_media(writer, sources.media)
        entries |= media | _add_remote(writer, sources.remote)
        named = copies.uploaded(snapshot)
        lost = sorted(it for it, size in named.items() if _entry(media, it).size_bytes != size)
        writer.finish(_manifest(snapshot, entries, lost))
    progress(total, total)
    media_bytes = sum(it.size_bytes for it in media.values())
    return Copied(entries[DATABASE].size_bytes, len(media), len(media), media_bytes, len(lost))


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
        return path.stat().st_size
    return 0


def _entry(media: Mapping[str, Entry], sha256: str) -> Entry:
    return media.get(copies.media_path(sha256).as_posix(), Entry(-1, sha256))


def _add_media(writer: Writer, media: Mapping[str, Path]) -> dict[str, Entry]:
    """Add uploaded files, except damaged ones and those that are deleted meanwhile."""
    added = {}
    for sha256, path in media.items():
        name = copies.media_path(sha256).as_posix()
        with contextlib.suppress(FileNotFoundError, DamagedError):
            added[name] = writer.add(name, path, sha256)
    return added


def _add_remote(writer: Writer, remote: Mapping[str, Path]) -> dict[str, Entry]:
    added = {}
    for name, path in remote.items():
        with contextlib.suppress(FileNotFoundError, DamagedError):  # it can be fetched again
            added[name] = writer.add(name, path)
    return added


def _manifest(snapshot: Path, files: dict[str, Entry], lost: list[str]) -> Manifest:
    with copies.opened(snapshot) as connection:
        return Manifest(
            files,
            lost_media=lost,
            server_name=startup.accounts_name(connection),
            migration=migrations.current_of(snapshot, connection) or "",
            homebody=version("homebody"),
            created_ts=time.time_ns() // 1_000_000,
        )


def _check_room(target: Path, needed: int) -> None:
    """Raise BackupError when the disk does not have enough space."""
    if (free := shutil.disk_usage(target.parent).free) < needed:
        raise BackupError(
            f"The disk of {target.parent} has {free // 10**6} MB free, and the backup takes up to"
            f" {needed // 10**6} MB while it is being made"
        )


def _sweep(folder: Path) -> None:
    """Remove incomplete files that an interrupted backup has left."""
    for suffix in (NEW, _SNAPSHOT):
        for path in folder.glob(f".*{SUFFIX}{suffix}*"):
            path.unlink()
