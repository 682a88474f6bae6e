"""Restoring a backup: everything is checked first, and then everything is copied or nothing is.

While the data folder is being filled, it has a marker (`data_folder.RESTORING_NAME`): no server
and no command uses such a folder, and removing the marker is what makes the restored server valid.
A restore that fails removes its files; what a kill or a power cut left, the next restore removes.

A backup with a manifest, as each archive is, is checked against it. Without one (made before there
were manifests, or a plain copy of a data folder) the database's table of media says which files
there have to be, and their names are the hashes of their content.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from homebody.config.settings import Config
from homebody.server import copies, startup
from homebody.server.archive import INSIDE, Archive, Source
from homebody.server.backup import Copied
from homebody.server.copies import (
    CONFIGURATION,
    DATABASE,
    FILES,
    MANIFEST,
    NEW,
    SIGNING_KEY,
    BackupError,
    DamagedError,
    Entry,
    Folder,
    Progress,
    Readable,
)
from homebody.spec.signing import SigningKey
from homebody.storage import data_folder, fsync, migrations

SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_SHOWN: Final = 3


@dataclass(slots=True)
class Plan:
    """A checked backup, and where its files go."""

    source: Source
    config: Config
    has_configuration: bool
    """Whether the backup's configuration becomes that of the data folder."""
    database_bytes: int = 0
    database_sha256: str | None = None
    media: dict[str, int] = field(default_factory=dict)
    """{hash: size} of the files to copy."""
    others: dict[str, Entry] = field(default_factory=dict)
    """More files to copy, by their names in the archive."""
    lost: int = 0
    """The number of media that are left out: lost before, or damaged with `is_lossy`."""

    @property
    def database(self) -> Path:
        """The file that the database is copied to."""
        return data_folder.database_path(self.config.database_url)


def opened(path: Path) -> Source:
    """Return the backup at this path, a folder or an archive. Raises BackupError and OSError."""
    if path.is_file():
        return Archive(path)
    source = Folder(path)
    if not source.has(DATABASE):
        missing = f": {DATABASE} is missing" if path.is_dir() else ""
        raise BackupError(f"There is no backup in {path}{missing}")
    return source


def configuration(data_dir: Path, source: Source) -> Readable | None:
    """Return the backup's configuration if it is to be copied into this data folder.

    An existing one is kept: it may have been written for the new machine. Raises BackupError if it
    is damaged.
    """
    stays = (data_dir / CONFIGURATION).exists() and CONFIGURATION not in _left(data_dir)
    if stays or not source.has(CONFIGURATION):
        return None
    _check_entry(source, CONFIGURATION)  # before anybody tries to understand it
    return source.file(CONFIGURATION)


def check(config: Config, source: Source, progress: Progress, *, is_lossy: bool) -> Plan:
    """Check a backup, and that the data folder is empty, without changing anything.

    With `is_lossy`, media that are missing or damaged are left out. Raises BackupError, StartError
    and OSError.
    """
    if source.path.resolve().is_relative_to(config.data_dir.resolve()):
        raise BackupError(
            f"{source.path} is inside the data folder {config.data_dir}: move it out first"
        )
    _check_place(config)
    plan = Plan(source, config, configuration(config.data_dir, source) is not None)
    _check_small(plan)
    if isinstance(source, Archive):
        _check_archive(plan, source, progress)
    else:
        _check_database(plan, source.path / DATABASE)
    _check_media(plan, progress, is_lossy=is_lossy)
    _check_room(plan)
    return plan


@contextlib.contextmanager
def filling(plan: Plan, on_pages: Progress, on_files: Progress) -> Iterator[Copied]:
    """Fill the data folder, whose lock the caller holds; the with block may then change it.

    Any exception, also in the with block, empties the folder again. Raises BackupError and OSError.
    """
    marker = plan.config.data_dir / data_folder.RESTORING_NAME
    _clear(plan.config.data_dir)
    targets = [plan.database, plan.config.signing_key_path]
    targets.append(plan.config.data_dir / FILES)
    if plan.has_configuration:
        targets.append(plan.config.data_dir / CONFIGURATION)
    targets += [_target(plan.config, name) for name in plan.others]
    try:
        copies.write_file(marker, orjson.dumps(_inside(plan.config.data_dir, targets)))
        yield _copy(plan, on_pages, on_files)
    except BaseException:
        _remove(plan.config.data_dir, targets)
        _finish(marker)
        raise
    _finish(marker)


def _check_place(config: Config) -> None:
    """Raise BackupError for existing files that are not left from an interrupted restore."""
    left = _left(config.data_dir)
    database = data_folder.database_path(config.database_url)
    beside = [database.with_name(f"{database.name}{suffix}") for suffix in SIDE_FILES]
    for path in (database, *beside, config.signing_key_path):
        owner = database if path in beside else path
        if path.exists() and not set(_inside(config.data_dir, [owner])) & left:
            raise BackupError(f"{path} exists already: move it away first")
    files = config.data_dir / FILES
    if FILES.as_posix() not in left and any(copies.media(files)):
        raise BackupError(f"There are files in {files} already: move them away first")


def _check_small(plan: Plan) -> None:
    """Raise BackupError if the signing key or the configuration is missing or damaged."""
    source = plan.source
    key = source.place(SIGNING_KEY)
    try:
        SigningKey.from_text(source.file(SIGNING_KEY).read_bytes().decode())
    except FileNotFoundError as error:
        raise BackupError(f"{key} is missing") from error
    except ValueError as error:
        raise BackupError(f"{key} is damaged: {error}") from error
    if source.manifest is None:
        return
    for name in (SIGNING_KEY, CONFIGURATION):
        if name in source.manifest.files and not source.has(name):
            raise BackupError(f"{source.place(name)} is missing")
        if source.has(name):
            _check_entry(source, name)


def _check_entry(source: Source, name: str) -> Entry:
    """Read a file, and return its entry. Raises BackupError if it is not that of the manifest."""
    found = copies.entry_of(source.file(name))
    if source.manifest is not None and found not in source.manifest.allowed(name):
        raise BackupError(f"{source.place(name)} is damaged: it is not what {MANIFEST} says")
    return found


def _check_database(plan: Plan, database: Path) -> None:
    """Raise BackupError for a damaged database, StartError for one of another server or version."""
    plan.database_bytes = database.stat().st_size
    if plan.source.manifest is not None:
        plan.database_sha256 = _check_entry(plan.source, DATABASE).sha256
    try:
        copies.check_pages(database)
        with copies.opened(database) as connection:
            migration = migrations.current_of(database, connection)
            if migration is None:
                raise BackupError(f"The database {database} is empty")
            migrations.is_behind(migration)
            startup.check_name(plan.config, connection)
    except sqlite3.Error as error:
        raise BackupError(f"The database {database} can't be copied: {error}") from error


def _check_archive(plan: Plan, source: Archive, progress: Progress) -> None:
    """Check what an archive has besides key, configuration and uploaded files.

    Its database was checked before it came into the archive. Raises as `_check_database` does.
    """
    manifest = source.manifest
    if DATABASE not in manifest.files:
        raise BackupError(f"There is no backup in {source.path}: {DATABASE} is missing")
    migrations.is_behind(manifest.migration)
    startup.check_accounts_name(plan.config, manifest.server_name)
    seen = 0
    for name, entry in manifest.files.items():
        if not copies.is_media(name):
            _check_entry(source, name)
            progress(seen := seen + entry.size_bytes, source.size_bytes)
    database = manifest.files[DATABASE]
    plan.database_bytes, plan.database_sha256 = database.size_bytes, database.sha256
    left = _left(plan.config.data_dir)
    for name, entry in manifest.files.items():
        if copies.is_media(name) or name in {DATABASE, SIGNING_KEY, CONFIGURATION}:
            continue
        target = _target(plan.config, name)
        # An existing file is kept, as the configuration is
        if not target.exists() or {*_inside(plan.config.data_dir, [target])} & left:
            plan.others[name] = entry


def _target(config: Config, name: str) -> Path:
    """Return where a file that is in archives only comes to."""
    return config.data_dir / name.removeprefix(f"{INSIDE}/")


def _check_media(plan: Plan, progress: Progress, *, is_lossy: bool) -> None:
    """Raise BackupError for missing or damaged media, unless the server had already lost them."""
    source = plan.source
    is_archive = isinstance(source, Archive)
    named = {} if is_archive else copies.uploaded(source.path / DATABASE)
    files = source.media()
    sizes: dict[str, int | None] = {**named}
    known_to_be_lost = set[str]()
    if source.manifest is None:
        sizes = {**dict.fromkeys(files), **sizes}
    else:
        entries = source.manifest.files.items()
        sizes |= {it.sha256: it.size_bytes for path, it in entries if copies.is_media(path)}
        known_to_be_lost = {*source.manifest.lost_media}
        plan.lost = len(known_to_be_lost) if is_archive else 0
    bad = []
    total = sum(size or 1 for size in sizes.values())
    done = 0
    for sha256, size in sorted(sizes.items()):
        found = copies.entry_of(files[sha256]) if sha256 in files else None
        if found is not None and found.sha256 == sha256 and size in {None, found.size_bytes}:
            plan.media[sha256] = found.size_bytes
        elif sha256 in known_to_be_lost or is_lossy:
            plan.lost += 1
        else:
            bad.append(f"{copies.media_path(sha256)} is {'damaged' if found else 'missing'}")
        done += size or 1
        progress(done, total)
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise BackupError(
            f"The backup is incomplete: {', '.join(bad[:_SHOWN])}{more}. With --skip-damaged-media"
            " everything else is restored"
        )


def _check_room(plan: Plan) -> None:
    """Raise BackupError when the disk does not have enough space."""
    needed = sum(plan.media.values()) + plan.database_bytes
    needed += sum(it.size_bytes for it in plan.others.values())
    folder = plan.config.data_dir
    while not folder.exists():
        folder = folder.parent
    if (free := shutil.disk_usage(folder).free) < needed:
        raise BackupError(
            f"The disk of {plan.config.data_dir} has {free // 10**6} MB free, and the backup takes"
            f" {needed // 10**6} MB"
        )


def _copy(plan: Plan, on_pages: Progress, on_files: Progress) -> Copied:
    """Copy what was checked. Raises BackupError when a file has changed since."""
    config, source = plan.config, plan.source
    try:
        for name, entry in plan.others.items():
            _copy_into(source.file(name), _target(config, name), entry.sha256)
        media = source.media()
        for number, sha256 in enumerate(plan.media, start=1):
            copy = config.data_dir / copies.media_path(sha256)
            _copy_into(media[sha256], copy, sha256)
            on_files(number, len(plan.media))
        copies.copy_file(source.file(SIGNING_KEY), config.signing_key_path)
        if plan.has_configuration:
            copies.copy_file(source.file(CONFIGURATION), config.data_dir / CONFIGURATION)
        database = source.file(DATABASE)
        if plan.database_sha256 is None and isinstance(database, Path):
            copies.copy_database(database, plan.database, on_pages, is_in_use=False)
            fsync.sync_folder(plan.database.parent)
        else:
            copies.copy_file(database, plan.database, plan.database_sha256)
    except DamagedError as error:
        raise BackupError(f"{error} has changed since it was checked") from error
    size = plan.database.stat().st_size
    return Copied(size, len(plan.media), len(plan.media), sum(plan.media.values()), plan.lost)


def _copy_into(source: Readable, target: Path, sha256: str) -> None:
    made = fsync.make_folders(target.parent)
    copies.copy_file(source, target, sha256)
    for folder in made:
        fsync.sync_folder(folder)


def _inside(data_dir: Path, paths: list[Path]) -> list[str]:
    """Return those paths that are in the data folder, relative to it."""
    return [
        path.relative_to(data_dir).as_posix() for path in paths if path.is_relative_to(data_dir)
    ]


def _left(data_dir: Path) -> set[str]:
    """Return what an interrupted restore may have put into a data folder, as relative paths."""
    try:
        return {*orjson.loads((data_dir / data_folder.RESTORING_NAME).read_bytes())}
    except (FileNotFoundError, ValueError):
        return set()


def _clear(data_dir: Path) -> None:
    """Remove what an interrupted restore has left, except its marker."""
    for half in data_dir.glob(f".{data_folder.RESTORING_NAME}.*{NEW}"):
        half.unlink()
    left = [data_dir / name for name in _left(data_dir) if ".." not in Path(name).parts]
    _remove(data_dir, left)


def _remove(data_dir: Path, targets: list[Path]) -> None:
    """Remove files that a restore has created, and media, but no other files among them."""
    for path in targets:
        if path.is_dir():
            for file in (*copies.media(path).values(), *path.glob(f"??/.*{NEW}")):
                file.unlink()
            for folder in (*path.glob("??"), path, path.parent):
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
            continue
        for suffix in ("", *SIDE_FILES):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
        for half in path.parent.glob(f".{path.name}.*{NEW}"):
            half.unlink()
        for folder in path.parents:
            if folder == data_dir or data_dir not in folder.parents:
                break
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _finish(marker: Path) -> None:
    """Remove the marker after everything else is on the disk."""
    fsync.sync_folder(marker.parent)
    marker.unlink(missing_ok=True)
    fsync.sync_folder(marker.parent)
