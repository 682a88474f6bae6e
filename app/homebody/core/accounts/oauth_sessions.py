"""Which devices were logged in by the OAuth 2.0 API, and the clients that users have let in.

Their access and refresh tokens are those of any device (access_tokens.py), so a request with one
costs the same. A user's consent to a client is remembered until the user withdraws it, logs out
everywhere or sets another password: an intruder may have given it. It ends with the client, too.
This module alone writes the tables oauth_sessions and oauth_consents.

Spec: client-server-api#oauth-20-api
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select

from homebody.models.oauth import OAuthClient, OAuthConsent
from homebody.models.oauth import OAuthSession as Row
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

_FIND = select(Row.client_id, Row.scope).where(
    Row.user_id == bindparam("user_id"), Row.device_id == bindparam("device_id")
)
_CLIENT = (
    select(OAuthClient.registration)
    .join(Row, Row.client_id == OAuthClient.client_id)
    .where(Row.user_id == bindparam("user_id"), Row.device_id == bindparam("device_id"))
)
_CONSENT = select(OAuthConsent.granted_ts).where(
    OAuthConsent.user_id == bindparam("user_id"), OAuthConsent.client_id == bindparam("client_id")
)

_CONSENTS = (
    select(OAuthConsent.client_id, OAuthConsent.granted_ts, OAuthClient.registration)
    .join(OAuthClient, OAuthClient.client_id == OAuthConsent.client_id)
    .where(OAuthConsent.user_id == bindparam("user_id"))
    .order_by(OAuthConsent.granted_ts)
)
_FORGET_CLIENTS = delete(OAuthConsent).where(
    OAuthConsent.client_id.in_(select(listed("client_ids").c.value))
)


class OAuthSession(NamedTuple):
    """The client and the scope of a device's session."""

    client_id: str
    scope: str


class Consent(NamedTuple):
    """A client that a user has let in, and that is let in again without a question."""

    client_id: str
    name: str
    uri: str
    granted_ts: int  # ms


def find(tx: Reader, user_id: str, device_id: str) -> OAuthSession | None:
    """Return what the session of a device was granted, or None if it began by another API."""
    row = tx.sql.execute(_FIND, {"user_id": user_id, "device_id": device_id}).first()
    return None if row is None else OAuthSession(*row)


def client_of(tx: Reader, user_id: str, device_id: str) -> str | None:
    """Return the name of the client that has logged in a device, None if it used another API."""
    row = tx.sql.execute(_CLIENT, {"user_id": user_id, "device_id": device_id}).first()
    return None if row is None else name_of(row.registration)


def name_of(registration: dict[str, object]) -> str:
    """Return what users know a client by: its name, or else its address."""
    return str(registration.get("client_name") or registration["client_uri"])


def start(tx: Tx, user_id: str, device_id: str, session: OAuthSession) -> None:
    """Note that the session of this device was started by the OAuth 2.0 API."""
    tx.sql.execute(insert(Row), {"user_id": user_id, "device_id": device_id, **session._asdict()})


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Forget what these devices were granted, as their sessions end or others begin."""
    tx.sql.execute(delete(Row).where(Row.user_id == user_id, Row.device_id.in_(device_ids)))


def has_consented(tx: Reader, user_id: str, client_id: str) -> bool:
    """Return whether the user has let this client in before."""
    key = {"user_id": user_id, "client_id": client_id}
    return tx.sql.execute(_CONSENT, key).first() is not None


def consents_of(tx: Reader, user_id: str) -> list[Consent]:
    """Return the clients that the user has let in before, in this order."""
    return [
        Consent(
            it.client_id, name_of(it.registration), it.registration["client_uri"], it.granted_ts
        )
        for it in tx.sql.execute(_CONSENTS, {"user_id": user_id})
    ]


def remember_consent(tx: Tx, user_id: str, client_id: str) -> None:
    """Remember that the user has let this client in."""
    if not has_consented(tx, user_id, client_id):
        row = {"user_id": user_id, "client_id": client_id, "granted_ts": tx.now_ms}
        tx.sql.execute(insert(OAuthConsent), row)


def forget_consent(tx: Tx, user_id: str, client_id: str) -> None:
    """Ask the user again when this client wants to be let in."""
    known = (OAuthConsent.user_id == user_id, OAuthConsent.client_id == client_id)
    tx.sql.execute(delete(OAuthConsent).where(*known))


def forget_clients(tx: Tx, client_ids: Collection[str]) -> None:
    """Forget all consents to clients that are not registered any more."""
    tx.sql.execute(_FORGET_CLIENTS, {"client_ids": client_ids})


def forget_consents(tx: Tx, user_id: str) -> None:
    """Ask the user again when any client wants to be let in."""
    tx.sql.execute(delete(OAuthConsent).where(OAuthConsent.user_id == user_id))
