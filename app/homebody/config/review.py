"""Everything that is wrong with the settings, where settings.load reports the first thing only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from homebody.config import settings, sources
from homebody.config.settings import ConfigError
from homebody.config.sources import Source


def problems(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that this version does not accept."""
    try:
        given = list(_sources(path, environ))
    except ConfigError as error:
        return [str(error)]
    found = [it for source in given for it in _problems(source)]
    if found:
        return found
    try:
        settings.load(path, environ)
    except ConfigError as error:  # settings that don't go together
        return [str(error)]
    return []


def _sources(path: Path | None, environ: Mapping[str, str]) -> Iterator[Source]:
    yield sources.from_environment(environ)
    file = path or settings.file_in_force(environ)
    if file is not None:
        yield sources.from_file(file)


def _problems(source: Source) -> Iterator[str]:
    known = settings.known()
    for key, value in source.values.items():
        try:
            sources.settle(source._replace(values={key: value}), known)
        except ConfigError as error:
            yield str(error)
