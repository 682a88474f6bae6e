"""The versions of a user's key backup, with their algorithm, number of keys and size.

Only the newest version can be written; older ones remain readable until they are deleted. The keys
are in backed_up_keys.py, which calls `note_change` for every change.

This module alone writes the table key_backups.
Spec: client-server-api#server-side-key-backups
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from homebody import errors
from homebody.core import quotas
from homebody.models.key_backup import KeyBackup
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

MAX_AUTH_DATA_BYTES: Final = 65536
MAX_VERSIONS: Final = 50
"""Per user. Most have one or two, and clients delete the old one. The server never deletes one
to make room, as it may hold the only keys to years of messages."""

_ALL = select(
    KeyBackup.version,
    KeyBackup.algorithm,
    KeyBackup.auth_data,
    KeyBackup.etag,
    KeyBackup.key_count,
    KeyBackup.size_bytes,
    KeyBackup.is_deleted,
).where(KeyBackup.user_id == bindparam("user_id"))
_ONE = _ALL.where(KeyBackup.version == bindparam("version"))
_NEWEST = _ALL.where(KeyBackup.is_deleted.is_(False)).order_by(KeyBackup.version.desc()).limit(1)
_USED = select(func.sum(KeyBackup.size_bytes)).where(KeyBackup.user_id == bindparam("user_id"))
_NUMBERS = select(
    func.max(KeyBackup.version).label("last"),
    func.count().filter(KeyBackup.is_deleted.is_(False)).label("kept"),
).where(KeyBackup.user_id == bindparam("user_id"))


def create(tx: Tx, user_id: str, algorithm: str, auth_data: Json) -> str:
    """Create a version, which becomes the current one, and return its number.

    Raises M_INVALID_PARAM for an empty or long algorithm, M_TOO_LARGE for too much `auth_data` or
    too many versions.
    """
    # Deviates: the specification enumerates the algorithms. The server only returns the name, so
    # any is accepted, as by Synapse: clients use new algorithms before they are specified.
    if not (algorithm and identifiers.has_at_most_255_bytes(algorithm)):
        raise errors.invalid_param("The algorithm must be a string of 1 to 255 bytes")
    numbers = tx.sql.execute(_NUMBERS, {"user_id": user_id}).one()
    if numbers.kept >= MAX_VERSIONS:
        raise errors.too_large(f"You have {numbers.kept} backups: delete one of them first")
    # Not below the clock: after a restore, numbers given out by the lost server must not be reused,
    # as clients would take another backup with the same number for theirs
    version = max((numbers.last or 0) + 1, tx.position)
    row = {
        "user_id": user_id,
        "version": version,
        "algorithm": algorithm,
        "auth_data": _text(auth_data),
        "etag": 0,
        "key_count": 0,
        "size_bytes": 0,
        "is_deleted": False,
    }
    tx.sql.execute(insert(KeyBackup), row)
    return str(version)


def current(tx: Reader, user_id: str) -> Json:
    """Return the newest version in the form of GET /room_keys/version. Raises M_NOT_FOUND."""
    row = tx.sql.execute(_NEWEST, {"user_id": user_id}).first()
    if row is None:
        raise errors.not_found("There is no backup")
    return _described(row)


def get(tx: Reader, user_id: str, version: str) -> Json:
    """Return one version. Raises M_NOT_FOUND, also for a deleted one."""
    return _described(_existing(tx, user_id, version))


def change(tx: Tx, user_id: str, version: str, algorithm: str, auth_data: Json) -> None:
    """Replace the `auth_data` of a version; the algorithm can't be changed.

    Raises M_NOT_FOUND, M_INVALID_PARAM for another algorithm, M_TOO_LARGE.
    """
    row = _existing(tx, user_id, version)
    if row.algorithm != algorithm:
        raise errors.invalid_param(f"The algorithm of this backup is {row.algorithm}")
    tx.sql.execute(
        update(KeyBackup)
        .where(KeyBackup.user_id == user_id, KeyBackup.version == row.version)
        .values(auth_data=_text(auth_data))
    )


def mark_deleted(tx: Tx, user_id: str, version: str) -> int:
    """Mark a version as deleted and return its number.

    This is idempotent. Raises M_NOT_FOUND if the version never existed.
    """
    row = _find(tx, user_id, version)
    if row is None:
        raise errors.not_found("There was never such a backup")
    tx.sql.execute(
        update(KeyBackup)
        .where(KeyBackup.user_id == user_id, KeyBackup.version == row.version)
        .values(is_deleted=True, auth_data="{}", key_count=0, size_bytes=0)
    )
    found: int = row.version
    return found


def number(tx: Reader, user_id: str, version: str) -> int:
    """Return the number of an existing version. Raises M_NOT_FOUND."""
    found: int = _existing(tx, user_id, version).version
    return found


def number_to_write(tx: Reader, user_id: str, version: str) -> int:
    """Return the number of the current version, for adding keys.

    Raises M_NOT_FOUND if the version never existed, M_WRONG_ROOM_KEYS_VERSION if it is not the
    current one.
    """
    newest = current(tx, user_id)["version"]
    if version == newest:
        return int(newest)
    if _find(tx, user_id, version) is None:
        raise errors.not_found("There was never such a backup")
    raise errors.wrong_room_keys_version(newest)


def note_change(tx: Tx, user_id: str, version: int, added: int, added_bytes: int) -> None:
    """Update etag, count and size of a version. The numbers are negative for deletions.

    Raises M_USER_LIMIT_EXCEEDED if the user's quota is exceeded.
    """
    tx.sql.execute(
        update(KeyBackup)
        .where(KeyBackup.user_id == user_id, KeyBackup.version == version)
        .values(
            etag=KeyBackup.etag + 1,
            key_count=KeyBackup.key_count + added,
            size_bytes=KeyBackup.size_bytes + added_bytes,
        )
    )
    if added_bytes > 0:
        used = tx.sql.execute(_USED, {"user_id": user_id}).scalar_one()
        limit = tx.server.config.quotas.key_backup_bytes
        quotas.check(tx, "key backups", used=used, limit=limit)


def size(tx: Reader, user_id: str, version: int) -> Json:
    """Return {etag, count}, the response to every change of keys."""
    row = tx.sql.execute(_ONE, {"user_id": user_id, "version": version}).one()
    return {"etag": str(row.etag), "count": row.key_count}


def erase(tx: Tx, user_id: str) -> None:
    """Delete all versions of an account that is being deactivated."""
    tx.sql.execute(delete(KeyBackup).where(KeyBackup.user_id == user_id))


def _find(tx: Reader, user_id: str, version: str) -> Row[*tuple[Any, ...]] | None:
    # only numbers written by this module: not "01", nor numbers too large for SQLite
    if not (version.isascii() and version.isdecimal() and len(version) < 19):
        return None
    if str(int(version)) != version:
        return None
    values = {"user_id": user_id, "version": int(version)}
    row: Row[*tuple[Any, ...]] | None = tx.sql.execute(_ONE, values).first()
    return row


def _existing(tx: Reader, user_id: str, version: str) -> Row[*tuple[Any, ...]]:
    row = _find(tx, user_id, version)
    if row is None or row.is_deleted:
        raise errors.not_found("There is no such backup")
    return row


def _described(row: Row[*tuple[Any, ...]]) -> Json:
    return {
        "algorithm": row.algorithm,
        "auth_data": orjson.loads(row.auth_data),
        "version": str(row.version),
        "etag": str(row.etag),
        "count": row.key_count,
    }


def _text(auth_data: Json) -> str:
    text = orjson.dumps(auth_data)
    if len(text) > MAX_AUTH_DATA_BYTES:
        raise errors.too_large(f"auth_data may have at most {MAX_AUTH_DATA_BYTES} bytes")
    return text.decode()


def skip_etags(tx: Tx, count: int) -> None:
    """Increase all etags after a restore, as the lost server may have given out later ones."""
    tx.sql.execute(update(KeyBackup).values(etag=KeyBackup.etag + count))
