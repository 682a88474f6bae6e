"""Registration files: read once, at the start; the server does not start with an invalid one.

Spec: application-service-api#registration
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from homebody.config.settings import Config, ConfigError
from homebody.spec import appservices
from homebody.spec.appservices import Service, Services


def load(config: Config) -> Services:
    """Return the application services of the setting `appservices`: paths, or patterns of paths.

    Raises ConfigError, with one line for the administrator.
    """
    if not config.appservices:
        return Services()
    found = [_read(path, config.server_name) for path in paths(config)]
    try:
        return Services(found, config.server_name)
    except ValueError as error:
        raise ConfigError(f"appservices: {error}") from None


def paths(config: Config) -> list[Path]:
    """Return the registration files that the setting `appservices` names."""
    return [*dict.fromkeys(path for text in config.appservices for path in _paths(text))]


def _paths(text: str) -> list[Path]:
    if any(it in text for it in "*?["):
        return [Path(path) for path in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - Path.glob refuses absolute patterns
    return [Path(text)]


def _read(path: Path, server_name: str) -> Service:
    try:
        raw = _yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"appservices: {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"appservices: {path}: is not valid YAML: {error}") from None
    try:
        return appservices.parse(raw, server_name)
    except ValueError as error:
        raise ConfigError(f"appservices: {path}: {error}") from None


def _yaml(text: bytes) -> Any:
    """Parse a YAML file. Raises ValueError, with one line."""
    import yaml  # noqa: PLC0415 - 2 MB and 20 ms that a server without bridges does not need

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (
        AttributeError,
        LookupError,
        TypeError,
    ):  # PyYAML raises these for `!!int ""` and the like
        raise ValueError("a value is not of the type that its tag names") from None
