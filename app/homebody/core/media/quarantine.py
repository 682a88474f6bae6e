"""Files that nobody can download, as an administrator has quarantined them.

A quarantined file need not be known: one of another server stays quarantined when it is fetched. Of
this server's files, all with the same content are quarantined together, and those that are uploaded
later as well, except protected ones. This module alone writes the table quarantined_media.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from homebody.core import audit
from homebody.models.media import Media, QuarantinedMedia
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

PUT: Final = "media.quarantine"
LIFT: Final = "media.unquarantine"
"""The actions in the audit log."""
CHANGES_AT_ONCE: Final = 100
_FILES_AT_ONCE: Final = 50
"""For each write, so that other writers get their turn."""
_MXC: Final = "mxc://"

_FIND = select(QuarantinedMedia.quarantined_by).where(
    QuarantinedMedia.origin == bindparam("its_origin"),
    QuarantinedMedia.media_id == bindparam("its_id"),
)
BY: Final = (
    select(QuarantinedMedia.quarantined_by)
    .where(QuarantinedMedia.origin == Media.origin, QuarantinedMedia.media_id == Media.media_id)
    .correlate(Media)
    .scalar_subquery()
    .label("quarantined_by")
)
"""The administrator who has quarantined a row of the table media, or None."""
_CONTENTS = select(Media.media_id, Media.sha256, Media.is_protected).where(
    Media.origin == bindparam("its_origin"),
    Media.media_id.in_(bindparam("media_ids", expanding=True)),
)
_WITH_CONTENT = select(Media.media_id, Media.is_protected).where(
    Media.origin == bindparam("its_origin"),
    Media.sha256.in_(bindparam("hashes", expanding=True)),
)
_SAME_CONTENT = (
    select(QuarantinedMedia.quarantined_by)
    .join(
        Media,
        (Media.origin == QuarantinedMedia.origin) & (Media.media_id == QuarantinedMedia.media_id),
    )
    .where(Media.sha256 == bindparam("its_hash"))
    .limit(1)
)
_DELETE = delete(QuarantinedMedia).where(
    QuarantinedMedia.origin == bindparam("its_origin"),
    QuarantinedMedia.media_id == bindparam("its_id"),
)


def quarantined_by(tx: Reader, origin: str, media_id: str) -> str | None:
    """Return the administrator who has quarantined a file; None if it is not quarantined."""
    pair = {"its_origin": origin, "its_id": media_id}
    found: str | None = tx.sql.execute(_FIND, pair).scalar()
    return found


def put_many(db: Database, actor: str, files: Iterable[tuple[str, str]]) -> int:
    """Quarantine any number of files as `put` does, some of them in each write."""
    count = 0
    for some in batches(files, _FILES_AT_ONCE):
        with db.write() as tx:
            count += put(tx, actor, some)
        event_loop.pause()
    return count


def put(tx: Tx, actor: str, files: Iterable[tuple[str, str]]) -> int:
    """Quarantine files, given as (server name, media ID); return how many are now.

    These include files with the same content, and those that were quarantined before. Protected
    files are spared.
    """
    chosen = _to_quarantine(tx, list(files))
    for origin, media_id in chosen:
        _put(tx, actor, origin, media_id)
    return len(chosen)


def follow(tx: Tx, media_id: str, sha256: str) -> None:
    """Quarantine a new file of this server if another one with this content is quarantined."""
    actor = tx.sql.execute(_SAME_CONTENT, {"its_hash": sha256}).scalar()
    if actor is not None:
        _put(tx, actor, tx.server.name, media_id)


def lift(tx: Tx, actor: str, origin: str, media_id: str) -> None:
    """Let users download a file again, and others with the same content."""
    for of_origin, of_id in {(origin, media_id), *_alike(tx, [(origin, media_id)])}:
        key = {"its_origin": of_origin, "its_id": of_id}
        if tx.sql.execute(_DELETE, key).rowcount:
            audit.note(tx, actor, LIFT, f"{_MXC}{of_origin}/{of_id}")


def forget(tx: Tx, origin: str, media_ids: Iterable[str]) -> None:
    """Delete the rows of files that are being deleted."""
    tx.sql.execute(_DELETE, [{"its_origin": origin, "its_id": it} for it in media_ids])


def last_change(tx: Reader) -> int:
    """Return the place in the audit log of the latest change."""
    return audit.last_of_actions(tx, (PUT, LIFT))


def changes(tx: Reader, since: int) -> tuple[list[Json], int]:
    """Return what was quarantined or no longer is after a place in the audit log, oldest first.

    Each change has origin, media_id, quarantined; at most CHANGES_AT_ONCE. The second value is the
    place from which to go on.
    """
    found = audit.of_actions(tx, (PUT, LIFT), since, CHANGES_AT_ONCE)
    listed: list[Json] = []
    for entry in found:
        origin, _, media_id = entry["subject"].removeprefix(_MXC).partition("/")
        is_put = entry["action"] == PUT
        listed.append({"origin": origin, "media_id": media_id, "quarantined": is_put})
    return listed, found[-1]["id"] if found else since


def _put(tx: Tx, actor: str, origin: str, media_id: str) -> None:
    if quarantined_by(tx, origin, media_id) is not None:
        return
    row = {"quarantined_by": actor, "quarantined_ts": tx.now_ms}
    tx.sql.execute(insert(QuarantinedMedia), {"origin": origin, "media_id": media_id, **row})
    audit.note(tx, actor, PUT, f"{_MXC}{origin}/{media_id}")


def _to_quarantine(tx: Tx, files: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the files and those of the same content, without protected ones."""
    here = {"its_origin": tx.server.name}
    ids = [media_id for origin, media_id in files if origin == tx.server.name]
    rows = tx.sql.execute(_CONTENTS, {**here, "media_ids": ids}) if ids else ()
    spared = {(tx.server.name, row.media_id) for row in rows if row.is_protected}
    chosen = [it for it in files if it not in spared]
    return list(dict.fromkeys([*chosen, *_alike(tx, chosen)]))


def _alike(tx: Tx, files: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the files of this server with the content of one of these, without protected ones."""
    here = {"its_origin": tx.server.name}
    ids = [media_id for origin, media_id in files if origin == tx.server.name]
    rows = tx.sql.execute(_CONTENTS, {**here, "media_ids": ids}) if ids else ()
    hashes = sorted({row.sha256 for row in rows if row.sha256 is not None})
    alike = tx.sql.execute(_WITH_CONTENT, {**here, "hashes": hashes}) if hashes else ()
    return [(tx.server.name, row.media_id) for row in alike if not row.is_protected]
