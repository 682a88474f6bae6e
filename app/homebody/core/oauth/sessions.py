"""The sessions of devices that a code or refresh token of the OAuth 2.0 API starts or continues.

Spec: client-server-api#authorisation-code-flow, client-server-api#refresh-token-grant,
client-server-api#token-revocation
"""

from __future__ import annotations

from homebody.core.accounts import access_tokens, accounts, oauth_sessions
from homebody.core.accounts.oauth_sessions import OAuthSession
from homebody.core.oauth import refusals
from homebody.core.oauth.clients import Client
from homebody.core.oauth.refusals import OAuthError, ReplayError
from homebody.core.sessions import devices
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx


def start(tx: Tx, user_id: str, device_id: str, client: Client, scope: str) -> Json:
    """Start the session of a device, and return the response with its tokens.

    A device of the user with this ID loses its session. Raises invalid_grant if the account was
    locked or deactivated meanwhile, or can't have such a device.
    """
    account = accounts.find(tx, user_id)
    try:
        if account is None:
            raise refusals.invalid_grant("The account does not exist any more")
        accounts.check_active(tx, account)
        devices.start_session(tx, user_id, device_id, client.name)
    except MatrixError as error:
        raise refusals.invalid_grant(error.message) from error
    oauth_sessions.start(tx, user_id, device_id, OAuthSession(client.client_id, scope))
    return _response(access_tokens.issue(tx, user_id, device_id, with_refresh_token=True), scope)


def refresh(tx: Tx, client: Client, refresh_token: str, scope: str | None) -> Json:
    """Exchange a refresh token, and return the response with the new tokens.

    "It MUST ensure that the client is able to retry": the old pair stays valid until the new one
    is used. A locked account keeps its sessions, though all other requests are refused.
    Raises invalid_grant, invalid_scope, and ReplayError for a token that was exchanged before.
    """
    client.check_grant("refresh_token")
    holder = access_tokens.holder_of(tx, refresh_token)
    session = oauth_sessions.find(tx, *holder) if holder else None
    if session is None:
        if (former := access_tokens.former_holder_of(tx, refresh_token)) is not None:
            raise _replay(tx, *former)
        raise refusals.invalid_grant("The refresh token is not valid")
    try:
        pair = access_tokens.exchange(
            tx, refresh_token, of_client=client.client_id, may_be_locked=True
        )
    except MatrixError as error:
        raise refusals.invalid_grant("The refresh token is not valid") from error
    if not set((scope or "").split()) <= set(session.scope.split()):
        raise refusals.invalid_scope("The session has not been granted this scope")
    return _response(pair, session.scope)


def of_token(tx: Reader, token: str) -> tuple[str, str] | None:
    """Return the user and the device with this token, if the OAuth 2.0 API has issued it."""
    holder = access_tokens.holder_of(tx, token)
    return holder if holder and oauth_sessions.find(tx, *holder) else None


def end(db: Database, user_id: str, device_id: str) -> None:
    """End the session of a device that has been revoked, or whose tokens were stolen."""
    devices.remove_most(db, user_id, [device_id])
    with db.write() as tx:
        if oauth_sessions.find(tx, user_id, device_id) is not None:
            devices.remove(tx, user_id, [device_id])


def _replay(tx: Reader, user_id: str, device_id: str) -> OAuthError:
    why = "The refresh token was used before"
    if oauth_sessions.find(tx, user_id, device_id) is None:
        return refusals.invalid_grant(why)
    return ReplayError(why, user_id, device_id)


def _response(pair: Json, scope: str) -> Json:
    return {
        "access_token": pair["access_token"],
        "token_type": "Bearer",
        "expires_in": pair["expires_in_ms"] // 1000,
        "refresh_token": pair["refresh_token"],
        "scope": scope,
    }
