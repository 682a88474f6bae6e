"""Deleting files of this server: their rows, then their bytes and thumbnails.

Content that several files have in common stays until the last of them is deleted. A row is deleted
before its content, so an interruption leaves content without a row, which `sweep` deletes. The
content is taken away in a write that finds no row with it; an upload of the same content looks in
its own write whether the content is still there (store.py).

The table media is written by this module, store.py and last_used.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import bindparam, delete, select

from homebody.core import audit
from homebody.core.media import files
from homebody.core.media.references import References
from homebody.models.media import Media
from homebody.runtime import event_loop
from homebody.storage.database import Database, Tx
from homebody.storage.expressions import batches

AT_ONCE: Final = 50
"""Files for each write, so that other writers get their turn: some milliseconds."""
GRACE_SECONDS: Final = 3600.0
"""Content is on the disk before its row is in the database."""
EXPIRED_KEPT_MS: Final = 86_400_000

_OF_FILE = (Media.origin == bindparam("its_origin"), Media.media_id == bindparam("its_id"))
_SOME = select(Media.media_id, Media.sha256, Media.size_bytes).where(
    Media.origin == bindparam("its_origin"),
    Media.media_id.in_(bindparam("media_ids", expanding=True)),
)
_DELETE = delete(Media).where(*_OF_FILE)
_USED = select(Media.sha256).where(Media.sha256.in_(bindparam("hashes", expanding=True))).distinct()
_EXPIRED = (
    select(Media.media_id)
    .where(
        Media.origin == bindparam("its_origin"),
        Media.sha256.is_(None),
        Media.unused_expires_ts < bindparam("before_ts"),
    )
    .limit(AT_ONCE)
)


@dataclass
class Deleted:
    """What was deleted."""

    media_ids: list[str] = field(default_factory=list)
    freed_bytes: int = 0
    """Without thumbnails, and without content that other files have as well."""

    def add(self, other: Deleted) -> None:
        """Add what else was deleted."""
        self.media_ids += other.media_ids
        self.freed_bytes += other.freed_bytes


def delete_files(
    db: Database,
    media_ids: Iterable[str],
    actor: str | None = None,
    spared: References | None = None,
) -> Deleted:
    """Delete files; unknown ones are passed over, and those that are in use by `spared`.

    With an actor each has an entry in the audit log.
    """
    done = Deleted()
    for deleted in delete_in_steps(db, media_ids, actor, spared):
        done.add(deleted)
    return done


def delete_in_steps(
    db: Database,
    media_ids: Iterable[str],
    actor: str | None = None,
    spared: References | None = None,
) -> Iterator[Deleted]:
    """Delete files as `delete_files` does, and yield what each step has deleted."""
    for some in batches(media_ids, AT_ONCE):
        if spared is not None:
            with db.read() as reader:
                spared.renew(reader)  # so that little is left for the write
        with db.write() as tx:
            sizes, gone = _delete_rows(tx, _not_in_use(tx, some, spared), actor)
        freed = sum(sizes[sha256] for sha256 in _free(db, sizes))
        yield Deleted(gone, freed)
        event_loop.pause()


def sweep(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Delete content and thumbnails that no file has, and mxc URIs that expired without content.

    Returns how many contents were deleted. Only an interrupted deletion or upload leaves any.
    """
    _delete_expired(db)
    data_dir, count = db.server.config.data_dir, 0
    before_s = time.time() - GRACE_SECONDS
    for prefix in files.PREFIXES:
        names: set[str] = set()
        for kind in ("files", "thumbnails"):
            found = event_loop.offload(files.names_in, data_dir, kind, prefix, before_s)
            names.update(found)
        for some in batches(sorted(names), AT_ONCE):
            with db.read() as reader:
                used = set(reader.sql.execute(_USED, {"hashes": some}).scalars())
            if unused := set(some) - used:
                count += len(_free(db, unused))
        step()
    return count


def _not_in_use(tx: Tx, some: list[str], spared: References | None) -> list[str]:
    """Return the files without those that are in use now."""
    if spared is None:
        return some
    spared.renew(tx)
    return [media_id for media_id in some if not spared.has(tx.server.name, media_id)]


def _delete_rows(tx: Tx, some: list[str], actor: str | None) -> tuple[dict[str, int], list[str]]:
    """Delete the rows of files; return the sizes of their contents by hash, and their ids."""
    origin = tx.server.name
    rows = tx.sql.execute(_SOME, {"its_origin": origin, "media_ids": some}).all()
    gone = [row.media_id for row in rows]
    tx.sql.execute(_DELETE, [{"its_origin": origin, "its_id": media_id} for media_id in gone])
    for media_id in gone if actor is not None else ():
        audit.note(tx, actor or "", "media.delete", f"mxc://{origin}/{media_id}")
    return {row.sha256: row.size_bytes or 0 for row in rows if row.sha256 is not None}, gone


def _free(db: Database, hashes: Collection[str]) -> set[str]:
    """Delete those contents that no row has, with their thumbnails; return their hashes."""
    if not hashes:
        return set()
    data_dir = db.server.config.data_dir
    with db.write() as tx:
        used = tx.sql.execute(_USED, {"hashes": sorted(hashes)}).scalars()
        unused = set(hashes) - set(used)
        files.set_aside(data_dir, unused)
    event_loop.offload(files.remove_set_aside, data_dir)
    return unused


def _delete_expired(db: Database) -> None:
    count = AT_ONCE
    while count == AT_ONCE:
        with db.write() as tx:
            before = {"its_origin": tx.server.name, "before_ts": tx.now_ms - EXPIRED_KEPT_MS}
            found = tx.sql.execute(_EXPIRED, before).scalars().all()
            _delete_rows(tx, found, None)
        count = len(found)
