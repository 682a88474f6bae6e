"""The key that signs this server's events: a file in the data folder, made at the first start.

Whoever has it can speak as this server, and without it the server's name is worth nothing, so it
belongs into every backup.
Spec: server-server-api#publishing-keys
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from homebody.config.settings import Config, ConfigError
from homebody.spec.signing import SigningKey
from homebody.storage import fsync


def load_or_make(config: Config) -> SigningKey:
    """The key of the file, which is made when there is none.

    Raises ConfigError when the file can't be read, written or understood.
    """
    path = config.signing_key_path
    try:
        if not path.exists():
            _write_new(path)
        return SigningKey.from_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The signing key {path} can't be used: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"The signing key {path} is damaged: {error}") from error


def _write_new(path: Path) -> None:
    """Make the file, whole or not at all: an empty one would keep the server from starting."""
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
