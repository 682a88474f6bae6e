"""Links that let a person in once: to register an account, or to set a new password.

The database holds hashes of their tokens only. This module alone writes the table invitations.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update

from homebody import errors
from homebody.core import audit
from homebody.core.accounts import access_tokens
from homebody.models.accounts import Invitation as Row
from homebody.storage.database import Reader, Tx

REGISTER: Final = "register"
PASSWORD: Final = "password"  # noqa: S105 - a purpose
KEPT_MS: Final = 30 * 24 * 3_600_000
"""How long the administrator sees invitations that have expired."""

_ALL = select(
    Row.token_hash,
    Row.purpose,
    Row.user_id,
    Row.created_by,
    Row.created_ts,
    Row.expires_ts,
    Row.used_ts,
)
_FIND = _ALL.where(Row.token_hash == bindparam("token_hash"))


@dataclass(frozen=True, slots=True)
class Invitation:
    """A row of the table invitations."""

    token_hash: bytes
    purpose: str
    user_id: str | None
    created_by: str
    created_ts: int  # ms
    expires_ts: int  # ms
    used_ts: int | None  # ms


def create(tx: Tx, actor: str, purpose: str, user_id: str | None, lifetime_ms: int) -> str:
    """Return the token of a new invitation.

    Args:
        tx: the transaction.
        actor: the administrator who invites.
        purpose: REGISTER or PASSWORD.
        user_id: the account that gets a new password, or the user ID kept for a new account.
        lifetime_ms: how long it can be used.

    """
    tx.sql.execute(delete(Row).where(Row.expires_ts < tx.now_ms - KEPT_MS))
    token = secrets.token_urlsafe(24)
    row = {
        "token_hash": access_tokens.hash_of(token),
        "purpose": purpose,
        "user_id": user_id,
        "created_by": actor,
        "created_ts": tx.now_ms,
        "expires_ts": tx.now_ms + lifetime_ms,
    }
    tx.sql.execute(insert(Row), row)
    audit.note(tx, actor, f"invitation.{purpose}", user_id, expires_ts=row["expires_ts"])
    return token


def find(tx: Reader, token: str) -> Invitation:
    """Return a valid invitation. Raises M_FORBIDDEN for one that was used, or has expired."""
    found = tx.sql.execute(_FIND, {"token_hash": access_tokens.hash_of(token)}).first()
    if found is None or found.used_ts is not None or found.expires_ts <= tx.now_ms:
        raise errors.forbidden("This link is not valid: it was used before, or has expired")
    return Invitation(*found)


def use(tx: Tx, token: str) -> Invitation:
    """Consume an invitation and return it. Raises as `find` does."""
    found = find(tx, token)
    tx.sql.execute(update(Row).where(Row.token_hash == found.token_hash).values(used_ts=tx.now_ms))
    return found
