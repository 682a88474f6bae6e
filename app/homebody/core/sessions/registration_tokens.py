"""Registration tokens: who has one may register, as often and as long as it is valid.

This module alone writes the table registration_tokens.
Spec: client-server-api#token-authenticated-registration
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from homebody import errors
from homebody.core import audit
from homebody.models.accounts import RegistrationToken, UiaSession
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

DEFAULT_LENGTH: Final = 16
MAX_LENGTH: Final = 64
MAX_USES: Final = 2**53 - 1
PENDING_MS: Final = 3_600_000
"""How long a registration in which a token was given is pending: the lifetime of its session."""

_EASY_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without letters that look alike
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{1,{MAX_LENGTH}}}")
_PENDING = (
    select(func.count())
    .where(
        UiaSession.registration_token == RegistrationToken.token,
        UiaSession.created_ts > bindparam("pending_since"),
    )
    .correlate(RegistrationToken)
    .scalar_subquery()
)
_IS_VALID = or_(
    RegistrationToken.uses_allowed.is_(None),
    RegistrationToken.uses < RegistrationToken.uses_allowed,
) & or_(RegistrationToken.expires_ts.is_(None), RegistrationToken.expires_ts > bindparam("now"))
_ALL = select(
    RegistrationToken.token,
    RegistrationToken.uses,
    RegistrationToken.uses_allowed,
    RegistrationToken.expires_ts,
    RegistrationToken.created_ts,
    _PENDING.label("pending"),
).order_by(RegistrationToken.created_ts, RegistrationToken.token)
_BY_VALIDITY = {None: _ALL, True: _ALL.where(_IS_VALID), False: _ALL.where(~_IS_VALID)}
_ONE = _ALL.where(RegistrationToken.token == bindparam("token"))
_VALID = select(RegistrationToken.token).where(
    RegistrationToken.token == bindparam("token"), _IS_VALID
)
_CHANGE = update(RegistrationToken).where(RegistrationToken.token == bindparam("changed"))


def is_valid(tx: Reader, token: str) -> bool:
    """Return whether this registration token can be used now."""
    return tx.sql.execute(_VALID, {"token": token, "now": tx.now_ms}).first() is not None


def every(tx: Reader, *, valid: bool | None = None) -> list[Json]:
    """Return all registration tokens, or those that are valid now, or those that are not.

    Of each: token, uses, uses_allowed (None: any number), expires_ts (ms; None: never), created_ts,
    and `pending`, the number of registrations in which it was given and that have not ended yet.
    """
    return tx.sql.execute(_BY_VALIDITY[valid], _times(tx)).mappings()


def find(tx: Reader, token: str) -> Json:
    """Return a registration token as `every` does. Raises M_NOT_FOUND."""
    found = tx.sql.execute(_ONE, {"token": token, **_times(tx)}).mappings()
    if not found:
        raise errors.not_found("There is no such registration token")
    return found[0]


def add(
    tx: Tx,
    actor: str,
    token: str | None = None,
    *,
    length: int = DEFAULT_LENGTH,
    uses_allowed: int | None = None,
    expires_ts: int | None = None,
) -> str:
    """Add a registration token, random and of this length unless given, and return it.

    Raises M_INVALID_PARAM for an invalid token, one that exists, or a time that is over.
    """
    if not 1 <= length <= MAX_LENGTH:
        raise errors.invalid_param(f"length must be from 1 to {MAX_LENGTH}")
    token = _random(length) if token is None else token
    if not _TOKEN.fullmatch(token):
        raise errors.invalid_param(
            "A registration token must have 1 to 64 letters, digits and characters . _ ~ -"
        )
    _check_limits(tx, uses_allowed, expires_ts)
    if tx.sql.execute(_ONE, {"token": token, **_times(tx)}).first() is not None:
        raise errors.invalid_param("This registration token exists already")
    limits = {"uses_allowed": uses_allowed, "expires_ts": expires_ts}
    tx.sql.execute(insert(RegistrationToken), {"token": token, "created_ts": tx.now_ms, **limits})
    audit.note(tx, actor, "token.add", audit.masked(token), **limits)
    return token


def change(tx: Tx, actor: str, token: str, limits: dict[str, int | None]) -> None:
    """Set `uses_allowed`, `expires_ts` or both of a registration token; None: without a limit.

    Raises M_NOT_FOUND, M_INVALID_PARAM for a time that is over.
    """
    find(tx, token)
    _check_limits(tx, limits.get("uses_allowed"), limits.get("expires_ts"))
    if limits:
        tx.sql.execute(_CHANGE.values(**limits), {"changed": token})
        audit.note(tx, actor, "token.change", audit.masked(token), **limits)


def remove(tx: Tx, actor: str, token: str) -> None:
    """Delete a registration token. Raises M_NOT_FOUND for an unknown one."""
    gone = delete(RegistrationToken).where(RegistrationToken.token == token)
    if not tx.sql.execute(gone).rowcount:
        raise errors.not_found("There is no such registration token")
    audit.note(tx, actor, "token.remove", audit.masked(token))


def use_up(tx: Tx, token: str) -> None:
    """Count a registration with this token. Raises M_FORBIDDEN unless it is valid."""
    if not is_valid(tx, token):
        raise errors.forbidden("The registration token is not valid any more")
    tx.sql.execute(_CHANGE.values(uses=RegistrationToken.uses + 1), {"changed": token})


def _random(length: int) -> str:
    """Return a token that is easy to dictate and type; a leading `-` would be a shell option."""
    return "".join(secrets.choice(_EASY_LETTERS) for _ in range(length))


def _times(tx: Reader) -> Json:
    return {"now": tx.now_ms, "pending_since": tx.now_ms - PENDING_MS}


def _check_limits(tx: Reader, uses_allowed: int | None, expires_ts: int | None) -> None:
    if uses_allowed is not None and not 0 <= uses_allowed <= MAX_USES:
        raise errors.invalid_param("uses_allowed must be null or an integer from 0 on")
    if expires_ts is not None and not tx.now_ms < expires_ts <= MAX_USES:
        raise errors.invalid_param("expiry_time must be null or a time in the future, in ms")
