"""The media repository: which file an mxc URI refers to, and who has uploaded it.

A media ID can be created before its content (asynchronous upload): then downloads of it wait. They
wait as /sync does, with no transaction open, for a wake-up by the mxc URI instead of a user ID.

The table media is written by this module, deletion.py and last_used.py.
Spec: client-server-api#content-repository
"""

from __future__ import annotations

import logging
import secrets
import socket
import string
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from homebody import errors
from homebody.core import audit, quotas
from homebody.core.media import files, limits, quarantine
from homebody.core.media.files import ReadInto, StoredFile
from homebody.models.media import Media
from homebody.runtime.event_loop import Waiter, Wakeups
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

UNUSED_EXPIRES_MS: Final = 24 * 3_600_000
"""How long an id may be without content; the specification's recommendation."""
MAX_PENDING: Final = 100
"""Ids of one user without content. Bridges create many at once."""
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
    quarantine.BY,
).where(Media.origin == bindparam("origin"), Media.media_id == bindparam("media_id"))
_INSERT = insert(Media)
_PROTECT = (
    update(Media)
    .where(Media.origin == bindparam("its_origin"), Media.media_id == bindparam("its_id"))
    .values(is_protected=bindparam("protected"))
)
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
    """A body that has not been read yet, with its type and name as given by the sender."""

    read_into: ReadInto
    content_type: str
    file_name: str | None
    size_bytes: int | None = None
    """Its length, if it is known in advance."""
    is_counted: bool = True
    """Whether it counts towards the quota of its sender."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A row of the table media; without content its `sha256` is ""."""

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
        """The mxc URI."""
        return f"mxc://{self.origin}/{self.media_id}"


def upload(db: Database, user_id: str, body: Upload) -> str:
    """Store a new file for a user, and return its mxc URI.

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
        _stored(tx, media_id, content)
    return f"mxc://{db.server.name}/{media_id}"


def create(tx: Tx, user_id: str) -> tuple[str, int]:
    """Return a new mxc URI without content, and when it expires (ms).

    Raises M_LIMIT_EXCEEDED when too many of the user's URIs are without content.
    """
    tx.sql.execute(_DELETE_EXPIRED, {"of_user": user_id, "now_ms": tx.now_ms})
    if tx.sql.execute(_COUNT_PENDING, {"user_id": user_id}).scalar_one() >= MAX_PENDING:
        raise errors.limit_exceeded(RETRY_PENDING_MS)
    media_id, expires_ts = _new_id(), tx.now_ms + UNUSED_EXPIRES_MS
    row = _row(tx, user_id, media_id) | {"unused_expires_ts": expires_ts}
    tx.sql.execute(_INSERT, row)
    return f"mxc://{tx.server.name}/{media_id}", expires_ts


def fill(db: Database, user_id: str, origin: str, media_id: str, body: Upload) -> None:
    """Store the content of an mxc URI that was created before, and wake the waiting downloads.

    Raises M_FORBIDDEN for other users, M_NOT_FOUND when it is unknown or has expired,
    M_CANNOT_OVERWRITE_MEDIA, M_TOO_LARGE, M_USER_LIMIT_EXCEEDED.
    """
    with db.read() as reader:
        _must_be_fillable(reader, user_id, origin, media_id)
    with _received(db, user_id, body) as content, db.write() as tx:
        found = _must_be_fillable(tx, user_id, origin, media_id)  # it may have changed meanwhile
        values = {
            "content_type": body.content_type,
            "file_name": body.file_name,
            "size_bytes": content.size_bytes,
            "sha256": content.sha256,
        }
        tx.sql.execute(_FILL.values(values), {"its_origin": origin, "its_id": media_id})
        _stored(tx, media_id, content)
        tx.wake(found.uri)


@contextmanager
def _received(db: Database, user_id: str, body: Upload) -> Iterator[files.Content]:
    """Write a body to the disk; its size is reserved in the quota until its row is written.

    Otherwise many concurrent uploads could each use the same free part of the quota. Raises
    M_TOO_LARGE, and M_USER_LIMIT_EXCEEDED, before anything is read if the size is known.
    """
    config = db.server.config
    if not body.is_counted:
        yield files.receive(config.data_dir, body.read_into, config.max_upload_bytes)
        return
    key = (id(db), user_id)
    under_way = _under_way[key]  # before the rows are read: uploads that end meanwhile count twice
    with db.read() as tx:
        limit = limits.of(tx, user_id)
        used = under_way + used_bytes(tx, user_id)
        size = body.size_bytes or min(config.max_upload_bytes, max(1, limit - used))
        quotas.check(tx, FILES, used=used + size, limit=limit)
    _under_way[key] += size
    try:
        yield files.receive(config.data_dir, body.read_into, size)
    finally:
        _under_way[key] -= size
        if not _under_way[key]:
            del _under_way[key]


def _stored(tx: Tx, media_id: str, content: files.Content) -> None:
    """Check that the content of a new row is on the disk, and whether it is quarantined.

    It was there before if it is that of an older file, which may have been deleted since. Raises
    503: the client repeats the upload.
    """
    if not files.content_path(tx.server.config.data_dir, content.sha256).exists():
        raise errors.unavailable()
    quarantine.follow(tx, tx.server.name, media_id, content.sha256)


def used_bytes(tx: Reader, user_id: str) -> int:
    """Return how much a user has uploaded."""
    return int(tx.sql.execute(_USED, {"user_id": user_id}).scalar_one())


def exists(tx: Reader, uri: str) -> bool:
    """Return whether the file of an mxc URI of this server is there, if only in quarantine."""
    origin, _, media_id = uri.removeprefix("mxc://").partition("/")
    row = tx.sql.execute(_FIND, {"origin": origin, "media_id": media_id}).first()
    return row is not None and row.sha256 is not None


def protect(tx: Tx, actor: str, media_id: str, *, is_protected: bool) -> None:
    """Spare a file from quarantine and from deletion by age, or end that. Raises M_UNKNOWN (404).

    The errcode is Synapse's.
    """
    key = {"its_origin": tx.server.name, "its_id": media_id, "protected": is_protected}
    if not tx.sql.execute(_PROTECT, key).rowcount:
        raise errors.unknown("There is no such file", 404)
    action = "media.protect" if is_protected else "media.unprotect"
    audit.note(tx, actor, action, f"mxc://{tx.server.name}/{media_id}")


def find(
    db: Database,
    wakeups: Wakeups,
    origin: str,
    media_id: str,
    timeout_ms: int,
    connection: socket.socket | None = None,
) -> StoredFile:
    """Return a file of this server with its content; wait for that up to `timeout_ms`.

    Raises M_NOT_FOUND, and M_NOT_YET_UPLOADED (504) when the content has not come in time.
    """
    if origin != db.server.name:
        raise errors.not_found("Files of other servers are not available here")
    found = _read(db, origin, media_id)
    if not found.sha256:
        with wakeups.waiting(found.uri) as waiter:
            found = _wait(db, wakeups, found, waiter, timeout_ms, connection)
    data_dir = db.server.config.data_dir
    path = files.content_path(data_dir, found.sha256)
    if not path.exists():
        LOG.error("the file of %s is not on the disk; was media/files restored?", found.uri)
        raise errors.not_found("The server has lost this file")
    return StoredFile(
        path,
        files.thumbnails_folder(data_dir, found.sha256),
        found.sha256,
        found.size_bytes,
        found.content_type,
        found.file_name,
    )


def _wait(
    db: Database,
    wakeups: Wakeups,
    found: MediaFile,
    waiter: Waiter,
    timeout_ms: int,
    connection: socket.socket | None,
) -> MediaFile:
    until = time.monotonic() + timeout_ms / 1000
    while True:
        waiter.clear()  # before reading: content that is stored meanwhile is not missed
        found = _read(db, found.origin, found.media_id)
        if found.sha256:
            return found
        left = until - time.monotonic()
        if left <= 0 or waiter.is_gone or wakeups.is_closing:
            raise errors.not_yet_uploaded()
        waiter.wait(left, connection)


def _read(db: Database, origin: str, media_id: str) -> MediaFile:
    with db.read() as tx:
        return _find(tx, origin, media_id)


def _find(tx: Reader, origin: str, media_id: str) -> MediaFile:
    """Return the row.

    Raises M_NOT_FOUND, also for an id that has expired without content, and in quarantine.
    """
    row = tx.sql.execute(_FIND, {"origin": origin, "media_id": media_id}).first()
    if row is None or row.quarantined_by is not None:
        raise errors.not_found("There is no such file")
    if row.sha256 is None and (row.unused_expires_ts or 0) <= tx.now_ms:
        raise errors.not_found("There is no such file")
    return MediaFile(
        row.origin,
        row.media_id,
        row.user_id,
        row.unused_expires_ts,
        row.content_type or "application/octet-stream",
        row.file_name,
        row.size_bytes or 0,
        row.sha256 or "",
    )


def _must_be_fillable(tx: Reader, user_id: str, origin: str, media_id: str) -> MediaFile:
    if origin != tx.server.name:
        raise errors.forbidden("Files of other servers can't be uploaded here")
    found = _find(tx, origin, media_id)
    if found.user_id != user_id:
        raise errors.forbidden("This mxc URI was created by another user")
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
    """Return an id that can't be guessed: the old paths need no authentication.

    A leading "-" would be an option to tools on the command line.
    """
    return secrets.choice(string.ascii_letters) + secrets.token_urlsafe(18)
