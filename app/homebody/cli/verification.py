"""`homebody backup --verify`: whether a server would come back from a backup."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from homebody.cli import restore
from homebody.cli.backup import byte_bar
from homebody.cli.database import open_migrated
from homebody.config import settings
from homebody.core.accounts import accounts
from homebody.core.sessions import registration
from homebody.server import copies, startup, trial
from homebody.server import restore as restoring
from homebody.server.archive import Archive, Source
from homebody.server.copies import DATABASE


def verify(target: Path, scratch: Path) -> dict[str, Any]:
    """Check a backup, restore it into a scratch folder, start it there and log in once.

    Nothing leaves the server that is started, and the backup is not changed. Raises BackupError,
    StartError, ConfigError and OSError.
    """
    source = restoring.opened(target)
    restore.check_configuration(source)
    environ = trial.environ_for(scratch / "data", _server_name(source))
    config = settings.load(None, environ)
    with byte_bar("Checking") as progress:
        plan = restoring.check(config, source, progress, is_lossy=False)
    plan.has_configuration = False  # its addresses are those of the real server
    config.data_dir.mkdir(mode=0o700)
    copied = restore.fill(plan)
    name, password = f"backup-check-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    with open_migrated(config) as database:
        password_hash = accounts.hash_password(database.server, password)
        with database.write() as tx:
            registration.register(tx, name, password_hash)
    trial.log_in_once(environ, scratch / "server.log", name, password)
    return {
        "server_name": config.server_name,
        "database_bytes": copied.database_bytes,
        "files": copied.files,
        "lost_files": copied.lost_files,
    }


def _server_name(source: Source) -> str:
    if isinstance(source, Archive):
        return source.manifest.server_name or "localhost"
    with copies.opened(source.path / DATABASE) as connection:
        return startup.accounts_name(connection) or "localhost"
