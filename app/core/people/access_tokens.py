"""Access and refresh tokens: the right to act as a device.

The database holds hashes only, so a stolen backup opens no session. This module alone writes the
tables access_tokens and refresh_tokens, and the cache of who is behind a token.
Spec: client-server-api#client-authentication, client-server-api#refreshing-access-tokens
"""

from __future__ import annotations

import hashlib
import secrets
import time

from sqlalchemy import bindparam, insert, select

from app import errors
from app.caches import Requester
from app.db import Database, Reader, Tx
from app.models.accounts import Account
from app.models.devices import AccessToken

_FIND = (
    select(
        AccessToken.user_id,
        AccessToken.device_id,
        AccessToken.expires_ts,
        Account.is_guest,
        Account.is_admin,
        Account.is_locked,
        Account.deactivated_ts,
    )
    .join(Account, Account.user_id == AccessToken.user_id)
    .where(AccessToken.token_hash == bindparam("token_hash"))
)


def authenticate(db: Database, token: str) -> Requester:
    """Who is behind an access token. Raises M_UNKNOWN_TOKEN, M_USER_LOCKED."""
    token_hash = hash_of(token)
    found = db.caches.tokens.get(token_hash)
    if found is None:
        with db.read() as tx:
            found = _read(tx, token_hash)
    if found.expires_ts is not None and found.expires_ts <= time.time_ns() // 1_000_000:
        raise errors.unknown_token("The access token has expired", soft_logout=True)
    return found


def issue(tx: Tx, user_id: str, device_id: str, expires_ts: int | None = None) -> str:
    """A new access token for a device; `expires_ts` in ms, None: valid until logout."""
    token = f"hb_{secrets.token_urlsafe(32)}"
    tx.sql.execute(
        insert(AccessToken),
        {
            "token_hash": hash_of(token),
            "user_id": user_id,
            "device_id": device_id,
            "expires_ts": expires_ts,
        },
    )
    return token


def hash_of(token: str) -> bytes:
    """What the database keeps of a token; it has 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _read(tx: Reader, token_hash: bytes) -> Requester:
    row = tx.sql.execute(_FIND, {"token_hash": token_hash}).first()
    if row is None or row.deactivated_ts is not None:
        raise errors.unknown_token()
    if row.is_locked:
        raise errors.user_locked()
    found = Requester(
        row.user_id,
        row.device_id,
        token_hash,
        is_guest=row.is_guest,
        is_admin=row.is_admin,
        expires_ts=row.expires_ts,
    )
    tx.fill(tx.caches.tokens, token_hash, found)
    return found
