"""File modes: other users of the machine must not read the server's files.

New files get their modes from the umask; existing ones, which may be older or copied by hand, are
corrected at every start. The data folder itself keeps its mode, as it may be shared on purpose.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from homebody.config import settings, sources, values
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
    for path in dict.fromkeys(_secrets(environ)):
        fsync.make_private(path, fsync.OTHERS)  # the group of a service may read it
    for path in registrations.paths(config):
        # only warn: a bridge that runs as another user has to read it
        if path.stat().st_mode & fsync.OTHERS:
            LOG.warning("other users of this machine may read %s, which contains tokens", path)


def _secrets(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the configuration file if it contains secrets, and the files of secrets."""
    known = settings.known()
    given = [sources.from_environment(environ)]
    if (file := settings.file_in_force(environ)) is not None:
        given.append(sources.from_file(file))
    for source in given:
        for key, value in source.values.items():
            setting = known.get(key)
            if setting is None or key == ("database_url",):
                continue
            if setting.is_file:
                yield values.PATH.parse(value)
            elif setting.kind.is_secret and source is not given[0] and file is not None:
                yield file
