"""The device authorization grant: a device without a browser is let in from another one.

The device shows a short code, its user types it on a page of this server, or opens a link with it,
and decides; the device meanwhile asks for its tokens every few seconds. One that asks too often has
to wait longer. The database holds hashes of the device's own code only. This module alone writes
the table oauth_device_codes.

Spec: client-server-api#device-authorisation-flow, client-server-api#device-authorisation-grant
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, update

from homebody.core.accounts import access_tokens
from homebody.core.oauth import client_metadata, clients, refusals, scopes, sessions
from homebody.core.oauth.clients import Client
from homebody.core.oauth.refusals import OAuthError
from homebody.core.sessions import browser_sessions, sign_on_sessions
from homebody.core.sessions.browser_sessions import BrowserSession
from homebody.models.oauth import OAuthDeviceCode
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

LIFETIME_MS: Final = 20 * 60_000
INTERVAL_MS: Final = 5_000
SLOWER_MS: Final = 5_000
"""Added to a device's interval each time it asks too early."""
EARLY_MS: Final = 500
"""How much too early is not held against a device: requests take differently long."""
KEPT_MS: Final = 60_000
"""How long an expired code is kept, so that its device learns that it has expired."""
MAX_PENDING: Final = 5_000
LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""Of user codes: without vowels, so that they spell nothing."""

_FIND = select(
    OAuthDeviceCode.device_code_hash,
    OAuthDeviceCode.client_id,
    OAuthDeviceCode.device_id,
    OAuthDeviceCode.scope,
    OAuthDeviceCode.expires_ts,
    OAuthDeviceCode.interval_ms,
    OAuthDeviceCode.last_poll_ts,
    OAuthDeviceCode.user_id,
    OAuthDeviceCode.is_denied,
    OAuthDeviceCode.session_hash,
).where(OAuthDeviceCode.device_code_hash == bindparam("device_code_hash"))
_PENDING = select(
    OAuthDeviceCode.user_code, OAuthDeviceCode.client_id, OAuthDeviceCode.device_id
).where(
    OAuthDeviceCode.user_code == bindparam("user_code"),
    OAuthDeviceCode.expires_ts > bindparam("now"),
    OAuthDeviceCode.user_id.is_(None),
)
_COUNT = select(func.count()).select_from(OAuthDeviceCode)


class Pending(NamedTuple):
    """A device that waits for a decision."""

    user_code: str
    client: Client
    device_id: str


def begin(tx: Tx, client: Client, scope_text: str) -> Json:
    """Return the codes of a device that wants to be let in, as in RFC 8628, without the URIs.

    Raises unauthorized_client, invalid_scope, temporarily_unavailable.
    """
    client.check_grant(client_metadata.DEVICE_CODE)
    scope = scopes.parse(scope_text)
    tx.sql.execute(delete(OAuthDeviceCode).where(OAuthDeviceCode.expires_ts <= tx.now_ms - KEPT_MS))
    if tx.sql.execute(_COUNT).scalar_one() >= MAX_PENDING:
        raise OAuthError("temporarily_unavailable", "Too many devices wait to be let in", 503)
    clients.note_use(tx, client.client_id)
    device_code = f"hbd_{secrets.token_urlsafe(32)}"
    user_code = "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _half in range(2))
    row = {
        "device_code_hash": access_tokens.hash_of(device_code),
        "user_code": user_code,
        "client_id": client.client_id,
        "device_id": scope.device_id,
        "scope": scope.text,
        "expires_ts": tx.now_ms + LIFETIME_MS,
        "interval_ms": INTERVAL_MS,
        "is_denied": False,
    }
    tx.sql.execute(insert(OAuthDeviceCode), row)
    return {
        "device_code": device_code,
        "user_code": user_code,
        "expires_in": LIFETIME_MS // 1000,
        "interval": INTERVAL_MS // 1000,
    }


def find(tx: Reader, user_code: str) -> Pending | None:
    """Return the device that shows this code, however it was typed, if it still waits."""
    letters = "".join(it for it in user_code.upper() if it in LETTERS)
    key = {"user_code": f"{letters[:4]}-{letters[4:]}", "now": tx.now_ms}
    row = tx.sql.execute(_PENDING, key).first()
    if row is None:
        return None
    try:
        client = clients.find(tx, row.client_id)
    except OAuthError:  # nobody has used it for long
        return None
    return Pending(row.user_code, client, row.device_id)


def decide(tx: Tx, session: BrowserSession, user_code: str, *, is_allowed: bool) -> Pending | None:
    """Let a device in, or turn it away, and return it; None if no device shows the code.

    Its next request for tokens learns that.
    """
    pending = find(tx, user_code)
    if pending is not None:
        decision = {
            "user_id": session.user_id,
            "is_denied": not is_allowed,
            "session_hash": session.token_hash,
        }
        known = OAuthDeviceCode.user_code == pending.user_code
        tx.sql.execute(update(OAuthDeviceCode).where(known).values(**decision))
    return pending


def poll(tx: Tx, client: Client, device_code: str) -> Json | OAuthError:
    """Return the response with the tokens of a device that was let in; else why there are none.

    The reason is returned and not raised, as it is written when the device has asked.
    Raises invalid_grant, expired_token, unauthorized_client.
    """
    client.check_grant(client_metadata.DEVICE_CODE)
    key = {"device_code_hash": access_tokens.hash_of(device_code)}
    row = tx.sql.execute(_FIND, key).first()
    if row is None or row.client_id != client.client_id:
        raise refusals.invalid_grant("The device code is not valid, or was used")
    if row.expires_ts <= tx.now_ms:
        raise OAuthError("expired_token", "The device code has expired")
    known = OAuthDeviceCode.device_code_hash == row.device_code_hash
    if row.user_id is None:
        earliest = (row.last_poll_ts or 0) + row.interval_ms - EARLY_MS
        is_early = tx.now_ms < earliest
        slower = row.interval_ms + SLOWER_MS if is_early else row.interval_ms
        change = update(OAuthDeviceCode).where(known)
        tx.sql.execute(change.values(last_poll_ts=tx.now_ms, interval_ms=slower))
        if is_early:
            return OAuthError("slow_down", f"Wait for {slower // 1000} seconds between requests")
        return OAuthError("authorization_pending", "The user has not decided yet")
    tx.sql.execute(delete(OAuthDeviceCode).where(known))
    if row.is_denied or not browser_sessions.is_open(tx, row.session_hash):
        return OAuthError("access_denied", "The user has turned the device away")
    response = sessions.start(tx, row.user_id, row.device_id, client, row.scope)
    sign_on_sessions.note_device(tx, row.user_id, row.session_hash, row.device_id)
    return response
