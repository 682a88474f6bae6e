"""The log as a server sets it up. Tests that do so use the fixture `restored_logging`."""

from __future__ import annotations

from homebody.config import settings
from homebody.runtime import logs


def configure(**options: str) -> None:
    """Set up the log with these settings."""
    config = settings.load(None, {}, options)
    logs.configure(config.log_level, config.log_format)
