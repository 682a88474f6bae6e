"""Limits of single accounts in place of rc_message, set by administrators.

Requesters have the limit of their account, see core/accounts/access_tokens.py. This module alone
writes the table rate_limit_overrides.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select

from homebody.core import audit
from homebody.core.accounts import access_tokens
from homebody.models.moderation import RateLimitOverride
from homebody.storage.database import Reader, Tx

_FIND = select(RateLimitOverride.messages_per_second, RateLimitOverride.burst_count).where(
    RateLimitOverride.user_id == bindparam("user_id")
)


@dataclass(frozen=True, slots=True)
class Override:
    """How many events one account may send."""

    messages_per_second: int
    """0: no limit."""
    burst_count: int


def find(tx: Reader, user_id: str) -> Override | None:
    """Return the limit of an account, None where rc_message applies."""
    row = tx.sql.execute(_FIND, {"user_id": user_id}).first()
    return None if row is None else Override(*row)


def put(tx: Tx, actor: str, user_id: str, override: Override) -> None:
    """Set the limit of an account."""
    _remove(tx, user_id)
    limit = {
        "messages_per_second": override.messages_per_second,
        "burst_count": override.burst_count,
    }
    tx.sql.execute(insert(RateLimitOverride), {"user_id": user_id, **limit})
    access_tokens.drop_cached(tx, user_id)  # requesters have it, so it takes effect at once
    audit.note(tx, actor, "user.rate_limit", user_id, **limit)


def remove(tx: Tx, actor: str, user_id: str) -> None:
    """Have rc_message apply to an account again."""
    if _remove(tx, user_id):
        access_tokens.drop_cached(tx, user_id)
        audit.note(tx, actor, "user.rate_limit", user_id, removed=True)


def _remove(tx: Tx, user_id: str) -> int:
    statement = delete(RateLimitOverride).where(RateLimitOverride.user_id == user_id)
    return tx.sql.execute(statement).rowcount
