"""Login tokens: how somebody who is logged in lets another of their devices in.

A token is good once, and for two minutes: it is shown as a QR code, or sent from one window to
another. The database holds hashes only. This module alone writes the table login_tokens.

Spec: client-server-api#post_matrixclientv1loginget_token
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import bindparam, delete, insert

from homebody import errors
from homebody.core.accounts import access_tokens, accounts
from homebody.models.sign_in import LoginToken
from homebody.storage.database import Tx

LIFETIME_MS: Final = 120_000

_TAKE = (
    delete(LoginToken)
    .where(LoginToken.token_hash == bindparam("hash_of_it"))
    .returning(LoginToken.user_id, LoginToken.expires_ts)
)
_DELETE_EXPIRED = delete(LoginToken).where(LoginToken.expires_ts <= bindparam("now_ms"))
_DELETE_ALL = delete(LoginToken).where(LoginToken.user_id == bindparam("of_user"))


def issue(tx: Tx, user_id: str) -> str:
    """A token with which one session of this user can be begun within LIFETIME_MS."""
    tx.sql.execute(_DELETE_EXPIRED, {"now_ms": tx.now_ms})
    token = f"hbl_{secrets.token_urlsafe(32)}"
    tx.sql.execute(
        insert(LoginToken),
        {
            "token_hash": access_tokens.hash_of(token),
            "user_id": user_id,
            "expires_ts": tx.now_ms + LIFETIME_MS,
        },
    )
    return token


def redeem(tx: Tx, token: str) -> str:
    """The user whom this token lets in; it is used up.

    Raises M_FORBIDDEN for one that was used, has expired or never was, M_USER_DEACTIVATED,
    M_USER_LOCKED.
    """
    row = tx.sql.execute(_TAKE, {"hash_of_it": access_tokens.hash_of(token)}).first()
    if row is None or row.expires_ts <= tx.now_ms:
        raise errors.forbidden("This login token is not valid, or not any more")
    account = accounts.find(tx, row.user_id)
    if account is None:
        raise errors.user_deactivated()
    accounts.check_active(account)
    return account.user_id


def revoke_all(tx: Tx, user_id: str) -> None:
    """Make the user's tokens worthless: whoever made one may have been somebody else."""
    tx.sql.execute(_DELETE_ALL, {"of_user": user_id})
