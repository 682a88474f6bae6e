"""Deleting files that nobody has used for long, or for which there is no room.

What it does follows from the settings `media_retention`. Never deleted are files in use (see
core/media/references.py), protected and quarantined ones, and those of the last day, to which an
event may be about to refer. Whether an encrypted message refers to a file can't be seen, and its
sender may be the only one who still has it: so files that may be encrypted are kept, unless the
settings say otherwise. Clients upload encrypted files as application/octet-stream.

Files of other servers are fetched again when somebody requests them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, or_, select

from homebody.core.federation import remote_media
from homebody.core.media import deletion, quarantine, references
from homebody.core.media.references import References
from homebody.models.media import Media
from homebody.runtime import event_loop
from homebody.storage.database import Database

DAY_MS: Final = 86_400_000
ENCRYPTED: Final = "application/octet-stream"
"""The type of uploads that are, or may be, encrypted."""

_LAST_USED = func.coalesce(Media.last_used_ts, Media.created_ts)
_UNUSED = (
    select(Media.media_id, Media.size_bytes)
    .where(
        Media.origin == bindparam("its_origin"),
        Media.sha256.is_not(None),
        Media.size_bytes > bindparam("larger_than"),
        bindparam("before_ts") > _LAST_USED,
        ~Media.is_protected,
        quarantine.BY.element.is_(None),
        or_(bindparam("with_encrypted"), func.coalesce(Media.content_type, ENCRYPTED) != ENCRYPTED),
    )
    .order_by(_LAST_USED, Media.media_id)
)
_CONTENTS = (
    select(func.max(Media.size_bytes).label("size_bytes"))
    .where(Media.sha256.is_not(None))
    .group_by(Media.sha256)
    .subquery()
)
_TOTAL = select(func.coalesce(func.sum(_CONTENTS.c.size_bytes), 0).label("total"))


class UnusedFile(NamedTuple):
    """A file of this server that may be deleted."""

    media_id: str
    size_bytes: int


class Swept(NamedTuple):
    """What was deleted."""

    files: int
    remote_files: int
    freed_bytes: int


def unused_files(
    db: Database,
    before_ts: int,
    *,
    used: References | None,
    larger_than: int = 0,
    with_encrypted: bool = True,
) -> list[UnusedFile]:
    """Return the files of this server that were last used before a time, the longest unused first.

    Without those in use by `used`, if it is not None.
    """
    with db.read() as tx:
        asked = {
            "its_origin": tx.server.name,
            "before_ts": before_ts,
            "larger_than": larger_than or -1,
            "with_encrypted": with_encrypted,
        }
        rows = tx.sql.execute_long(_UNUSED, asked)
    name = db.server.name
    return [
        UnusedFile(row.media_id, row.size_bytes)
        for row in rows
        if used is None or not used.has(name, row.media_id)
    ]


def local_bytes(db: Database) -> int:
    """Return the size of all contents of this server's files, each counted once."""
    with db.read() as tx:
        return int(tx.sql.execute_long(_TOTAL, {})[0].total)


def sweep(db: Database, now_ms: int, step: Callable[[], None] = event_loop.pause) -> Swept:
    """Do what the settings ask for. It can be interrupted at any moment, and repeated."""
    settings = db.server.config.media_retention
    lifetimes = (settings.local_media_lifetime_ms, settings.remote_media_lifetime_ms)
    if lifetimes == (None, None) and settings.local_media_bytes is None:
        return Swept(0, 0, 0)
    used = references.collect(db)
    local = _sweep_local(db, now_ms, used, step)
    remote_files = remote_bytes = 0
    if settings.remote_media_lifetime_ms is not None:
        before_ts = now_ms - max(DAY_MS, settings.remote_media_lifetime_ms)
        for purged in remote_media.delete_unused(db, before_ts, used.has):
            remote_files += purged.files
            remote_bytes += purged.freed_bytes
            step()
    return Swept(len(local.media_ids), remote_files, local.freed_bytes + remote_bytes)


def _sweep_local(
    db: Database, now_ms: int, used: References, step: Callable[[], None]
) -> deletion.Deleted:
    settings = db.server.config.media_retention
    done = deletion.Deleted()

    def candidates(lifetime_ms: int) -> list[UnusedFile]:
        return unused_files(
            db,
            now_ms - max(DAY_MS, lifetime_ms),
            with_encrypted=settings.may_delete_encrypted,
            used=used,
        )

    if settings.local_media_lifetime_ms is not None:
        old = candidates(settings.local_media_lifetime_ms)
        for deleted in deletion.delete_in_steps(db, [it.media_id for it in old], spared=used):
            done.add(deleted)
            step()
    if settings.local_media_bytes is not None:
        excess = local_bytes(db) - settings.local_media_bytes
        if excess > 0:
            done.add(_free(db, candidates(DAY_MS), excess, used, step))
    return done


def _free(
    db: Database,
    chosen: Iterable[UnusedFile],
    excess: int,
    used: References,
    step: Callable[[], None],
) -> deletion.Deleted:
    """Delete files in their order until so many bytes are free."""
    done = deletion.Deleted()
    for it in chosen:
        if done.freed_bytes >= excess:
            break
        done.add(deletion.delete_files(db, [it.media_id], spared=used))
        step()
    return done
