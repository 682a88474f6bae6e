"""Which files contain secrets of the settings, for those that check who may read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from homebody.config import login_providers, settings, sources, values


def in_force(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the configuration file if it contains secrets, and the files of secrets.

    A file may come several times.
    """
    known = settings.known()
    given = [sources.from_environment(environ)]
    if (file := settings.file_in_force(environ)) is not None:
        given.append(sources.from_file(file))
    for source in given:
        for key, value in source.values.items():
            setting = known.get(key)
            if setting is None or key == ("database_url",):
                continue
            if setting.kind.is_hidden:
                yield from login_providers.secret_files(value)
                if login_providers.has_secret(value) and source is not given[0] and file:
                    yield file
            elif setting.is_file:
                yield values.PATH.parse(value)
            elif setting.kind.is_secret and source is not given[0] and file is not None:
                yield file
