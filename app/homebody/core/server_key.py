"""The key that signs this server's events: a file in the data folder, created at the first start.

Its holder can act as this server, and without it the server's name can't be used any more, so it
belongs in every backup.
Spec: server-server-api#publishing-keys
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from homebody.config.settings import Config, ConfigError
from homebody.spec.signing import SigningKey
from homebody.storage import fsync


def load_or_create(config: Config) -> SigningKey:
    """Return the key in the file, which is created if it is missing.

    Raises ConfigError when the file can't be read or written, or is damaged.
    """
    path = config.signing_key_path
    try:
        if not path.exists():
            _write_new(path)
    except OSError as error:
        raise ConfigError(f"The signing key {path} can't be used: {error.strerror}") from error
    return load(config)


def load(config: Config) -> SigningKey:
    """Return the key in the file. Raises ConfigError when it is missing, unreadable or damaged."""
    path = config.signing_key_path
    try:
        return SigningKey.from_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The signing key {path} can't be used: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"The signing key {path} is damaged: {error}") from error


def replace(config: Config) -> tuple[SigningKey, Path]:
    """Create another key in place of the present one; return that, and the file it is now in.

    Raises ConfigError as `load_or_create` does. The server must not be running.
    """
    path = config.signing_key_path
    if not path.exists():
        raise ConfigError(f"There is no signing key {path}")
    old = load_or_create(config)
    kept = path.with_name(f"{path.name}.{old.key_id.partition(':')[2]}")
    try:
        os.link(path, kept)  # so that there is a key at any time
        _write_new(path)
    except OSError as error:
        raise ConfigError(f"The signing key {path} can't be replaced: {error.strerror}") from error
    return old, kept


def _write_new(path: Path) -> None:
    """Write the file atomically: the server could not start with an empty one."""
    key = SigningKey.from_seed(f"a_{secrets.token_hex(2)}", secrets.token_bytes(32))
    incoming = path.with_name(f"{path.name}.new")
    incoming.unlink(missing_ok=True)  # of a start that was interrupted
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(key.to_text() + "\n")
        file.flush()
        os.fsync(file.fileno())
    incoming.rename(path)
    fsync.sync_folder(path.parent)
