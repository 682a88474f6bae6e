"""Which file an mxc:// address stands for, and whose it is.

A media id can be made before its content (asynchronous upload): then downloads of it wait. They
wait as /sync does, with no transaction open, for a wake-up that bears the address of the file
instead of a user's name.

This module alone writes the table media.
Spec: client-server-api#content-repository
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from homebody import errors
from homebody.core import quotas
from homebody.core.media import files
from homebody.core.media.files import ReadInto
from homebody.models.media import Media
from homebody.runtime.wakeups import Waiter, Wakeups
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

UNUSED_EXPIRES_MS: Final = 24 * 3_600_000
"""How long an id may wait for its content; what the specification recommends."""
MAX_PENDING: Final = 100
"""Ids of one user that wait for their content. A bridge asks for many at once."""
RETRY_PENDING_MS: Final = 10_000

_FIND = select(
    Media.origin,
    Media.media_id,
    Media.user_id,
    Media.unused_expires_ts,
    Media.content_type,
    Media.file_name,
    Media.size_bytes,
    Media.sha256,
).where(Media.origin == bindparam("origin"), Media.media_id == bindparam("media_id"))
_INSERT = insert(Media)
_FILL = update(Media).where(
    Media.origin == bindparam("its_origin"),
    Media.media_id == bindparam("its_id"),
    Media.sha256.is_(None),
)
_COUNT_PENDING = select(func.count()).where(
    Media.user_id == bindparam("user_id"), Media.sha256.is_(None)
)
_USED = select(func.coalesce(func.sum(Media.size_bytes), 0)).where(
    Media.user_id == bindparam("user_id")
)
_under_way: Counter[tuple[int, str]] = Counter()
"""{(database, user_id): bytes of uploads that have begun}"""
FILES: Final = "files"
_DELETE_EXPIRED = delete(Media).where(
    Media.user_id == bindparam("of_user"),
    Media.sha256.is_(None),
    Media.unused_expires_ts <= bindparam("now_ms"),
)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that has not been read yet, and what its sender says it is."""

    read_into: ReadInto
    content_type: str
    file_name: str | None
    size_bytes: int | None = None
    """How long it is, where that is known before."""
    is_counted: bool = True
    """Whether it counts for the quota of the account that sends it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the table; without content its `sha256` is ""."""

    origin: str
    media_id: str
    user_id: str | None
    unused_expires_ts: int | None
    content_type: str
    file_name: str | None
    size_bytes: int
    sha256: str

    @property
    def uri(self) -> str:
        """Its mxc:// address."""
        return f"mxc://{self.origin}/{self.media_id}"


def upload(db: Database, user_id: str, body: Upload) -> str:
    """Store a new file for a user, and return its mxc:// address.

    Raises M_TOO_LARGE, M_USER_LIMIT_EXCEEDED.
    """
    media_id = _new_id()
    with _received(db, user_id, body) as content, db.write() as tx:
        row = _row(tx, user_id, media_id) | {
            "content_type": body.content_type,
            "file_name": body.file_name,
            "size_bytes": content.size_bytes,
            "sha256": content.sha256,
        }
        tx.sql.execute(_INSERT, row)
    return f"mxc://{db.server.name}/{media_id}"


def create(tx: Tx, user_id: str) -> tuple[str, int]:
    """A new mxc:// address without content, and when it expires (ms).

    Raises M_LIMIT_EXCEEDED when too many of the user's addresses wait for their content.
    """
    tx.sql.execute(_DELETE_EXPIRED, {"of_user": user_id, "now_ms": tx.now_ms})
    if tx.sql.execute(_COUNT_PENDING, {"user_id": user_id}).scalar_one() >= MAX_PENDING:
        raise errors.limit_exceeded(RETRY_PENDING_MS)
    media_id, expires_ts = _new_id(), tx.now_ms + UNUSED_EXPIRES_MS
    row = _row(tx, user_id, media_id) | {"unused_expires_ts": expires_ts}
    tx.sql.execute(_INSERT, row)
    return f"mxc://{tx.server.name}/{media_id}", expires_ts


def fill(db: Database, user_id: str, origin: str, media_id: str, body: Upload) -> None:
    """Give an address that was made before its content, and wake who waits for it.

    Raises M_FORBIDDEN for who did not make it, M_NOT_FOUND when there is none or it has expired,
    M_CANNOT_OVERWRITE_MEDIA, M_TOO_LARGE, M_USER_LIMIT_EXCEEDED.
    """
    with db.read() as reader:
        _must_be_fillable(reader, user_id, origin, media_id)
    with _received(db, user_id, body) as content, db.write() as tx:
        found = _must_be_fillable(tx, user_id, origin, media_id)  # things change during an upload
        values = {
            "content_type": body.content_type,
            "file_name": body.file_name,
            "size_bytes": content.size_bytes,
            "sha256": content.sha256,
        }
        tx.sql.execute(_FILL.values(values), {"its_origin": origin, "its_id": media_id})
        tx.wake(found.uri)


@contextmanager
def _received(db: Database, user_id: str, body: Upload) -> Iterator[files.Content]:
    """Write a body to the disk; what may come of it is set aside until its row is written.

    Otherwise many uploads at once would each find the room that is there for one of them. Raises
    M_TOO_LARGE, M_USER_LIMIT_EXCEEDED, the latter before anything is read where the size is known.
    """
    config = db.server.config
    if not body.is_counted:
        yield files.receive(config.data_dir, body.read_into, config.max_upload_bytes)
        return
    limit, key = config.quotas.media_bytes, (id(db), user_id)
    under_way = _under_way[
        key
    ]  # before the look at the rows: what is written meanwhile counts twice
    with db.read() as tx:
        used = under_way + tx.sql.execute(_USED, {"user_id": user_id}).scalar_one()
        size = body.size_bytes or min(config.max_upload_bytes, max(1, limit - used))
        quotas.check(tx, FILES, used=used + size, limit=limit)
    _under_way[key] += size
    try:
        yield files.receive(config.data_dir, body.read_into, size)
    finally:
        _under_way[key] -= size
        if not _under_way[key]:
            del _under_way[key]


def find(
    db: Database,
    wakeups: Wakeups,
    origin: str,
    media_id: str,
    timeout_ms: int,
    connection: socket.socket | None = None,
) -> Found:
    """A file with its content, for which this waits up to `timeout_ms`.

    Raises M_NOT_FOUND, and M_NOT_YET_UPLOADED (504) when the content has not come in time.
    """
    if origin != db.server.name:
        raise errors.not_found("Files of other servers are not available here")
    found = _read(db, origin, media_id)
    if not found.sha256:
        with wakeups.waiting(found.uri) as waiter:
            found = _wait(db, wakeups, found, waiter, timeout_ms, connection)
    if not files.content_path(db.server.config.data_dir, found.sha256).exists():
        LOG.error("the file of %s is not on the disk; was media/files restored?", found.uri)
        raise errors.not_found("The server has lost this file")
    return found


def _wait(
    db: Database,
    wakeups: Wakeups,
    found: Found,
    waiter: Waiter,
    timeout_ms: int,
    connection: socket.socket | None,
) -> Found:
    until = time.monotonic() + timeout_ms / 1000
    while True:
        waiter.rest()  # before looking: content that comes while we look is not missed
        found = _read(db, found.origin, found.media_id)
        if found.sha256:
            return found
        left = until - time.monotonic()
        if left <= 0 or waiter.is_gone or wakeups.is_closing:
            raise errors.not_yet_uploaded()
        waiter.wait(left, connection)


def _read(db: Database, origin: str, media_id: str) -> Found:
    with db.read() as tx:
        return _find(tx, origin, media_id)


def _find(tx: Reader, origin: str, media_id: str) -> Found:
    """The row. Raises M_NOT_FOUND; an id that has expired without content counts as none."""
    row = tx.sql.execute(_FIND, {"origin": origin, "media_id": media_id}).first()
    if row is None or (row.sha256 is None and (row.unused_expires_ts or 0) <= tx.now_ms):
        raise errors.not_found("There is no such file")
    return Found(
        row.origin,
        row.media_id,
        row.user_id,
        row.unused_expires_ts,
        row.content_type or "application/octet-stream",
        row.file_name,
        row.size_bytes or 0,
        row.sha256 or "",
    )


def _must_be_fillable(tx: Reader, user_id: str, origin: str, media_id: str) -> Found:
    if origin != tx.server.name:
        raise errors.forbidden("Files of other servers can't be uploaded here")
    found = _find(tx, origin, media_id)
    if found.user_id != user_id:
        raise errors.forbidden("Somebody else has made this address")
    if found.sha256:
        raise errors.cannot_overwrite_media()
    return found


def _row(tx: Tx, user_id: str, media_id: str) -> dict[str, str | int | None]:
    return {
        "origin": tx.server.name,
        "media_id": media_id,
        "user_id": user_id,
        "created_ts": tx.now_ms,
    }


def _new_id() -> str:
    """Not to be guessed: the old paths ask nobody who he is."""
    return secrets.token_urlsafe(18)
