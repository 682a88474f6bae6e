"""Files that nobody can download, as an administrator has quarantined them.

A quarantined file need not be known: one of another server stays quarantined when it is fetched.
All files with the same content are quarantined together, those of other servers as well, and so are
those that are uploaded or fetched later, even if no file with this content is left; except
protected ones. So the row of a file stays when the file is deleted. This module alone writes the
table quarantined_media.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import BindParameter, bindparam, delete, insert, select

from homebody.core import audit
from homebody.models.media import Media, QuarantinedMedia, RemoteMediaFile
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
_IDS: Final[BindParameter[str]] = bindparam("media_ids", expanding=True)
_HASHES: Final[BindParameter[str]] = bindparam("hashes", expanding=True)
_CONTENTS = select(Media.media_id, Media.sha256, Media.is_protected).where(
    Media.origin == bindparam("its_origin"), Media.media_id.in_(_IDS)
)
_REMOTE_CONTENT = select(RemoteMediaFile.sha256).where(
    RemoteMediaFile.server == bindparam("its_origin"),
    RemoteMediaFile.media_id == bindparam("its_id"),
)
_WITH_CONTENT = select(Media.media_id, Media.sha256).where(
    Media.origin == bindparam("its_origin"), Media.sha256.in_(_HASHES), ~Media.is_protected
)
_REMOTE_WITH_CONTENT = select(
    RemoteMediaFile.server, RemoteMediaFile.media_id, RemoteMediaFile.sha256
).where(RemoteMediaFile.sha256.in_(_HASHES))
_SAME_CONTENT = (
    select(QuarantinedMedia.quarantined_by)
    .where(QuarantinedMedia.sha256 == bindparam("its_hash"))
    .limit(1)
)
_ITSELF = select(QuarantinedMedia.origin, QuarantinedMedia.media_id, QuarantinedMedia.sha256).where(
    QuarantinedMedia.origin == bindparam("its_origin"),
    QuarantinedMedia.media_id == bindparam("its_id"),
)
_ALL_WITH_CONTENT = select(QuarantinedMedia.origin, QuarantinedMedia.media_id).where(
    QuarantinedMedia.sha256 == bindparam("its_hash")
)
_DELETE = delete(QuarantinedMedia).where(
    QuarantinedMedia.origin == bindparam("its_origin"),
    QuarantinedMedia.media_id == bindparam("its_id"),
)

File = tuple[str, str]
"""Server name and media ID."""


def quarantined_by(tx: Reader, origin: str, media_id: str) -> str | None:
    """Return the administrator who has quarantined a file; None if it is not quarantined."""
    pair = {"its_origin": origin, "its_id": media_id}
    found: str | None = tx.sql.execute(_FIND, pair).scalar()
    return found


def put_many(db: Database, actor: str, files: Iterable[File]) -> int:
    """Quarantine any number of files as `put` does, some of them in each write."""
    count = 0
    for some in batches(files, _FILES_AT_ONCE):
        with db.write() as tx:
            count += put(tx, actor, some)
        event_loop.pause()
    return count


def put(tx: Tx, actor: str, files: Iterable[File]) -> int:
    """Quarantine files; return how many are now.

    These include files with the same content, and those that were quarantined before. Protected
    files are spared.
    """
    chosen = _to_quarantine(tx, list(files))
    for (origin, media_id), sha256 in chosen.items():
        _put(tx, actor, origin, media_id, sha256)
    return len(chosen)


def follow(tx: Tx, origin: str, media_id: str, sha256: str) -> bool:
    """Quarantine a new file if one with this content is or was; return whether it is now."""
    actor = tx.sql.execute(_SAME_CONTENT, {"its_hash": sha256}).scalar()
    if actor is not None:
        _put(tx, actor, origin, media_id, sha256)
    return actor is not None


def lift(tx: Tx, actor: str, origin: str, media_id: str) -> None:
    """Let users download a file again, and others with the same content."""
    row = tx.sql.execute(_ITSELF, {"its_origin": origin, "its_id": media_id}).first()
    if row is None:
        return
    alike = tx.sql.execute(_ALL_WITH_CONTENT, {"its_hash": row.sha256}) if row.sha256 else ()
    for of_origin, of_id in {(origin, media_id), *((it.origin, it.media_id) for it in alike)}:
        tx.sql.execute(_DELETE, {"its_origin": of_origin, "its_id": of_id})
        audit.note(tx, actor, LIFT, f"{_MXC}{of_origin}/{of_id}")


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


def _put(tx: Tx, actor: str, origin: str, media_id: str, sha256: str | None) -> None:
    if quarantined_by(tx, origin, media_id) is not None:
        return
    row = {"quarantined_by": actor, "quarantined_ts": tx.now_ms, "sha256": sha256}
    tx.sql.execute(insert(QuarantinedMedia), {"origin": origin, "media_id": media_id, **row})
    audit.note(tx, actor, PUT, f"{_MXC}{origin}/{media_id}")


def _to_quarantine(tx: Tx, files: Sequence[File]) -> dict[File, str | None]:
    """Return the files and those of the same content, without protected ones, with their hashes."""
    name = tx.server.name
    ids = [media_id for origin, media_id in files if origin == name]
    rows = tx.sql.execute(_CONTENTS, {"its_origin": name, "media_ids": ids}) if ids else ()
    own = {row.media_id: row for row in rows}
    chosen: dict[File, str | None] = {}
    for origin, media_id in files:
        if origin != name:
            key = {"its_origin": origin, "its_id": media_id}
            chosen[origin, media_id] = tx.sql.execute(_REMOTE_CONTENT, key).scalar()
        elif media_id not in own:
            chosen[origin, media_id] = None
        elif not own[media_id].is_protected:
            chosen[origin, media_id] = own[media_id].sha256
    if hashes := sorted({sha256 for sha256 in chosen.values() if sha256 is not None}):
        asked = {"its_origin": name, "hashes": hashes}
        chosen |= {(name, row.media_id): row.sha256 for row in tx.sql.execute(_WITH_CONTENT, asked)}
        for row in tx.sql.execute(_REMOTE_WITH_CONTENT, {"hashes": hashes}):
            chosen[row.server, row.media_id] = row.sha256
    return chosen
