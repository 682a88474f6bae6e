"""Shared-secret registration: accounts for scripts, bridges and test tools.

They prove that they know `registration_shared_secret` without sending it, by an HMAC over a nonce
of the server and their request. A nonce contains its own expiry time, so that those which are never
used take no memory; any request that names one uses it up, also one that is refused.

This is an API of Synapse, for tools written for Synapse; the specification does not have it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from homebody import errors
from homebody.core import audit
from homebody.core.accounts import accounts
from homebody.core.profiles import profiles
from homebody.core.sessions import login, registration
from homebody.spec.events import Json
from homebody.storage.database import Tx

LIFETIME_MS = 60_000


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """The account to create, and the proof `mac` in hexadecimal digits."""

    nonce: str
    username: str
    password: str
    mac: str
    is_admin: bool = False
    user_type: str | None = None
    displayname: str | None = None


class Nonces:
    """The nonces of this process, valid for a minute and for one request."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._spent: dict[str, int] = {}  # until when each would be valid, in ms: the oldest first

    def new(self, now_ms: int) -> str:
        """Return a new nonce."""
        text = f"{now_ms + LIFETIME_MS:x}.{secrets.token_hex(8)}"
        return f"{text}.{self._seal(text)}"

    def spend(self, nonce: str, now_ms: int) -> None:
        """Use up a nonce. Raises M_UNKNOWN if it is unknown, was used, or has expired."""
        text, _, seal = nonce.rpartition(".")
        until = int(text.partition(".")[0], 16) if _is_same(seal, self._seal(text)) else 0
        if until < now_ms or nonce in self._spent:
            raise errors.unknown("The nonce is unknown, was used before, or has expired")
        while self._spent and next(iter(self._spent.values())) < now_ms:
            del self._spent[next(iter(self._spent))]
        self._spent[nonce] = until

    def _seal(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:32]


def check(secret: str, request: RegistrationRequest) -> None:
    """Raise M_FORBIDDEN for a wrong mac, M_INVALID_PARAM for what no account can have."""
    if "\0" in request.username + request.password:  # it separates the parts of the mac
        raise errors.invalid_param("Names and passwords can't contain NUL")
    if request.user_type is not None and request.user_type not in accounts.USER_TYPES:
        raise errors.invalid_param(f"user_type must be one of {', '.join(accounts.USER_TYPES)}")
    if not _is_same(request.mac.lower(), _mac(secret, request)):
        raise errors.forbidden("The mac is wrong")


def register(
    tx: Tx, request: RegistrationRequest, password_hash: str, session: login.SessionRequest | None
) -> Json:
    """Create the account and, if wanted, start a session; return what the response has of it.

    Raises M_USER_IN_USE and as registration.free_user_id() and profiles.put() do.
    """
    user_id = registration.register(
        tx,
        request.username,
        password_hash,
        is_admin=request.is_admin,
        user_type=request.user_type,
    )
    if request.displayname is not None:
        profiles.put(tx, user_id, "displayname", request.displayname)
    audit.note(tx, audit.SHARED_SECRET, "user.create", user_id, is_admin=request.is_admin)
    if session is None:
        return {"user_id": user_id, "home_server": tx.server.name}
    return login.start_session(tx, user_id, session)


def _mac(secret: str, request: RegistrationRequest) -> str:
    parts = [
        request.nonce,
        request.username,
        request.password,
        "admin" if request.is_admin else "notadmin",
    ]
    if request.user_type:
        parts.append(request.user_type)
    # SHA-1, as the tools use it; HMAC does not need its collision resistance
    return hmac.digest(secret.encode(), "\0".join(parts).encode(), "sha1").hex()


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
