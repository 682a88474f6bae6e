"""Helpers for tests of the settings: configuration files and error messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.config.settings import Config, ConfigError


def write(folder: Path, text: str) -> Path:
    """Write a configuration file in this folder and return its path."""
    path = folder / "homebody.toml"
    path.write_text(text)
    return path


def defaults_in(folder: Path) -> Config:
    """Return the default settings of a server started in this folder."""
    data_dir = folder / "data"
    return Config(
        data_dir=data_dir,
        database_url=f"sqlite:///{data_dir}/homebody.db",
        signing_key_path=data_dir / "signing.key",
    )


def complaint(path: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return the error message for invalid settings, which must be one line."""
    with pytest.raises(ConfigError) as raised:
        settings.load(path, environ or {})
    assert "\n" not in str(raised.value)
    return str(raised.value)
