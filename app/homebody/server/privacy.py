"""File modes: other users of the machine must not read the server's files.

New files get their modes from the umask; existing ones, which may be older or copied by hand, are
corrected at every start. The data folder itself keeps its mode, as it may be shared on purpose.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from homebody.config import secret_files
from homebody.config.settings import Config
from homebody.core.appservices import files as registrations
from homebody.storage import fsync

LOG = logging.getLogger(__name__)

UMASK: Final = 0o077


def restrict_new_files() -> int:
    """Set the umask so that only this user can read new files; return the previous one."""
    return os.umask(UMASK)


def restrict_existing_files(config: Config, database: Path, environ: Mapping[str, str]) -> None:
    """Remove the permissions of other users, and log a warning for each file."""
    beside = [database.with_name(f"{database.name}{it}") for it in ("-wal", "-shm", "-journal")]
    for path in (database, *beside, config.signing_key_path, config.data_dir / "media"):
        fsync.make_private(path)
    for path in dict.fromkeys(secret_files.in_force(environ)):
        fsync.make_private(path, fsync.OTHERS)  # the group of a service may read it
    for path in registrations.paths(config):
        # only warn: a bridge that runs as another user has to read it
        if path.stat().st_mode & fsync.OTHERS:
            LOG.warning("other users of this machine may read %s, which contains tokens", path)
