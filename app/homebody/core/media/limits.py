"""How much each user may upload: quotas.media_bytes, or the user's own limit.

This module alone writes the table media_quotas.
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

from homebody.core import audit
from homebody.models.media import MediaQuota
from homebody.storage.database import Reader, Tx

_OWN = select(MediaQuota.max_bytes).where(MediaQuota.user_id == bindparam("user_id"))
_ALL = select(MediaQuota.user_id, MediaQuota.max_bytes).order_by(MediaQuota.user_id)


def own(tx: Reader, user_id: str) -> int | None:
    """Return the limit that an administrator has set for a user, or None."""
    found: int | None = tx.sql.execute(_OWN, {"user_id": user_id}).scalar()
    return found


def of(tx: Reader, user_id: str) -> int:
    """Return how many bytes of files a user may have."""
    limit = own(tx, user_id)
    return tx.server.config.quotas.media_bytes if limit is None else limit


def put(tx: Tx, actor: str, user_id: str, max_bytes: int | None) -> None:
    """Set the limit of a user; None has the setting apply again."""
    tx.sql.execute(delete(MediaQuota).where(MediaQuota.user_id == user_id))
    if max_bytes is not None:
        tx.sql.execute(insert(MediaQuota), {"user_id": user_id, "max_bytes": max_bytes})
    audit.note(tx, actor, "user.media_quota", user_id, max_bytes=max_bytes)


def all_own(tx: Reader) -> dict[str, int]:
    """Return {user_id: limit} of all users who have one of their own."""
    return {row.user_id: row.max_bytes for row in tx.sql.execute(_ALL)}
