"""Clients of the OAuth 2.0 API, which register themselves.

"Clients MUST perform a new client registration at the start of each authorisation flow", so the
same client comes again and again: its ID is derived from its metadata, and equal metadata share one
row. A client that has logged nobody in is forgotten after UNUSED_MS; when it comes again, it gets
the same ID. This module alone writes the table oauth_clients.

Spec: client-server-api#client-registration, client-server-api#dynamic-client-registration-flow
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, insert, select, update

from homebody.core.accounts import oauth_sessions
from homebody.core.oauth import client_metadata, refusals
from homebody.models.oauth import OAuthClient, OAuthSession
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

UNUSED_MS: Final = 7 * 86_400_000
"""How long a client is kept that has no session."""
MAX_UNUSED: Final = 2_000
"""Clients without a session; beyond it the oldest are forgotten sooner."""
USE_TO_WRITE_MS: Final = 3_600_000
"""How exactly it is known when a client was used."""

_FIND = select(OAuthClient.registration, OAuthClient.last_used_ts).where(
    OAuthClient.client_id == bindparam("client_id")
)
_HAS_SESSION = (
    select(OAuthSession.client_id).where(OAuthSession.client_id == OAuthClient.client_id).exists()
)
_FORGET_UNUSED = (
    delete(OAuthClient)
    .where(OAuthClient.last_used_ts < bindparam("used_before"), ~_HAS_SESSION)
    .returning(OAuthClient.client_id)
)
_SESSION = (
    select(OAuthSession.client_id).where(OAuthSession.client_id == bindparam("client_id")).limit(1)
)
_NEWEST_TO_FORGET = (
    select(OAuthClient.last_used_ts)
    .where(~_HAS_SESSION)
    .order_by(OAuthClient.last_used_ts.desc())
    .offset(bindparam("kept"))
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client."""

    client_id: str
    registration: Json

    @property
    def name(self) -> str:
        """What users know it by."""
        return oauth_sessions.name_of(self.registration)

    @property
    def uri(self) -> str:
        """The page about it."""
        return str(self.registration["client_uri"])

    def check_grant(self, grant_type: str) -> None:
        """Raise unauthorized_client for a grant that the client has not registered for."""
        if grant_type not in self.registration["grant_types"]:
            raise refusals.unauthorized_client("The client has not registered for this grant type")


def register(tx: Tx, body: Json) -> Json:
    """Register a client, and return its metadata with its `client_id`.

    Raises invalid_client_metadata, invalid_redirect_uri.
    """
    registration = client_metadata.check(body)
    client_id = _id_of(registration)
    key = {"client_id": client_id}
    if tx.sql.execute(_FIND, key).first() is None:
        _forget_unused(tx)
        row = {**key, "registration": registration, "last_used_ts": tx.now_ms}
        tx.sql.execute(insert(OAuthClient), row)
    else:
        note_use(tx, client_id)
    return {**key, "client_id_issued_at": tx.now_ms // 1000, **registration}


def find(tx: Reader, client_id: str | None) -> Client:
    """Return a client. Raises invalid_client for one that is not registered."""
    row = tx.sql.execute(_FIND, {"client_id": client_id}).first() if client_id else None
    if row is None or client_id is None:
        raise refusals.invalid_client()
    return Client(client_id, row.registration)


def is_used(tx: Reader, client_id: str) -> bool:
    """Return whether any user is logged in with a client."""
    return tx.sql.execute(_SESSION, {"client_id": client_id}).first() is not None


def note_use(tx: Tx, client_id: str) -> None:
    """Note that a client has registered again, or begun to log a user in."""
    of_client = (
        OAuthClient.client_id == client_id,
        OAuthClient.last_used_ts <= tx.now_ms - USE_TO_WRITE_MS,
    )
    tx.sql.execute(update(OAuthClient).where(*of_client).values(last_used_ts=tx.now_ms))


def _forget_unused(tx: Tx) -> None:
    """Delete clients without a session that were not used for long, and the oldest of too many."""
    latest = tx.sql.execute(_NEWEST_TO_FORGET, {"kept": MAX_UNUSED}).scalar()
    too_old = tx.now_ms - UNUSED_MS
    used_before = too_old if latest is None else max(too_old, latest + 1)
    unused = tx.sql.execute(_FORGET_UNUSED, {"used_before": used_before}).scalars().all()
    oauth_sessions.forget_clients(tx, unused)


def _id_of(registration: Json) -> str:
    text = orjson.dumps(registration, option=orjson.OPT_SORT_KEYS)
    return base64.b32encode(hashlib.sha256(text).digest()[:20]).decode().lower()
