"""How much one account may store; the settings are `quotas`.

A write that adds to what an account has stored checks it, inside its transaction. A user over a
quota, because the administrator has lowered it, can still replace stored data by less.
Spec: client-server-api#common-error-codes (M_USER_LIMIT_EXCEEDED)
"""

from __future__ import annotations

from homebody import errors
from homebody.storage.database import Reader


def check(tx: Reader, what: str, *, used: int, limit: int, unit: str = "bytes") -> None:
    """Raise M_USER_LIMIT_EXCEEDED if an account would use more than the limit."""
    if used > limit:
        config = tx.server.config
        message = f"Your account would have {used} {unit} of {what}, and may have {limit}"
        raise errors.user_limit_exceeded(message, config.support_page or config.public_url)
