"""Files that nobody can download, as an administrator has quarantined them.

A quarantined file need not be known: one of another server stays quarantined when it is fetched.
This module alone writes the table quarantined_media.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, insert, select

from homebody.core import audit
from homebody.models.media import QuarantinedMedia
from homebody.storage.database import Reader, Tx

_FIND = select(QuarantinedMedia.quarantined_by).where(
    QuarantinedMedia.origin == bindparam("its_origin"),
    QuarantinedMedia.media_id == bindparam("its_id"),
)


def quarantined_by(tx: Reader, origin: str, media_id: str) -> str | None:
    """Return the administrator who has quarantined a file; None if it is not quarantined."""
    pair = {"its_origin": origin, "its_id": media_id}
    found: str | None = tx.sql.execute(_FIND, pair).scalar()
    return found


def put(tx: Tx, actor: str, files: Iterable[tuple[str, str]]) -> int:
    """Quarantine files, given as (server name, media ID); return how many were not before."""
    count = 0
    for origin, media_id in files:
        if quarantined_by(tx, origin, media_id) is not None:
            continue
        row = {"quarantined_by": actor, "quarantined_ts": tx.now_ms}
        tx.sql.execute(insert(QuarantinedMedia), {"origin": origin, "media_id": media_id, **row})
        audit.note(tx, actor, "media.quarantine", f"mxc://{origin}/{media_id}")
        count += 1
    return count


def lift(tx: Tx, actor: str, origin: str, media_id: str) -> None:
    """Let users download a file again."""
    statement = delete(QuarantinedMedia).where(
        QuarantinedMedia.origin == origin, QuarantinedMedia.media_id == media_id
    )
    if tx.sql.execute(statement).rowcount:
        audit.note(tx, actor, "media.unquarantine", f"mxc://{origin}/{media_id}")
