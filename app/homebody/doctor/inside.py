"""Checks of this machine: the server's process, its files, its database, the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from homebody.config import secret_files
from homebody.config.settings import ConfigError
from homebody.core import server_key
from homebody.doctor.examination import Examination, local_address
from homebody.doctor.fetching import UnreachableError
from homebody.doctor.findings import Finding
from homebody.storage import data_folder, disk_errors, fsync, last_backup, migrations
from homebody.storage.data_folder import StartError

DATABASE_S: Final = 15.0
"""For the check of the database, which reads all of it."""
LOW_BYTES, LOW_SHARE = 2 * 2**30, 0.05
FULL_BYTES: Final = 200 * 2**20


def process(ex: Examination) -> Iterator[Finding]:
    """Check that the server runs."""
    url = f"http://{local_address(ex.config)}"
    try:
        answer = ex.fetcher.fetch(f"{url}/health")
    except UnreachableError as error:
        yield ex.report.broken("server", f"{url}: {error}")
        return
    if answer.body == b"OK":
        yield ex.report.ok("server", f"running at {url}")
    else:
        yield ex.report.broken("server", f"{url}/health: {answer.shown}")


def signing_key(ex: Examination) -> Iterator[Finding]:
    """Check that the signing key can be read."""
    try:
        key = server_key.load(ex.config)
    except ConfigError as error:
        yield ex.report.broken("signing-key", str(error))
    else:
        yield ex.report.ok("signing-key", key.key_id)


def database(ex: Examination) -> Iterator[Finding]:
    """Check that the database is not damaged, and its version."""
    path = data_folder.database_path(ex.config.database_url)
    if not path.exists():
        yield ex.report.broken("database", f"there is no database {path}")
        return
    found = _integrity(ex, path)
    yield found
    if found.severity == "broken":
        return
    try:
        data_folder.check_restored(ex.config.data_dir)
        revision = migrations.current(ex.config.database_url) or "0000"
        if migrations.is_behind(revision):
            newest = migrations.known()[-1]
            yield ex.report.warning("migrations", f"the database has {revision}, not {newest}")
        else:
            yield ex.report.ok("migrations", f"up to date ({revision})")
    except StartError as error:
        yield ex.report.broken("migrations", str(error))


def _integrity(ex: Examination, path: Path) -> Finding:
    until = time.monotonic() + min(DATABASE_S, ex.left_s() - 1)
    size = f"{path.stat().st_size / 2**20:.0f} MiB"
    found = disk_errors.damage(path, lambda: time.monotonic() > until)
    if found is not None:
        return ex.report.broken("database", f"{path}: {found}")
    if time.monotonic() > until:
        return ex.report.skipped(
            "database", f"{size}: too large to check within {DATABASE_S:.0f} s"
        )
    return ex.report.ok("database", f"{size}, not damaged")


def files(ex: Examination) -> Iterator[Finding]:
    """Check that the server can write its files, and that nobody else can read them."""
    if not ex.config.data_dir.exists():
        yield ex.report.skipped("file-modes", f"there is no folder {ex.config.data_dir}")
        return
    found = [*_modes(ex), *_owners(ex)]
    yield from found
    if not found:
        yield ex.report.ok("file-modes", f"only the server's user can read {ex.config.data_dir}")


def _own_files(ex: Examination) -> list[Path]:
    database_file = data_folder.database_path(ex.config.database_url)
    beside = [database_file.with_name(f"{database_file.name}{it}") for it in ("-wal", "-shm")]
    media = ex.config.data_dir / "media"
    named = [database_file, *beside, ex.config.signing_key_path, media]
    return [it for it in named if it.exists()]


def _modes(ex: Examination) -> Iterator[Finding]:
    secrets = dict.fromkeys(secret_files.in_force(ex.options.environ or os.environ))
    wanted = [(it, fsync.NOT_OWNER) for it in _own_files(ex)]
    wanted += [(it, fsync.OTHERS) for it in secrets if it.exists()]
    for path, excess in wanted:
        mode = path.stat().st_mode & 0o777
        # nobody gets to a file in a folder that is closed to others
        if mode & excess and not _is_closed(path.parent):
            better = f"{mode & ~excess:o}"
            seen = f"{path} has mode {mode:o}"
            yield ex.report.warning("file-modes", seen, mode=better, path=str(path))


def _is_closed(folder: Path) -> bool:
    """Return whether other users can't enter a folder."""
    return not folder.stat().st_mode & 0o011


def _owners(ex: Examination) -> Iterator[Finding]:
    """Find files that belong to another user than the data folder."""
    folder = ex.config.data_dir.stat()
    for path in _own_files(ex):
        if path.stat().st_uid != folder.st_uid:
            seen = f"{path} belongs to user {_name(path.stat().st_uid)}"
            owner = _name(folder.st_uid)
            yield ex.report.broken("file-owner", seen, owner=owner, path=str(path))


def _name(uid: int) -> str:
    import pwd  # noqa: PLC0415 - not on every system

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def disk(ex: Examination) -> Iterator[Finding]:
    """Check that there is room on the disk, for files of any size and number."""
    folder = ex.config.data_dir
    if not folder.exists():
        yield ex.report.skipped("disk-space", f"there is no folder {folder}")
        return
    usage, entries = shutil.disk_usage(folder), os.statvfs(folder)
    seen = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.0f} GiB are free"
    is_low = usage.free < min(LOW_BYTES, LOW_SHARE * usage.total)
    if entries.f_files and entries.f_favail < 1000:
        yield ex.report.broken("disk-space", f"{entries.f_favail} more files can be made")
    elif usage.free < FULL_BYTES:
        yield ex.report.broken("disk-space", seen)
    elif is_low:
        yield ex.report.warning("disk-space", seen)
    else:
        yield ex.report.ok("disk-space", seen)


def backup(ex: Examination) -> Iterator[Finding]:
    """Check that there is a backup, and not an old one."""
    found = last_backup.read(ex.config.data_dir)
    if found is None:
        yield ex.report.warning("backup", "no backup was made on this machine")
        return
    seen = f"{datetime.fromtimestamp(found.ts / 1000, UTC):%Y-%m-%d}, to {found.place}"
    if not Path(found.place).exists():
        seen += ", which is not there at the moment"
    made = ex.report.warning if found.is_old else ex.report.ok
    yield made("backup", f"the latest is of {seen}")
