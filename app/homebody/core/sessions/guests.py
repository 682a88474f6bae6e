"""Guests: accounts for looking around, that cost nothing to get and may do little.

Spec: client-server-api#guest-access
"""

from __future__ import annotations

import secrets
from typing import Final

from homebody import errors
from homebody.core.accounts import access_tokens
from homebody.core.sessions import registration
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Tx

PREFIX: Final = "guest-"


def register(tx: Tx) -> str:
    """The user id of a new guest. Raises M_GUEST_ACCESS_FORBIDDEN where the owner wants none."""
    if not tx.server.config.allow_guests:
        raise errors.guest_access_forbidden("This server has no guest accounts")
    user_id = registration.free_user_id(tx, PREFIX + secrets.token_hex(6))
    registration.create(tx, user_id, None, is_guest=True)
    return user_id


def by_token(db: Database, username: str | None, token: str) -> Requester:
    """Return the guest who shows this token, to become a user under the same name.

    Raises M_UNKNOWN_TOKEN, M_FORBIDDEN for a token of who is no guest or of another name.
    """
    guest = access_tokens.authenticate(db, token)
    if not guest.is_guest:
        raise errors.forbidden("guest_access_token is no token of a guest")
    if username is None or guest.user_id != f"@{registration.folded(username)}:{db.server.name}":
        raise errors.forbidden("username must be the one that the guest has")
    return guest
