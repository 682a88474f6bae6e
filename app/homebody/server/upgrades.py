"""What this version of homebody would do to a server that another version has run."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from homebody.config.settings import Config
from homebody.server import copies, startup
from homebody.server.copies import BackupError, Progress
from homebody.storage import data_folder, disk_errors, migrations, replacement
from homebody.storage.data_folder import StartError

BYTES_PER_SECOND: Final = 15_000_000
"""How fast all migrations of a large database are together, on a machine of 2020 or a slow disk."""
BYTES_PER_SECOND_COPIED: Final = 150_000_000
_TRIAL: Final = "trial"


@dataclass(slots=True)
class Forecast:
    """What a start would do."""

    migration: str = ""
    """The database's last one, or an empty text if there is no database."""
    pending: list[str] = field(default_factory=list)
    """The numbers of the migrations that it lacks."""
    database_bytes: int = 0
    needed_bytes: int = 0
    """The free space that migrating takes."""
    free_bytes: int = 0
    seconds: float = 0.0
    """An estimate, or what a trial took."""
    was_tried: bool = False
    problems: list[str] = field(default_factory=list)


def forecast(config: Config) -> Forecast:
    """Look at the database of this configuration without changing anything."""
    found = Forecast()
    try:
        data_folder.check_restored(config.data_dir)
        path = data_folder.database_path(config.database_url)
        if not path.exists():
            return found
        found.database_bytes = path.stat().st_size
        found.free_bytes = shutil.disk_usage(path.resolve().parent).free
        with copies.opened(path, is_in_use=True) as connection:
            found.migration = migrations.current_of(path, connection) or ""
            startup.check_name(config, connection)
        found.pending = migrations.pending(found.migration) if found.migration else []
    except (StartError, OSError) as error:
        found.problems.append(str(error))
        return found
    except sqlite3.Error as error:
        found.problems.append(f"The database {path} can't be read: {error}")
        return found
    if (damage := disk_errors.damage(path, lambda: False)) is not None:
        found.problems.append(f"The database {path} is damaged ({damage}): {disk_errors.ADVICE}")
    if found.pending:
        _estimate(found, path)
    return found


def _estimate(found: Forecast, path: Path) -> None:
    found.needed_bytes = replacement.needed_bytes(path)
    found.seconds = 1.0 + found.database_bytes / BYTES_PER_SECOND_COPIED
    found.seconds += found.database_bytes / BYTES_PER_SECOND
    if found.free_bytes < found.needed_bytes:
        found.problems.append(
            f"Migrating takes up to {found.needed_bytes // 10**6} MB, and"
            f" {found.free_bytes // 10**6} MB are free on the disk of {path}"
        )


def try_out(config: Config, found: Forecast, progress: Progress) -> None:
    """Run the migrations on a copy beside the database, and delete it; the server may run."""
    path = data_folder.database_path(config.database_url).resolve()
    copy = path.with_name(f"{path.name}.migrating-{_TRIAL}")
    began = time.monotonic()
    try:
        _remove(copy)
        copies.copy_database(path, copy, progress)
        migrations.migrate_file(copy)
        found.seconds, found.was_tried = round(time.monotonic() - began, 1), True
    except (StartError, BackupError, OSError) as error:
        found.problems.append(f"Migrating a copy failed: {error}")
    finally:
        _remove(copy)


def _remove(copy: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            copy.with_name(f"{copy.name}{suffix}").unlink()
