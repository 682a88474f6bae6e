"""Sessions of browsers: users who are logged in to the pages of this server, by a cookie.

They are not devices: other users don't see them, and they have no keys and no access tokens. They
end with a new password, and when the user logs out everywhere. The database holds hashes of their
tokens only. This module alone writes the table browser_sessions.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, or_, select, update

from homebody import errors
from homebody.core.accounts import access_tokens, accounts
from homebody.core.accounts.accounts import AccountInfo
from homebody.models.sign_in import BrowserSession as Row
from homebody.storage.database import Reader, Tx

LIFETIME_MS: Final = 12 * 3_600_000
"""How long a session lasts, however much it is used."""
IDLE_MS: Final = 2 * 3_600_000
"""How long it lasts after it was last used."""
WRITE_EVERY_MS: Final = 60_000
"""How often it is written that a session was used."""
MAX_SESSIONS: Final = 20
"""Of one user; beyond it the oldest end."""
MAX_USER_AGENT: Final = 255
ID_CHARACTERS: Final = 12

_ALL = select(
    Row.token_hash, Row.user_id, Row.created_ts, Row.last_used_ts, Row.ip, Row.user_agent
).order_by(Row.created_ts.desc())
_FIND = _ALL.where(Row.token_hash == bindparam("token_hash"))
_OF_USER = _ALL.where(
    Row.user_id == bindparam("user_id"),
    Row.created_ts > bindparam("created_after"),
    Row.last_used_ts > bindparam("used_after"),
)
_TOUCH = update(Row).where(Row.token_hash == bindparam("of_hash"))


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A row of the table browser_sessions."""

    token_hash: bytes
    user_id: str
    created_ts: int  # ms
    last_used_ts: int  # ms
    ip: str
    user_agent: str

    @property
    def id(self) -> str:
        """What a page calls it by; it does not let anybody in."""
        return self.token_hash.hex()[:ID_CHARACTERS]


def begin(tx: Tx, account: AccountInfo, *, ip: str, user_agent: str) -> str:
    """Start a session after a password was verified, and return its token.

    Raises M_FORBIDDEN when the account was changed since, M_USER_LOCKED, M_USER_DEACTIVATED,
    ORG_MATRIX_EXPIRED_ACCOUNT.
    """
    if accounts.find(tx, account.user_id) != account:
        raise errors.forbidden("The account was changed meanwhile")
    accounts.check_active(tx, account)
    return start(tx, account.user_id, ip=ip, user_agent=user_agent)


def start(tx: Tx, user_id: str, *, ip: str, user_agent: str) -> str:
    """Start a session of a user whose identity the request has proved, and return its token."""
    has_ended = or_(
        Row.created_ts <= tx.now_ms - LIFETIME_MS, Row.last_used_ts <= tx.now_ms - IDLE_MS
    )
    tx.sql.execute(delete(Row).where(has_ended))
    too_many = all_of(tx, user_id)[MAX_SESSIONS - 1 :]
    for session in too_many:
        end(tx, session)
    token = secrets.token_urlsafe(32)
    row = {
        "token_hash": access_tokens.hash_of(token),
        "user_id": user_id,
        "created_ts": tx.now_ms,
        "last_used_ts": tx.now_ms,
        "ip": ip,
        "user_agent": user_agent[:MAX_USER_AGENT],
    }
    tx.sql.execute(insert(Row), row)
    return token


def find(tx: Reader, token: str) -> tuple[BrowserSession, AccountInfo]:
    """Return the session with this token, and the account as it is now.

    Raises M_UNKNOWN_TOKEN for one that has ended, also because its account is locked, deactivated
    or expired.
    """
    return _find(tx, access_tokens.hash_of(token))


def check_still_valid(tx: Reader, session: BrowserSession) -> AccountInfo:
    """Return the account as it is now.

    Raises M_UNKNOWN_TOKEN if the session has ended since its request began.
    """
    return _find(tx, session.token_hash)[1]


def is_open(tx: Reader, token_hash: bytes) -> bool:
    """Return whether a session was not ended yet. What the user has allowed in it ends with it."""
    return tx.sql.execute(_FIND, {"token_hash": token_hash}).first() is not None


def all_of(tx: Reader, user_id: str) -> list[BrowserSession]:
    """Return the sessions of a user, newest first."""
    limits = {"created_after": tx.now_ms - LIFETIME_MS, "used_after": tx.now_ms - IDLE_MS}
    rows = tx.sql.execute(_OF_USER, {"user_id": user_id, **limits})
    return [BrowserSession(*row) for row in rows]


def is_use_to_write(session: BrowserSession, now_ms: int) -> bool:
    """Return whether it is time to write that a session was used."""
    return now_ms - session.last_used_ts >= WRITE_EVERY_MS


def note_use(tx: Tx, session: BrowserSession, ip: str) -> None:
    """Record that a session was used now, from this address."""
    used = _TOUCH.values(last_used_ts=tx.now_ms, ip=ip)
    tx.sql.execute(used, {"of_hash": session.token_hash})


def end(tx: Tx, session: BrowserSession) -> None:
    """End a session."""
    end_by_hash(tx, session.token_hash)


def end_by_hash(tx: Tx, token_hash: bytes) -> None:
    """End the session whose token has this hash, if there is one."""
    tx.sql.execute(delete(Row).where(Row.token_hash == token_hash))


def end_all(tx: Tx, user_id: str, *, but: BrowserSession | None = None) -> None:
    """End all sessions of a user, except one."""
    is_other = Row.token_hash != (b"" if but is None else but.token_hash)
    tx.sql.execute(delete(Row).where(Row.user_id == user_id, is_other))


def _find(tx: Reader, token_hash: bytes) -> tuple[BrowserSession, AccountInfo]:
    row = tx.sql.execute(_FIND, {"token_hash": token_hash}).first()
    if row is None or tx.now_ms >= min(row.created_ts + LIFETIME_MS, row.last_used_ts + IDLE_MS):
        raise errors.unknown_token("Your session has ended")
    account = accounts.find(tx, row.user_id)
    if account is None:
        raise errors.unknown_token("Your session has ended")
    try:
        accounts.check_active(tx, account)
    except errors.MatrixError as problem:
        raise errors.unknown_token("This account can't be used") from problem
    return BrowserSession(*row), account
