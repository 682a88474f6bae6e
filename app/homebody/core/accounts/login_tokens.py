"""Login tokens, with which a session logs in another device of the same user.

A token can be used once, within two minutes: it is shown as a QR code, or passed from one window to
another. The database holds hashes only. This module alone writes the table login_tokens.

Spec: client-server-api#post_matrixclientv1loginget_token
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import delete, insert

from homebody import errors
from homebody.core.accounts import access_tokens, accounts
from homebody.models.sign_in import LoginToken
from homebody.storage.database import Tx

LIFETIME_MS: Final = 120_000
SSO_LIFETIME_MS: Final = 30_000
"""Of a token at the end of a single sign-on. "Around five seconds" are too few for a telephone that
changes from its browser to another app, on a slow network."""

_KEPT: Final = (LoginToken.user_id, LoginToken.expires_ts, LoginToken.browser_hash)


def issue(
    tx: Tx, user_id: str, lifetime_ms: int = LIFETIME_MS, *, browser_hash: bytes | None = None
) -> str:
    """Return a new token with which the user can log in once within its lifetime.

    `browser_hash`: the session of the browser to which it is issued, if it is.
    """
    tx.sql.execute(delete(LoginToken).where(LoginToken.expires_ts <= tx.now_ms))
    token = f"hbl_{secrets.token_urlsafe(32)}"
    tx.sql.execute(
        insert(LoginToken),
        {
            "token_hash": access_tokens.hash_of(token),
            "user_id": user_id,
            "expires_ts": tx.now_ms + lifetime_ms,
            "browser_hash": browser_hash,
        },
    )
    return token


def redeem(tx: Tx, token: str) -> tuple[str, bytes | None]:
    """Consume the token; return its user, and the browser to which it was issued, if it was.

    Raises M_FORBIDDEN for a token that was used, has expired or never existed, M_USER_DEACTIVATED,
    M_USER_LOCKED.
    """
    used = delete(LoginToken).where(LoginToken.token_hash == access_tokens.hash_of(token))
    row = tx.sql.execute(used.returning(*_KEPT)).first()
    if row is None or row.expires_ts <= tx.now_ms:
        raise errors.forbidden("The login token is not valid, or has expired")
    account = accounts.find(tx, row.user_id)
    if account is None:
        raise errors.user_deactivated()
    accounts.check_active(tx, account)
    return account.user_id, row.browser_hash


def revoke_all(tx: Tx, user_id: str) -> None:
    """Revoke the user's login tokens, which an intruder may have created."""
    tx.sql.execute(delete(LoginToken).where(LoginToken.user_id == user_id))
