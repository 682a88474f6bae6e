"""What no other user of the machine may read: looked at when the server starts, and mended.

New files are made so (`umask`); those of before, or that were copied into their places by hand, may
have any mode. The data folder itself keeps its own, as it may be one that is shared with others.
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


def close_new_files() -> int:
    """Let only the owner read what this process will make; return the umask of before."""
    return os.umask(UMASK)


def mend(config: Config, database: Path, environ: Mapping[str, str]) -> None:
    """Take from other users what they may not read; the log gets a warning for each file."""
    beside = [database.with_name(f"{database.name}{it}") for it in ("-wal", "-shm", "-journal")]
    for path in (database, *beside, config.signing_key_path, config.data_dir / "media"):
        fsync.make_private(path)
    for path in dict.fromkeys(_secrets(environ)):
        fsync.make_private(path, fsync.OTHERS)  # a service may read it by its group
    for path in registrations.paths(config):
        # a bridge that runs as another user reads it too: it may need to be so
        if path.stat().st_mode & fsync.OTHERS:
            LOG.warning("other users of this machine may read %s, which has tokens", path)


def _secrets(environ: Mapping[str, str]) -> Iterator[Path]:
    """Find the configuration, if there are secrets in it, and the files that hold one each."""
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
