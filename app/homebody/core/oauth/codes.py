"""Authorization codes, which a client exchanges for the tokens of a session.

A code is valid once, for two minutes, for the client and redirect URI that it was issued to, and
with the secret (PKCE) of the program that began: a stolen code is worth nothing. It ends with the
browser's session in which the user consented, and so with a new password. One that was used is kept
until it expires: if it comes again, somebody has stolen it. The database holds hashes only. This
module alone writes the table oauth_codes.

Spec: client-server-api#authorisation-code-flow, client-server-api#authorisation-code-grant
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update

from homebody.core.accounts import access_tokens, oauth_sessions
from homebody.core.oauth import client_metadata, clients, refusals, sessions
from homebody.core.oauth.authorization import AuthorizationRequest, Target
from homebody.core.oauth.clients import Client
from homebody.core.oauth.refusals import ReplayError
from homebody.core.sessions import browser_sessions, sign_on_sessions
from homebody.core.sessions.browser_sessions import BrowserSession
from homebody.models.oauth import OAuthCode
from homebody.spec.events import Json
from homebody.storage.database import Tx

LIFETIME_MS: Final = 120_000

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_FIND = select(
    OAuthCode.client_id,
    OAuthCode.user_id,
    OAuthCode.device_id,
    OAuthCode.scope,
    OAuthCode.redirect_uri,
    OAuthCode.code_challenge,
    OAuthCode.expires_ts,
    OAuthCode.is_used,
    OAuthCode.session_hash,
).where(OAuthCode.code_hash == bindparam("code_hash"))


def issue(tx: Tx, session: BrowserSession, target: Target, request: AuthorizationRequest) -> str:
    """Return a code by which the client gets a session of the user, who has consented."""
    client_id = target.client.client_id
    tx.sql.execute(delete(OAuthCode).where(OAuthCode.expires_ts <= tx.now_ms))
    if client_metadata.is_verified(target.redirect_uri):  # others are asked about each time
        oauth_sessions.remember_consent(tx, session.user_id, client_id)
    clients.note_use(tx, client_id)
    code = f"hbc_{secrets.token_urlsafe(32)}"
    row = {
        "code_hash": access_tokens.hash_of(code),
        "client_id": client_id,
        "user_id": session.user_id,
        "device_id": request.scope.device_id,
        "scope": request.scope.text,
        "redirect_uri": target.redirect_uri,
        "code_challenge": request.code_challenge,
        "expires_ts": tx.now_ms + LIFETIME_MS,
        "is_used": False,
        "session_hash": session.token_hash,
    }
    tx.sql.execute(insert(OAuthCode), row)
    return code


def redeem(tx: Tx, client: Client, code: str, redirect_uri: str, verifier: str) -> Json:
    """Start the session that a code stands for, and return the response with its tokens.

    Raises invalid_grant, and ReplayError for a code that was used before.
    """
    client.check_grant("authorization_code")
    code_hash = access_tokens.hash_of(code)
    row = tx.sql.execute(_FIND, {"code_hash": code_hash}).first()
    if row is None or row.client_id != client.client_id or row.expires_ts <= tx.now_ms:
        raise refusals.invalid_grant("The code is not valid, or has expired")
    if row.redirect_uri != redirect_uri:
        raise refusals.invalid_grant("redirect_uri is not that of the authorization request")
    # First of all: somebody who has seen the code alone can't end the session of its owner by it
    if not _proves(verifier, row.code_challenge):
        raise refusals.invalid_grant("code_verifier does not fit the code_challenge")
    if row.is_used:
        raise ReplayError("The code was used before", row.user_id, row.device_id)
    if not browser_sessions.is_open(tx, row.session_hash):
        raise refusals.invalid_grant("The user has logged out meanwhile")
    used = update(OAuthCode).where(OAuthCode.code_hash == code_hash)
    tx.sql.execute(used.values(is_used=True))
    response = sessions.start(tx, row.user_id, row.device_id, client, row.scope)
    sign_on_sessions.note_device(tx, row.user_id, row.session_hash, row.device_id)
    return response


def _proves(verifier: str, challenge: str) -> bool:
    """Return whether this is the secret whose hash the authorization request had (RFC 7636)."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"="), challenge.encode())
