"""Shared-secret registration: accounts for scripts, bridges and test tools.

They prove that they know `registration_shared_secret` without sending it, by an HMAC over a nonce
of the server and their request. The nonce contains its own expiry time, so nothing is stored; a
request that is repeated within that time fails as the name is taken.

This is an API of Synapse, for tools written for Synapse; the specification does not have it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from homebody import errors

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


def new_nonce(secret: str, now_ms: int) -> str:
    """Return a nonce that is valid for a minute."""
    text = f"{now_ms + LIFETIME_MS:x}.{secrets.token_hex(8)}"
    return f"{text}.{_seal(secret, text)}"


def check(secret: str, request: RegistrationRequest, now_ms: int) -> None:
    """Raise M_UNKNOWN for a nonce that is unknown or has expired, M_FORBIDDEN for a wrong mac."""
    text, _, seal = request.nonce.rpartition(".")
    if not _is_same(seal, _seal(secret, text)) or int(text.partition(".")[0], 16) < now_ms:
        raise errors.unknown("The nonce is unknown or has expired")
    if not _is_same(request.mac.lower(), _mac(secret, request)):
        raise errors.forbidden("The mac is wrong")


def _mac(secret: str, request: RegistrationRequest) -> str:
    parts = [
        request.nonce,
        request.username,
        request.password,
        "admin" if request.is_admin else "notadmin",
    ]
    if request.user_type is not None:
        parts.append(request.user_type)
    # SHA-1, as the tools use it; HMAC does not need its collision resistance
    return hmac.digest(secret.encode(), "\0".join(parts).encode(), "sha1").hex()


def _seal(secret: str, text: str) -> str:
    return hmac.digest(secret.encode(), b"nonce:" + text.encode(), "sha256").hex()[:32]


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
