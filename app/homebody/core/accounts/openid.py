"""OpenID tokens, with which a third party can ask this server who a user is.

The database holds hashes only. This module alone writes the table openid_tokens.
Spec: client-server-api#openid, server-server-api#openid
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.accounts import access_tokens
from homebody.models.accounts import Account, OpenIdToken
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

LIFETIME_MS: Final = 3_600_000

_BEARER = (
    select(OpenIdToken.user_id)
    .join(Account, Account.user_id == OpenIdToken.user_id)
    .where(
        OpenIdToken.token_hash == bindparam("token_hash"),
        OpenIdToken.expires_ts > bindparam("now"),
        Account.deactivated_ts.is_(None),
        Account.is_locked.is_(False),
    )
)


def issue(tx: Tx, user_id: str) -> Json:
    """Return a new token, with what third parties need to verify it; delete expired ones."""
    tx.sql.execute(delete(OpenIdToken).where(OpenIdToken.expires_ts <= tx.now_ms))
    token = f"hbo_{secrets.token_urlsafe(32)}"
    row = {"user_id": user_id, "expires_ts": tx.now_ms + LIFETIME_MS}
    tx.sql.execute(insert(OpenIdToken), {**row, "token_hash": access_tokens.hash_of(token)})
    return {
        "access_token": token,
        "token_type": "Bearer",
        "matrix_server_name": tx.server.name,
        "expires_in": LIFETIME_MS // 1000,
    }


def bearer(tx: Reader, token: str) -> str:
    """Return the user ID that this token was issued to. Raises M_UNKNOWN_TOKEN."""
    key = {"token_hash": access_tokens.hash_of(token), "now": tx.now_ms}
    user_id = tx.sql.execute(_BEARER, key).scalar()
    if user_id is None:
        raise errors.unknown_token("The token is not known, or has expired")
    return str(user_id)
