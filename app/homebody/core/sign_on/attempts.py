"""Logins at other providers that are under way.

Each begins in one browser, which gets a cookie, and can only be continued there: a response of the
provider that somebody else hands to the user leads nowhere. What the provider gets back from us
(the nonce, the code verifier of PKCE) is derived from that cookie. This module alone writes the
table sign_on_attempts.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import asdict, dataclass
from typing import Final, Literal

from sqlalchemy import bindparam, delete, insert, select, update

from homebody import errors
from homebody.core.accounts import access_tokens
from homebody.core.sign_on.providers import Identity
from homebody.models.sign_in import SignOnAttempt as Row
from homebody.storage.database import Reader, Tx

Purpose = Literal["login", "link", "confirm", "again"]
"""`confirm`: what a client does that waits for it; `again`: what the user does on our pages."""

LIFETIME_MS: Final = 15 * 60_000
"""How long a login may take, with a second factor and the choice of a name."""
AGAIN_MINUTES: Final = 10
"""How long a login that was begun to prove who the user is takes the place of a password."""
OVER: Final = "This login is over, or was begun in another browser. Begin again"

_FIND = select(
    Row.provider, Row.purpose, Row.target, Row.user_id, Row.is_returned, Row.identity
).where(
    Row.state_hash == bindparam("of_state"),
    Row.browser_hash == bindparam("of_browser"),
    Row.created_ts > bindparam("begun_after"),
)
_AGAIN = select(Row.identity).where(
    Row.purpose == "again",
    Row.user_id == bindparam("user_id"),
    Row.browser_hash == bindparam("of_browser"),
    Row.created_ts > bindparam("begun_after"),
)
_CHANGE = update(Row).where(Row.state_hash == bindparam("of_state"))


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is under way."""

    provider: str
    purpose: Purpose
    target: str
    """The page to go on to; if the purpose is to confirm, the hash of the session in hex."""
    user_id: str | None
    """The user who links the provider, or logs in again."""
    is_returned: bool
    identity: Identity | None
    """Whom the provider vouches for, once it has."""


def begin(
    tx: Tx,
    browser: str,
    provider: str,
    purpose: Purpose,
    target: str,
    user_id: str | None = None,
) -> str:
    """Begin a login in the browser with this cookie, and return its state."""
    tx.sql.execute(delete(Row).where(Row.created_ts <= tx.now_ms - LIFETIME_MS))
    state = secrets.token_urlsafe(24)
    row = {
        "state_hash": access_tokens.hash_of(state),
        "browser_hash": access_tokens.hash_of(browser),
        "provider": provider,
        "purpose": purpose,
        "target": target,
        "user_id": user_id,
        "created_ts": tx.now_ms,
        "is_returned": False,
        "identity": None,
    }
    tx.sql.execute(insert(Row), row)
    return state


def secret(browser: str, state: str, use: Literal["nonce", "verifier"]) -> str:
    """Return a secret of this login: 43 characters, as PKCE needs them."""
    digest = hmac.digest(browser.encode(), f"{use} {state}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def find(tx: Reader, browser: str, state: str) -> Attempt:
    """Return a login that has begun in the browser with this cookie. Raises M_FORBIDDEN."""
    key = {
        "of_state": access_tokens.hash_of(state),
        "of_browser": access_tokens.hash_of(browser),
        "begun_after": tx.now_ms - LIFETIME_MS,
    }
    row = tx.sql.execute(_FIND, key).first()
    if row is None:
        raise errors.forbidden(OVER)
    identity = None if row.identity is None else Identity(**row.identity)
    return Attempt(row.provider, row.purpose, row.target, row.user_id, row.is_returned, identity)


def again(tx: Reader, browser: str, user_id: str) -> list[Identity]:
    """Return for whom providers have vouched when this user had to log in again just before."""
    key = {
        "user_id": user_id,
        "of_browser": access_tokens.hash_of(browser),
        "begun_after": tx.now_ms - AGAIN_MINUTES * 60_000,
    }
    found = tx.sql.execute(_AGAIN, key).scalars()
    return [Identity(**it) for it in found if it is not None]


def note_return(tx: Tx, browser: str, state: str, provider: str) -> Attempt:
    """Note that the browser has come back from the provider, which it can do once.

    Raises M_FORBIDDEN.
    """
    found = find(tx, browser, state)
    if found.is_returned or found.provider != provider:
        raise errors.forbidden(OVER)
    tx.sql.execute(_CHANGE.values(is_returned=True), {"of_state": access_tokens.hash_of(state)})
    return found


def vouch(tx: Tx, state: str, identity: Identity) -> None:
    """Record for whom the provider vouches."""
    key = {"of_state": access_tokens.hash_of(state)}
    tx.sql.execute(_CHANGE.values(identity=asdict(identity)), key)


def end(tx: Tx, state: str) -> None:
    """End a login, as it leads to a session, a link or a confirmation. It can do so once.

    Raises M_FORBIDDEN if a concurrent request has ended it.
    """
    ended = delete(Row).where(Row.state_hash == access_tokens.hash_of(state))
    if not tx.sql.execute(ended).rowcount:
        raise errors.forbidden(OVER)
