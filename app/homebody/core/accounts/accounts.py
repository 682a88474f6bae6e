"""Accounts and their passwords.

This module alone writes the table accounts. Passwords are kept as argon2id hashes. Hashing is slow
on purpose, so it never happens inside a write transaction: hash first, then write.

Spec: client-server-api#password-based, appendices#user-identifiers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from passlib.context import CryptContext
from sqlalchemy import bindparam, func, insert, select, update

from homebody import errors
from homebody.config.settings import Config
from homebody.core.accounts import user_directory_index
from homebody.models.accounts import Account
from homebody.models.appservices import AppserviceUser
from homebody.runtime import event_loop
from homebody.spec import identifiers
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Server, Tx

R = TypeVar("R")

MAX_PASSWORD_BYTES = 512
USER_TYPES = ("bot", "support")
"""What an account can be for, if not for a person."""


def _context(memory_kib: int, passes: int) -> CryptContext:
    return CryptContext(
        schemes=["argon2", "bcrypt"],  # bcrypt: accounts imported from another server
        deprecated="auto",
        argon2__type="ID",
        argon2__memory_cost=memory_kib,
        argon2__min_rounds=passes,
        argon2__max_rounds=passes,
        argon2__parallelism=1,
    )


# docs/decisions/0009: as strong as 19 MiB and two passes, and faster
_CONTEXTS = {"argon2id": _context(9 * 1024, 4), "cheap": _context(8, 1)}

_FIND = select(
    Account.user_id,
    Account.password_hash,
    Account.created_ts,
    Account.is_admin,
    Account.is_locked,
    Account.deactivated_ts,
    Account.is_suspended,
    Account.is_shadow_banned,
    Account.is_guest,
    Account.user_type,
    Account.erased_position,
    Account.expires_ts,
    Account.last_seen_ts,
).where(Account.user_id == bindparam("user_id"))
_ALL = select(*_FIND.selected_columns).order_by(Account.user_id)
_KEYS_REPLACEABLE = select(Account.keys_replaceable_until_ts).where(
    Account.user_id == bindparam("user_id")
)
_SEEN = (
    update(Account)
    .where(Account.user_id == bindparam("of_user"))
    .values(last_seen_ts=func.max(func.coalesce(Account.last_seen_ts, 0), bindparam("seen_ts")))
)
# without users of bridges and guests, who may exist before the administrator
_ANY_USER = (
    select(Account.user_id)
    .where(~Account.is_guest, Account.user_id.not_in(select(AppserviceUser.user_id)))
    .limit(1)
)
ERASED: CacheKind[str, dict[str, int]] = declare("erased", 1, lambda users: 200 * len(users))
"""{user_id: position since which the user is erased}, as one cached value; events/visibility.py
reads it."""
ALL = ""
"""The only key of the cache ERASED."""


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """A row of the table accounts."""

    user_id: str
    password_hash: str | None
    created_ts: int  # ms
    is_admin: bool
    is_locked: bool
    deactivated_ts: int | None  # ms
    is_suspended: bool = False
    is_shadow_banned: bool = False
    is_guest: bool = False
    user_type: str | None = None
    erased_position: int | None = None
    expires_ts: int | None = None  # ms
    last_seen_ts: int | None = field(default=None, compare=False)
    """ms; may be some minutes old, see access_tokens.py. Requests must not make it another one."""


def find(tx: Reader, user_id: str) -> AccountInfo | None:
    """Return the account with this user ID, active or deactivated, or None."""
    row = tx.sql.execute(_FIND, {"user_id": user_id}).first()
    return None if row is None else AccountInfo(*row)


def find_by_name(tx: Reader, name: str) -> AccountInfo | None:
    """Return the account for a user ID or localpart as a user types it, or None.

    Localparts are lowercase and phones capitalize the first letter, so a name that does not exist
    as typed is looked up in lowercase.
    """
    for spelling in dict.fromkeys((name, name.lower())):
        user_id = spelling if spelling.startswith("@") else f"@{spelling}:{tx.server.name}"
        if identifiers.is_user_id(user_id) and (known := find(tx, user_id)) is not None:
            return known
    return None


def check_active(tx: Reader, account: AccountInfo) -> None:
    """Raise M_USER_DEACTIVATED, M_USER_LOCKED or ORG_MATRIX_EXPIRED_ACCOUNT if it isn't in use."""
    if account.deactivated_ts is not None:
        raise errors.user_deactivated()
    if account.is_locked:
        raise errors.user_locked()
    if account.expires_ts is not None and account.expires_ts <= tx.now_ms:
        raise errors.expired_account()


def all_accounts(tx: Reader) -> list[AccountInfo]:
    """Return every account, deactivated ones too, ordered by user ID."""
    return [AccountInfo(*row) for row in tx.sql.execute(_ALL)]


def create(
    tx: Tx,
    user_id: str,
    password_hash: str | None,
    *,
    is_admin: bool = False,
    is_bridged: bool = False,
    is_guest: bool = False,
    user_type: str | None = None,
) -> None:
    """Create an account. The first one on a server becomes its administrator.

    Accounts created by application services (`is_bridged`) and guests are excepted.
    Raises M_USER_IN_USE when the user ID exists, even if it was deactivated.
    """
    if find(tx, user_id) is not None:
        raise errors.user_in_use()
    is_first = not (is_bridged or is_guest) and tx.sql.execute(_ANY_USER).first() is None
    tx.sql.execute(
        insert(Account),
        {
            "user_id": user_id,
            "password_hash": password_hash,
            "created_ts": tx.now_ms,
            "is_admin": is_admin or is_first,
            "is_guest": is_guest,
            "user_type": user_type,
            "deactivated_ts": None,
        },
    )
    if not is_guest:
        user_directory_index.put(tx, user_id, None)


def is_guest(tx: Reader, user_id: str) -> bool:
    """Return whether this is a guest account."""
    account = select(Account.is_guest).where(Account.user_id == user_id)
    return bool(tx.sql.execute(account).scalar())


def upgrade_guest(tx: Tx, user_id: str, password_hash: str | None) -> None:
    """Turn a guest account into a full one, which may be the first and become administrator."""
    is_first = tx.sql.execute(_ANY_USER).first() is None
    _change(tx, user_id, is_guest=False, is_admin=is_first, password_hash=password_hash)
    user_directory_index.put(tx, user_id, None)


def set_password_hash(tx: Tx, user_id: str, password_hash: str) -> None:
    """Replace the user's password."""
    _change(tx, user_id, password_hash=password_hash)


def check_password_unchanged(tx: Reader, proved: AccountInfo) -> None:
    """Raise M_FORBIDDEN when the password was changed since the account `proved` was read."""
    now = find(tx, proved.user_id)
    if now is None or now.password_hash != proved.password_hash:
        raise errors.forbidden("The password was changed meanwhile")


def renew_hash(tx: Tx, account: AccountInfo, password_hash: str) -> None:
    """Store a new hash of the same password, unless the password was changed meanwhile."""
    same = (Account.user_id == account.user_id, Account.password_hash == account.password_hash)
    tx.sql.execute(update(Account).where(*same).values(password_hash=password_hash))


def mark_deactivated(tx: Tx, user_id: str, *, erase: bool) -> None:
    """Mark an account as deactivated; sessions/deactivation.py does the rest.

    What was said of an account that is deactivated already stays.
    """
    values = {"deactivated_ts": func.coalesce(Account.deactivated_ts, tx.now_ms)}
    if erase:
        values["erased_position"] = func.coalesce(Account.erased_position, tx.next_position())
    _change(tx, user_id, password_hash=None, **values)
    tx.forget(ERASED, ALL)
    user_directory_index.remove(tx, user_id)


def mark_reactivated(tx: Tx, user_id: str) -> None:
    """Open a deactivated account again; it has no password, and its user is not erased."""
    _change(tx, user_id, deactivated_ts=None, erased_position=None)
    tx.forget(ERASED, ALL)
    user_directory_index.put(tx, user_id, None)


def set_locked(tx: Tx, user_id: str, *, is_locked: bool) -> None:
    """Lock or unlock an account; moderation.py makes it take effect."""
    _change(tx, user_id, is_locked=is_locked)


def set_suspended(tx: Tx, user_id: str, *, is_suspended: bool) -> None:
    """Suspend or unsuspend an account; moderation.py makes it take effect."""
    _change(tx, user_id, is_suspended=is_suspended)


def set_shadow_banned(tx: Tx, user_id: str, *, is_shadow_banned: bool) -> None:
    """Shadow-ban an account, or end that; moderation.py makes it take effect."""
    _change(tx, user_id, is_shadow_banned=is_shadow_banned)


def set_admin(tx: Tx, user_id: str, *, is_admin: bool) -> None:
    """Make a user an administrator, or end that; moderation.py makes it take effect."""
    _change(tx, user_id, is_admin=is_admin)


def set_user_type(tx: Tx, user_id: str, user_type: str | None) -> None:
    """Set what an account is for: one of USER_TYPES, or None for a person."""
    _change(tx, user_id, user_type=user_type)


def note_seen(tx: Tx, times: Mapping[str, int]) -> None:
    """Record when users made their last requests: {user_id: ts in ms}."""
    values = [{"of_user": user_id, "seen_ts": ts} for user_id, ts in times.items()]
    tx.sql.execute(_SEEN, values)


def set_expiry(tx: Tx, user_id: str, expires_ts: int | None) -> None:
    """Set when the account expires, in ms; moderation.py makes it take effect."""
    _change(tx, user_id, expires_ts=expires_ts)


def allow_key_replacement(tx: Tx, user_id: str, until_ts: int | None) -> None:
    """Let the user replace the cross-signing keys without authentication, until a time in ms."""
    _change(tx, user_id, keys_replaceable_until_ts=until_ts)


def may_replace_keys(tx: Reader, user_id: str) -> bool:
    """Return whether an administrator lets the user replace the cross-signing keys now."""
    until_ts = tx.sql.execute(_KEYS_REPLACEABLE, {"user_id": user_id}).scalar()
    return until_ts is not None and tx.now_ms < until_ts


def check_new_password(config: Config, password: str) -> None:
    """Raise M_WEAK_PASSWORD for a short password, M_INVALID_PARAM for one that is too long.

    There are no other rules: required symbols and digits do not make passwords stronger.
    """
    if not password:
        raise errors.weak_password("The password is empty")
    if len(password) < config.min_password_length:
        raise errors.weak_password(
            f"The password has fewer than {config.min_password_length} characters"
        )
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise errors.invalid_param(f"The password is longer than {MAX_PASSWORD_BYTES} bytes")


def hash_password(server: Server, password: str) -> str:
    """Check a new password and return its hash. Must not be called inside a write transaction.

    Raises as `check_new_password` does.
    """
    check_new_password(server.config, password)
    return rehash_password(server, password)


def rehash_password(server: Server, password: str) -> str:
    """Return the hash of a password that an account has already, without checking its strength."""
    return _in_pool(lambda: str(_CONTEXTS[server.config.password_hashing].hash(password)))


def has_password(server: Server, account: AccountInfo | None, password: str) -> bool:
    """Return whether this is the account's password.

    Takes the same time where there is no account, so that timing does not reveal which exist.
    """
    context = _CONTEXTS[server.config.password_hashing]
    if account is None or account.password_hash is None:
        return _in_pool(lambda: bool(context.dummy_verify()))
    kept = account.password_hash
    return _in_pool(lambda: _verify(context, password, kept))


def wants_rehash(server: Server, account: AccountInfo) -> bool:
    """Return whether the password's hash has other parameters than the current ones."""
    context = _CONTEXTS[server.config.password_hashing]
    return account.password_hash is not None and context.needs_update(account.password_hash)


def _verify(context: CryptContext, password: str, kept: str) -> bool:
    try:
        return bool(context.verify(password, kept))
    except ValueError:  # bcrypt accepts up to 72 bytes and no NUL, argon2 up to 4096
        return False


def _in_pool(work: Callable[[], R]) -> R:
    with event_loop.HASHES_AT_ONCE:
        return event_loop.offload(work)


def _change(tx: Tx, user_id: str, **values: object) -> None:
    tx.sql.execute(update(Account).where(Account.user_id == user_id).values(**values))
